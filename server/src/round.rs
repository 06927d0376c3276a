//! The life of a round, as a pure state machine: no clock, no disk, no network. Every method takes the time it happens at.
//!
//! A round opens **idle**. The first check-in starts its span, and the round is **collecting** until it has the target
//! number of updates, or until the span ends with at least the minimum. With fewer, the span starts again and the updates
//! stay; with none, the round is idle again. A client that checked in stays checked in for the whole round, so a slow one
//! may still report after the span that it checked in to.
//!
//! Where the task limits how many are **invited** ([`Rules::invited`]), a round takes more than the target and no more: those of
//! them that drop out are made up for by the others, and those that come after the target was reached are told that the round has
//! closed. Who is not invited is told when to ask again, the later the more are waiting, and each at a time of its own. A span that
//! ends with too few updates invites as many again. (Bonawitz et al., “Towards Federated Learning at Scale: System Design”, 2019,
//! [arXiv:1902.01046](https://arxiv.org/abs/1902.01046), sections 2.2 and 2.3: selection of 130 % of the target, pace steering.)
//!
//! Where the task selects by **chance** ([`Rules::chance`]), each span draws who of those that ask is let in (`chance.rs`); the first who
//! asks starts the span, whether drawn or not. A span that ends with too few updates draws anew: those that are in stay in, and the
//! others may be drawn then.
//!
//! Where rounds are **asynchronous** ([`Rules::max_staleness`]), a client that checked in may report to one of the next rounds,
//! too: its update names the round whose model it starts from, and the open round counts it. A client counts at most once in a
//! round, and once for a check-in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use unsaid_protocol::{ClientId, ContentHash, RoundMetrics, RoundPhase, RoundPolicy, UpdateId};

mod chance;
mod check_in;
mod claim;
mod head;
mod report;
#[cfg(test)]
mod tests;

pub use self::{
    chance::{Chance, DrawKey},
    claim::{Claim, Counted, FrameDigest, FrameHasher, Refusal},
    head::Head,
};

/// Rounds after which the id of a counted update is forgotten. Until then, sending it again is answered as a duplicate.
pub const REMEMBERED_ROUNDS: u64 = 64;

/// The most clients that one round lets in: a bound on what a stranger who invents ids can make a relay hold.
pub const MAX_CHECK_INS: usize = 65_536;

/// What does not change while a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// When a round closes.
    pub policy: RoundPolicy,
    /// The last round, if the task has one.
    pub limit: Option<u64>,
    /// The most clients that a span of a round lets in; none for any number.
    pub invited: Option<u32>,
    /// With which probability a span lets in who asks; none for everyone.
    pub chance: Option<Chance>,
    /// The manifest in force.
    pub manifest: ContentHash,
    /// The most rounds that may have closed since the one whose model an update starts from; 0 for synchronous rounds.
    pub max_staleness: u32,
    /// A participant that a round counts is let in again so many rounds later at the earliest; at most 1 for the next one.
    pub min_separation: u32,
    /// Whether clients are named as identities' own ([`unsaid_protocol::IdentityId::own`]): then it is their identity that is let in again so much later.
    pub by_identity: bool,
    /// The name of what the task takes of one identity, which its manifest does not say; none where it asks for none.
    pub shares: Option<ContentHash>,
}

/// The time in which a round collects, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first check-in.
    pub started_ms: u64,
    /// When the round publishes with what it has.
    pub deadline_ms: u64,
}

/// What the passing of time asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// The round has what it needs: aggregate, then call [`Rounds::publish`].
    Publish,
    /// Too few updates at the deadline: another span has begun.
    Extended,
    /// No update at the deadline: the round is idle again.
    Lapsed,
    /// The clock was set back: the deadline is a whole span from now, and no further off.
    Moved,
}

/// Whether an update is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// To be counted: call [`Rounds::count`].
    New,
    /// Counted before, in this round.
    Duplicate {
        /// The round that counts it.
        round: u64,
    },
}

