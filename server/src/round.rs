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
//! Where rounds are **asynchronous** ([`Rules::max_staleness`]), a client that checked in may report to one of the next rounds,
//! too: its update names the round whose model it starts from, and the open round counts it. A client counts at most once in a
//! round, and once for a check-in.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use unsaid_protocol::{
    CheckIn, CheckInReply, ClientId, ContentHash, IdentityId, RoundMetrics, RoundPhase, RoundPolicy, UpdateId,
};

use crate::central::Tree;

mod claim;
#[cfg(test)]
mod tests;

pub use self::claim::{Claim, Counted, FrameDigest, FrameHasher, Refusal};

/// Rounds after which the id of a counted update is forgotten. Until then, sending it again is answered as a duplicate.
pub const REMEMBERED_ROUNDS: u64 = 64;

/// The most clients that one round lets in: a bound on what a stranger who invents ids can make a relay hold.
pub const MAX_CHECK_INS: usize = 65_536;

/// The longest that a waiting client is told to wait before it asks again. The `round` event comes sooner.
const LONGEST_WAIT_MS: u64 = 5_000;
const SHORTEST_WAIT_MS: u64 = 250;

/// The longest that a client is told to wait that was not invited.
const LONGEST_PACE_MS: u64 = 600_000;

/// What does not change while a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// When a round closes.
    pub policy: RoundPolicy,
    /// The last round, if the task has one.
    pub limit: Option<u64>,
    /// The most clients that a span of a round lets in; none for any number.
    pub invited: Option<u32>,
    /// The manifest in force.
    pub manifest: ContentHash,
    /// The most rounds that may have closed since the one whose model an update starts from; 0 for synchronous rounds.
    pub max_staleness: u32,
    /// A participant that a round counts is let in again so many rounds later at the earliest; at most 1 for the next one.
    pub min_separation: u32,
    /// Whether clients are named as identities' own ([`IdentityId::own`]): then it is their identity that is let in again so much later.
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
    bytes_up: u64,
    paused: bool,
    /// How often the open round has forgotten check-ins.
    forgot: u32,
    /// Clients of earlier spans of the open round that had not reported when their span ended: others are invited in their place.
    excused: u32,
    checked_in: BTreeSet<ClientId>,
    /// Clients that asked and were not invited to the open round. Not kept on disk: it only says how many wait.
    turned_away: BTreeSet<ClientId>,
    reported: BTreeSet<ClientId>,
    counted: HashMap<UpdateId, Counted>,
    /// Models of the rounds before, the newest first, from which an update may still start.
    earlier: Vec<ContentHash>,
    /// Check-ins to those rounds.
    earlier_check_ins: BTreeSet<(u64, ClientId)>,
    /// The last round that counts a client, or any client of its identity ([`Self::participant`]). Only where rounds are asynchronous, or
    /// clients have to stay away for some.
    last_report: HashMap<ClientId, u64>,
}

/// The part of the state that is small and changes as a whole; the rest is kept entry by entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The open round.
    pub round: u64,
    /// The newest model.
    pub model: ContentHash,
    /// The span, unless idle.
    pub span: Option<Span>,
    /// Bytes of the frames counted in the open round.
    pub bytes_up: u64,
    /// Whether no more clients are let in.
    #[serde(default)]
    pub paused: bool,
    /// How often the open round has forgotten the check-ins of those that had not reported, to make room for others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forgot: u32,
    /// Clients of earlier spans of the open round in whose place others are invited.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub excused: u32,
    /// Models of the rounds before, the newest first, from which an update may still start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<ContentHash>,
    /// Where clients are let in again after some rounds only: after how many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_separation: u32,
    /// The name of what the task takes of one identity ([`crate::identity::Rules::shares`]): relays that share it must agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<ContentHash>,
    /// Where the relay's noise is that of a tree over rounds: the tree whose next leaf the open round is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Head {
    /// The first round to which a check-in may still be worth something.
    pub fn first_base(&self) -> u64 {
        self.round.saturating_sub(self.earlier.len() as u64)
    }

    /// Counted updates of rounds before this one are forgotten: in the open round nobody asks about them.
    pub fn oldest_remembered(&self) -> u64 {
        oldest_remembered(self.round, self.min_separation)
    }
}

const fn oldest_remembered(round: u64, min_separation: u32) -> u64 {
    let separation = min_separation as u64;
    round.saturating_sub(if separation > REMEMBERED_ROUNDS {
        separation
    } else {
        REMEMBERED_ROUNDS
    })
}

