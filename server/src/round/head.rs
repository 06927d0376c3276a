//! What is kept of a task's rounds, and how a relay goes on from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use unsaid_protocol::{ClientId, ContentHash};

use super::{Counted, DrawKey, MAX_CHECK_INS, REMEMBERED_ROUNDS, Rounds, Rules, Span};
use crate::{central::Tree, lineage::KeptCost};

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
    /// By what the span draws who is let in, where it does, once somebody has asked: relays that share it draw alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw_key: Option<DrawKey>,
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
    /// What all published rounds cost who took part in each, by noise that clients add; none where a relay published them that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<KeptCost>,
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
            draw_key: None,
            earlier: Vec::new(),
            min_separation: rules.min_separation,
            shares: rules.shares,
            tree: None,
            spent: None,
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
            draw_key: head.draw_key.clone(),
            bytes_up: head.bytes_up,
            paused: head.paused,
            forgot: head.forgot,
            excused: head.excused,
            checked_in: BTreeSet::new(),
            awaited_until_ms: BTreeMap::new(),
            overdue: BTreeSet::new(),
            unmade: false,
            turned_away: BTreeSet::new(),
            reported: BTreeSet::new(),
            counted: HashMap::new(),
            earlier: Vec::new(),
            earlier_check_ins: BTreeSet::new(),
            last_report: HashMap::new(),
        };
        rounds.catch_up(head, checked_in, counted);
        if rounds.span.is_none() {
            if rounds.checked_in.len() >= MAX_CHECK_INS {
                let reported = &rounds.reported;
                rounds.checked_in.retain(|client| reported.contains(client)); // earlier relays left check-ins in the store that they had forgotten
            }
            rounds.miss();
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
            self.overdue.clear();
            self.unmade = false;
        } else if self
            .span
            .is_some_and(|span| head.span.is_none_or(|new| new.deadline_ms > span.deadline_ms))
        {
            self.miss(); // those that come with the head may have come after the other's span ended
        }
        if head.round == self.round && head.forgot != self.forgot {
            doubtful = std::mem::take(&mut self.checked_in);
        }
        self.round = head.round;
        self.forgot = head.forgot;
        self.excused = head.excused;
        self.model = head.model;
        self.span = head.span;
        self.draw_key.clone_from(&head.draw_key);
        self.bytes_up = head.bytes_up;
        self.paused = head.paused;
        let most = self.rules.max_staleness as usize;
        self.earlier = head.earlier.iter().take(most).copied().collect();
        for (round, client) in checked_in {
            if round == self.round {
                self.checked_in.insert(client);
                self.overdue.remove(&client);
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
            draw_key: self.draw_key.clone(),
            earlier: self.earlier.clone(),
            min_separation: self.rules.min_separation,
            shares: self.rules.shares,
            tree: None,
            spent: None,
        }
    }

    /// Another round is about to open: those that checked in to this one may report to it.
    pub(super) fn leave_check_ins(&mut self) {
        let left = std::mem::take(&mut self.checked_in);
        if self.rules.max_staleness > 0 {
            self.earlier_check_ins
                .extend(left.into_iter().map(|client| (self.round, client)));
        }
    }

    pub(super) fn remember(&mut self, entry: Counted) {
        self.counted.insert(entry.update, entry);
        if self.rules.max_staleness > 0 || self.rules.min_separation > 1 {
            let participant = self.participant(&entry.client);
            let last = self.last_report.entry(participant).or_default();
            *last = entry.round.max(*last);
        }
    }

    /// Lets go of what no update can be about any more.
    pub(super) fn forget(&mut self) {
        let oldest = self.oldest_remembered();
        self.counted.retain(|_, entry| entry.round >= oldest);
        self.last_report.retain(|_, round| *round >= oldest);
        let first_base = self.round.saturating_sub(self.earlier.len() as u64);
        self.earlier_check_ins.retain(|(round, _)| *round >= first_base);
    }

    /// Counted updates of rounds before this one are forgotten.
    pub const fn oldest_remembered(&self) -> u64 {
        oldest_remembered(self.round, self.rules.min_separation)
    }
}