/// The rounds of one task.
#[derive(Debug, Clone)]
pub struct Rounds {
    rules: Rules,
    round: u64,
    model: ContentHash,
    span: Option<Span>,
    /// By what the span draws who is let in, from the first who asks on; where it does.
    draw_key: Option<DrawKey>,
    bytes_up: u64,
    paused: bool,
    /// How often the open round has forgotten check-ins.
    forgot: u32,
    /// Clients of earlier spans of the open round that had not reported when their span ended: others are invited in their place.
    excused: u32,
    checked_in: BTreeSet<ClientId>,
    /// Of those that checked in, the ones whose span ended before they reported, as far as this relay knows: it forgets them with a restart, and
    /// then finds them where it has seen the next span end.
    overdue: BTreeSet<ClientId>,
    /// Whether a publication that had its target could not be made: it is tried again at the deadline.
    unmade: bool,
    /// Clients that asked and were not invited to the open round. Not kept on disk: it only says how many wait.
    turned_away: BTreeSet<ClientId>,
    reported: BTreeSet<ClientId>,
    counted: HashMap<UpdateId, Counted>,
    /// Models of the rounds before, the newest first, from which an update may still start.
    earlier: Vec<ContentHash>,
    /// Check-ins to those rounds.
    earlier_check_ins: BTreeSet<(u64, ClientId)>,
    /// Until when each of those rounds' clients are likely to report: for a whole span after it closed, or after this relay first saw it closed.
    awaited_until_ms: BTreeMap<u64, u64>,
    /// The last round that counts a client, or any client of its identity ([`Self::participant`]). Only where rounds are asynchronous, or
    /// clients have to stay away for some.
    last_report: HashMap<ClientId, u64>,
}

impl Rounds {
    /// Forgets those that checked in and did not report: they have had their span.
    fn make_room(&mut self) {
        self.checked_in.retain(|client| self.reported.contains(client));
        self.forgot = self.forgot.saturating_add(1);
    }

    /// The open round; where the task has finished, the one after its last.
    pub const fn round(&self) -> u64 {
        self.round
    }

    /// The newest model.
    pub const fn model(&self) -> ContentHash {
        self.model
    }

    /// The span in which the round collects; none while idle or finished.
    pub fn span(&self) -> Option<Span> {
        self.span.filter(|_| self.phase() != RoundPhase::Finished)
    }

    /// Whether a publication could not be made and is tried again at the deadline.
    pub const fn is_put_off(&self) -> bool {
        self.unmade
    }

    /// Clients that checked in to the open round.
    pub fn checked_in(&self) -> u32 {
        self.checked_in.len() as u32 // at most MAX_CHECK_INS
    }

    /// Updates counted in the open round.
    pub fn received(&self) -> u32 {
        self.reported.len() as u32 // at most MAX_CHECK_INS
    }

    /// Whether the open round counts an update of this client.
    pub fn has_reported(&self, client: &ClientId) -> bool {
        self.reported.contains(client)
    }

    /// Whether this client has checked in to the open round.
    pub fn is_in(&self, client: &ClientId) -> bool {
        self.checked_in.contains(client)
    }

    /// How many of the clients with ids from `least` to `greatest` the open round counts.
    pub fn reported_of(&self, [least, greatest]: [[u8; 16]; 2]) -> u32 {
        let ids = ClientId::from_bytes(least)..=ClientId::from_bytes(greatest);
        self.reported.range(ids).count() as u32 // at most MAX_CHECK_INS
    }

    /// How many of the clients with ids from `least` to `greatest` have checked in and are likely to report, to the open round or to one
    /// before it, without the client `but`. Whose span has ended, or whose round closed a span ago, may report all the same, but is not
    /// waited for.
    pub fn under_way_of(&self, [least, greatest]: [[u8; 16]; 2], but: &ClientId, now_ms: u64) -> u32 {
        let (least, greatest) = (ClientId::from_bytes(least), ClientId::from_bytes(greatest));
        let now = self.checked_in.range(least..=greatest);
        let now = now.filter(|client| !self.overdue.contains(client));
        let earlier = self.earlier.iter().zip(1..);
        let earlier = earlier.map(|(_, behind)| self.round.saturating_sub(behind));
        let is_awaited = |round: &u64| {
            let until_ms = self.awaited_until_ms.get(round);
            until_ms.is_none_or(|until_ms| now_ms < *until_ms)
        };
        let before = earlier.filter(is_awaited).flat_map(|round| {
            let may_report =
                move |client: &ClientId| self.last_report.get(client).is_none_or(|&last| last < round);
            let ids = (round, least)..=(round, greatest);
            let then = self.earlier_check_ins.range(ids).map(|(_, client)| client);
            then.filter(move |client| may_report(client))
        });
        let open = |client: &&ClientId| *client != but && !self.reported.contains(*client);
        let clients: BTreeSet<_> = now.chain(before).filter(open).collect();
        clients.len() as u32 // at most MAX_CHECK_INS for each round that is remembered
    }

    /// How often the open round has forgotten the check-ins of those that had not reported.
    pub const fn forgot(&self) -> u32 {
        self.forgot
    }

    /// Whether no more clients are let in.
    pub const fn paused(&self) -> bool {
        self.paused
    }

    /// Lets no more clients in, or lets them in again. The open round goes on with those that are in: it publishes as ever, and
    /// the next one waits.
    pub const fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Where the round stands.
    pub fn phase(&self) -> RoundPhase {
        match (self.rules.limit, self.span) {
            (Some(limit), _) if self.round > limit => RoundPhase::Finished,
            (_, None) => RoundPhase::Idle,
            (_, Some(_)) => RoundPhase::Collecting,
        }
    }