impl Rounds {
    /// Round 1, which starts from `model`.
    pub fn first(rules: Rules, model: ContentHash) -> Self {
        let head = Head {
            round: 1,
            model,
            span: None,
            bytes_up: 0,
            paused: false,
            forgot: 0,
            excused: 0,
            earlier: Vec::new(),
            min_separation: rules.min_separation,
            shares: rules.shares,
            tree: None,
        };
        Self::resume(rules, &head, [], [])
    }

    /// Goes on where a stored state left off, with check-ins and their rounds.
    pub fn resume(
        rules: Rules,
        head: &Head,
        checked_in: impl IntoIterator<Item = (u64, ClientId)>,
        counted: impl IntoIterator<Item = Counted>,
    ) -> Self {
        let mut rounds = Self {
            rules,
            round: head.round,
            model: head.model,
            span: head.span,
            bytes_up: head.bytes_up,
            paused: head.paused,
            forgot: head.forgot,
            excused: head.excused,
            checked_in: BTreeSet::new(),
            turned_away: BTreeSet::new(),
            reported: BTreeSet::new(),
            counted: HashMap::new(),
            earlier: Vec::new(),
            earlier_check_ins: BTreeSet::new(),
            last_report: HashMap::new(),
        };
        rounds.catch_up(head, checked_in, counted);
        if rounds.span.is_none() && rounds.checked_in.len() >= MAX_CHECK_INS {
            let reported = &rounds.reported;
            rounds.checked_in.retain(|client| reported.contains(client)); // earlier relays left check-ins in the store that they had forgotten
        }
        rounds
    }

    /// Takes over what another relay did: its head, and the check-ins (with their rounds) and the counted updates that are not
    /// known yet.
    pub fn catch_up(
        &mut self,
        head: &Head,
        checked_in: impl IntoIterator<Item = (u64, ClientId)>,
        counted: impl IntoIterator<Item = Counted>,
    ) {
        let mut doubtful = BTreeSet::new();
        if head.round != self.round {
            self.leave_check_ins();
            self.reported.clear();
            self.turned_away.clear();
        } else if head.forgot != self.forgot {
            doubtful = std::mem::take(&mut self.checked_in);
        }
        self.round = head.round;
        self.forgot = head.forgot;
        self.excused = head.excused;
        self.model = head.model;
        self.span = head.span;
        self.bytes_up = head.bytes_up;
        self.paused = head.paused;
        let most = self.rules.max_staleness as usize;
        self.earlier = head.earlier.iter().take(most).copied().collect();
        for (round, client) in checked_in {
            if round == self.round {
                self.checked_in.insert(client);
            } else {
                self.earlier_check_ins.insert((round, client));
            }
        }
        for entry in counted {
            if entry.round == self.round {
                self.reported.insert(entry.client);
            }
            self.remember(entry);
        }
        // Whoever had not reported when the other one forgot check-ins, and is in again, is among the new ones.
        doubtful.retain(|client| self.reported.contains(client));
        self.checked_in.append(&mut doubtful);
        self.forget();
    }

    /// Forgets those that checked in and did not report: they have had their span.
    fn make_room(&mut self) {
        self.checked_in.retain(|client| self.reported.contains(client));
        self.forgot = self.forgot.saturating_add(1);
    }

    /// Another round is about to open: those that checked in to this one may report to it.
    fn leave_check_ins(&mut self) {
        let left = std::mem::take(&mut self.checked_in);
        if self.rules.max_staleness > 0 {
            self.earlier_check_ins
                .extend(left.into_iter().map(|client| (self.round, client)));
        }
    }

    fn remember(&mut self, entry: Counted) {
        self.counted.insert(entry.update, entry);
        if self.rules.max_staleness > 0 || self.rules.min_separation > 1 {
            let participant = self.participant(&entry.client);
            let last = self.last_report.entry(participant).or_default();
            *last = entry.round.max(*last);
        }
    }

    /// Lets go of what no update can be about any more.
    fn forget(&mut self) {
        let oldest = self.oldest_remembered();
        self.counted.retain(|_, entry| entry.round >= oldest);
        self.last_report.retain(|_, round| *round >= oldest);
        let first_base = self.round.saturating_sub(self.earlier.len() as u64);
        self.earlier_check_ins.retain(|(round, _)| *round >= first_base);
    }

    /// What [`Rounds::resume`] needs, beside the check-ins and the counted updates.
    pub fn head(&self) -> Head {
        Head {
            round: self.round,
            model: self.model,
            span: self.span,
            bytes_up: self.bytes_up,
            paused: self.paused,
            forgot: self.forgot,
            excused: self.excused,
            earlier: self.earlier.clone(),
            min_separation: self.rules.min_separation,
            shares: self.rules.shares,
            tree: None,
        }
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
    pub const fn span(&self) -> Option<Span> {
        self.span
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

    /// How many of the clients with ids from `least` to `greatest` have checked in and may still report, to the open round or to one
    /// before it, without the client `but`.
    pub fn under_way_of(&self, [least, greatest]: [[u8; 16]; 2], but: &ClientId) -> u32 {
        let (least, greatest) = (ClientId::from_bytes(least), ClientId::from_bytes(greatest));
        let now = self.checked_in.range(least..=greatest);
        let before = self.earlier.iter().zip(1..).flat_map(|(_, behind)| {
            let round = self.round.saturating_sub(behind);
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
        if self.phase() == RoundPhase::Finished {
            return Due::Nothing;
        }
        let policy = self.rules.policy;
        if self.received() >= policy.target_clients {
            return Due::Publish;
        }
        match self.span {
            Some(span) if span.deadline_ms <= now_ms => {}
            _ => return Due::Nothing,
        }
        if self.received() >= policy.min_clients {
            return Due::Publish;
        }
        if self.checked_in.len() >= MAX_CHECK_INS {
            self.make_room();
        }
        self.excused = self.checked_in().saturating_sub(self.received());
        self.turned_away.clear();
        if self.reported.is_empty() {
            self.span = None;
            return Due::Lapsed;
        }
        self.extend(now_ms);
        Due::Extended
    }

    /// Starts the span again from `now_ms`, as when a publication could not be made.
    pub fn extend(&mut self, now_ms: u64) {
        if let Some(span) = &mut self.span {
            span.deadline_ms = now_ms.saturating_add(self.rules.policy.deadline_ms);
        }
    }

    /// A client asks to take part. Asking again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] or [`Refusal::Full`].
    pub fn check_in(&mut self, ask: &CheckIn, now_ms: u64) -> Result<CheckInReply, Refusal> {
        self.check_manifest(ask.manifest)?;
        let round = self.round;
        if self.phase() == RoundPhase::Finished {
            return Ok(CheckInReply::Finished {
                round: round - 1,
                model: self.model,
            });
        }
        if self.reported.contains(&ask.client) {
            let left = self
                .span
                .map_or(0, |span| span.deadline_ms.saturating_sub(now_ms));
            return Ok(CheckInReply::Wait {
                round,
                retry_after_ms: left.clamp(SHORTEST_WAIT_MS, LONGEST_WAIT_MS),
            });
        }
        let is_in = self.checked_in.contains(&ask.client);
        if self.paused && !is_in || !self.may_be_counted(&ask.client) {
            return Ok(CheckInReply::Wait {
                round,
                retry_after_ms: LONGEST_WAIT_MS,
            });
        }
        if !is_in && self.checked_in.len() >= MAX_CHECK_INS {
            return Err(Refusal::Full { round });
        }
        if let Some(invited) = self.rules.invited
            && !is_in
            && self.checked_in().saturating_sub(self.excused) >= invited
        {
            let retry_after_ms = self.pace(ask.client, invited, now_ms);
            return Ok(CheckInReply::Wait {
                round,
                retry_after_ms,
            });
        }
        self.turned_away.remove(&ask.client);
        self.checked_in.insert(ask.client);
        let span = self.collect_from(now_ms);
        Ok(CheckInReply::Train {
            round,
            model: self.model,
            deadline_ms: span.deadline_ms.saturating_sub(now_ms),
        })
    }

    /// Whether as many rounds have closed since the last one that counts this participant as have to.
    fn may_be_counted(&self, client: &ClientId) -> bool {
        let separation = u64::from(self.rules.min_separation);
        let last = self.last_report.get(&self.participant(client));
        let last = last.filter(|_| separation > 1);
        last.is_none_or(|last| *last >= self.round || last.saturating_add(separation) <= self.round)
    }

    /// Whose rounds have to be apart: the client, or where identities take part, all clients of its identity, by its least name.
    fn participant(&self, client: &ClientId) -> ClientId {
        if self.rules.by_identity && self.rules.min_separation > 1 {
            ClientId::from_bytes(IdentityId::least_of(client.as_bytes()))
        } else {
            *client
        }
    }

    /// How long a client that was not invited is to wait: until the span has ended, and then a part, by its id, of the time in which
    /// as many rounds can invite all that wait. So about as many come to each round as it invites.
    fn pace(&mut self, client: ClientId, invited: u32, now_ms: u64) -> u64 {
        if self.turned_away.len() < MAX_CHECK_INS {
            self.turned_away.insert(client);
        }
        let left = self
            .span
            .map_or(0, |span| span.deadline_ms.saturating_sub(now_ms));
        let rounds = (self.turned_away.len() as u64).div_ceil(invited.max(1).into());
        let window = self.rules.policy.deadline_ms.saturating_mul(rounds);
        // Below the window, so it is a u64.
        let part = (u128::from(place(client, self.round)) * u128::from(window)) >> 64;
        left.saturating_add(part as u64)
            .clamp(SHORTEST_WAIT_MS, LONGEST_PACE_MS)
    }

    fn collect_from(&mut self, now_ms: u64) -> Span {
        let deadline_ms = now_ms.saturating_add(self.rules.policy.deadline_ms);
        *self.span.get_or_insert(Span {
            started_ms: now_ms,
            deadline_ms,
        })
    }

    /// Whether `manifest` is the one in force.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] where it is not.
    pub fn check_manifest(&self, manifest: ContentHash) -> Result<(), Refusal> {
        let in_force = self.rules.manifest;
        if manifest == in_force {
            Ok(())
        } else {
            Err(Refusal::Manifest { in_force })
        }
    }

    /// Whether an update is to be counted. Nothing changes.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies. An id that was counted before is looked at first, so that a client which sends
    /// the same bytes again learns that they are counted, even after the round closed.
    pub fn judge(&self, claim: &Claim) -> Result<Judgement, Refusal> {
        if let Some(known) = self.counted.get(&claim.update) {
            let round = known.round;
            return if (known.client, known.digest) == (claim.client, claim.digest) {
                Ok(Judgement::Duplicate { round })
            } else {
                Err(Refusal::Conflict { round })
            };
        }
        self.check_manifest(claim.manifest)?;
        let (asked, open, round) = (claim.round, self.round, self.round);
        if asked == 0 || asked > open || self.phase() == RoundPhase::Finished && asked == open {
            return Err(Refusal::NotOpen { asked, open });
        }
        if asked < self.oldest_remembered() {
            return Err(Refusal::Forgotten { asked, open });
        }
        let closed = Refusal::Closed { asked, open };
        let expected = match (open - asked) as usize {
            0 => self.model,
            behind => match self.earlier.get(behind - 1) {
                Some(model) if self.phase() != RoundPhase::Finished => *model,
                _ => return Err(closed),
            },
        };
        if claim.model != expected {
            let round = asked;
            return Err(Refusal::Model { round, expected });
        }
        if asked == open && !(self.checked_in.contains(&claim.client) && self.may_be_counted(&claim.client)) {
            return Err(Refusal::NotCheckedIn { round });
        }
        if asked < open && !self.earlier_check_ins.contains(&(asked, claim.client)) {
            return Err(closed);
        }
        let last = self.last_report.get(&self.participant(&claim.client));
        if self.reported.contains(&claim.client) || last.is_some_and(|&last| last >= asked) {
            return Err(Refusal::AlreadyReported { round });
        }
        Ok(Judgement::New)
    }

    /// The rounds that have closed since the one whose model a new update starts from.
    pub const fn staleness(&self, claim: &Claim) -> u32 {
        self.round.saturating_sub(claim.round) as u32 // at most `max_staleness`
    }

    /// Counts an update that [`Rounds::judge`] called new. The caller adds its coordinates to the sum.
    pub fn count(&mut self, claim: &Claim, now_ms: u64) -> Counted {
        let entry = Counted {
            update: claim.update,
            round: self.round,
            client: claim.client,
            digest: claim.digest,
        };
        self.collect_from(now_ms); // a report may come after its span lapsed
        self.reported.insert(claim.client);
        self.bytes_up += claim.bytes;
        self.remember(entry);
        entry
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
        self.model = model;
        self.span = None;
        self.forgot = 0;
        self.excused = 0;
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

    /// Counted updates of rounds before this one are forgotten.
    pub const fn oldest_remembered(&self) -> u64 {
        oldest_remembered(self.round, self.rules.min_separation)
    }
}

/// Where a client stands among those that wait for a round, evenly spread over all of `u64`: its id, which it chose at random, and
/// the round, mixed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014), so that nobody is the last one every time.
const fn place(client: ClientId, round: u64) -> u64 {
    let (low, high) = (client.as_bytes().first_chunk(), client.as_bytes().last_chunk());
    let id = match (low, high) {
        (Some(low), Some(high)) => u64::from_le_bytes(*low) ^ u64::from_le_bytes(*high),
        _ => 0,
    };
    let mut mixed = (id ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