    /// Lets time pass until `now_ms`.
    pub fn tick(&mut self, now_ms: u64) -> Due {
        self.await_earlier(now_ms);
        if self.phase() == RoundPhase::Finished {
            return Due::Nothing;
        }
        let policy = self.rules.policy;
        if self.received() >= policy.target_clients && !self.unmade {
            return Due::Publish;
        }
        let Some(span) = &mut self.span else {
            return Due::Nothing;
        };
        let furthest_ms = now_ms.saturating_add(policy.deadline_ms);
        if span.deadline_ms > furthest_ms {
            *span = Span {
                started_ms: span.started_ms.min(now_ms),
                deadline_ms: furthest_ms,
            };
            return Due::Moved;
        }
        if span.deadline_ms > now_ms {
            return Due::Nothing;
        }
        self.unmade = false;
        if self.received() >= policy.min_clients {
            return Due::Publish;
        }
        if self.checked_in.len() >= MAX_CHECK_INS {
            self.make_room();
        }
        self.excused = self.checked_in().saturating_sub(self.received());
        self.miss();
        self.turned_away.clear();
        self.draw_key = None;
        if self.reported.is_empty() {
            self.span = None;
            return Due::Lapsed;
        }
        self.extend(now_ms);
        Due::Extended
    }

    /// A publication could not be made: it is tried again when another span has passed.
    pub fn put_off(&mut self, now_ms: u64) {
        self.unmade = true;
        self.extend(now_ms);
    }

    /// No round before the open one is awaited for longer than a span from now.
    fn await_earlier(&mut self, now_ms: u64) {
        let furthest_ms = now_ms.saturating_add(self.rules.policy.deadline_ms);
        let first = self.round.saturating_sub(self.earlier.len() as u64);
        self.awaited_until_ms.retain(|round, _| *round >= first);
        for round in first..self.round {
            let until_ms = self.awaited_until_ms.entry(round).or_insert(furthest_ms);
            *until_ms = furthest_ms.min(*until_ms);
        }
    }

    /// The span of those that are in has ended.
    fn miss(&mut self) {
        self.overdue = self.checked_in.difference(&self.reported).copied().collect();
    }

    /// Starts the span again from `now_ms`.
    fn extend(&mut self, now_ms: u64) {
        if let Some(span) = &mut self.span {
            span.deadline_ms = now_ms.saturating_add(self.rules.policy.deadline_ms);
        }
    }

    fn collect_from(&mut self, now_ms: u64) -> Span {
        let deadline_ms = now_ms.saturating_add(self.rules.policy.deadline_ms);
        *self.span.get_or_insert(Span {
            started_ms: now_ms,
            deadline_ms,
        })
    }

    /// Closes the open round with `model` and opens the next.
    pub fn publish(&mut self, model: ContentHash, model_bytes: u64, now_ms: u64) -> RoundMetrics {
        let started_ms = self.span.map_or(now_ms, |span| span.started_ms);
        let metrics = RoundMetrics {
            round: self.round,
            model,
            clients: self.received(),
            checked_in: self.checked_in(),
            bytes_up: self.bytes_up,
            model_bytes,
            duration_ms: now_ms.saturating_sub(started_ms),
            published_at_ms: now_ms,
            accuracy: None,
            loss: None,
            rolled_back_to: None,
            privacy: None,
        };
        self.leave_check_ins();
        self.earlier.insert(0, self.model);
        self.earlier.truncate(self.rules.max_staleness as usize);
        self.round += 1;
        self.await_earlier(now_ms);
        self.model = model;
        self.span = None;
        self.draw_key = None;
        self.forgot = 0;
        self.excused = 0;
        self.overdue.clear();
        self.unmade = false;
        self.turned_away.clear();
        self.bytes_up = 0;
        self.reported.clear();
        self.forget();
        metrics
    }

    /// Closes the open round with the `model` of round `to`, as a round of no updates: those that it has are given up.
    ///
    /// # Errors
    /// [`Refusal::NotPaused`]: while clients are let in, new ones would train on a model that the operator is about to leave.
    pub fn roll_back(
        &mut self,
        to: u64,
        model: ContentHash,
        model_bytes: u64,
        now_ms: u64,
    ) -> Result<RoundMetrics, Refusal> {
        if !self.paused {
            return Err(Refusal::NotPaused);
        }
        let published = self.publish(model, model_bytes, now_ms);
        // What starts from a model that was left leads on from there.
        self.earlier.clear();
        self.forget();
        Ok(RoundMetrics {
            clients: 0,
            bytes_up: 0, // of no update that counted
            rolled_back_to: Some(to),
            ..published
        })
    }
}
