//! Where relays share a store: what this one adds up before its turn, and what the others have when a round closes.
//!
//! A relay adds the updates that wait to a copy of its lane's sum, which the store takes ([`Ahead`]) before the turn begins. In the turn
//! each of them is judged as ever. Where all are counted, the copy is the lane from then on; where another relay counted one of them
//! meanwhile, or the round has closed, the copy is dropped, and those that are counted are added to the lane itself. So what is added up
//! ahead never decides anything: it only spares the turn the adding and the writing.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use unsaid_protocol::{ClientId, UpdateId};

use super::{
    Live, TaskConfig,
    open::{OpenError, check_sum, damaged},
};
use crate::{
    actor::{Command, Submission},
    aggregate::PartialSum,
    gather::{self, Gathered},
    round::{Claim, Judgement, Refusal},
    store::{Ahead, Changes, Lane, LaneId, Turn},
};

/// An update that the open round counts.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) claim: Claim,
    pub(super) coordinates: Vec<i32>,
    pub(super) staleness: u32,
}

/// What this relay shares a round with.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Its lane; none where the store keeps one sum.
    pub(super) own: Option<LaneId>,
    /// What was added up for the present turn.
    ahead: Option<AddedUp>,
    /// Memory of the last sum that was added up.
    spare: Option<PartialSum>,
    /// The sum of all other lanes, and the updates in it; read in a turn that may close the round.
    others: Option<(PartialSum, u32)>,
}

/// The lane's sum with updates that wait.
#[derive(Debug)]
struct AddedUp {
    sum: PartialSum,
    /// By the whole claim: another update may come under the same id.
    updates: HashMap<UpdateId, Claim>,
    /// What was counted in the turn, in `updates` or not.
    counted: Vec<Came>,
}

impl Lanes {
    /// Where the turn's store keeps lanes, with one of its own.
    pub(super) fn begin(turn: &mut dyn Turn) -> Result<Self, OpenError> {
        Ok(Self {
            own: turn.lane()?,
            ..Self::default()
        })
    }
}

impl Live {
    /// Adds up what of a batch will be counted if nothing comes between. What may close the round is left to the
    /// turn: its sum is never written.
    pub(crate) fn add_up_ahead(&mut self, config: &TaskConfig, batch: &[Command]) {
        self.drop_ahead(); // of a turn that changed nothing
        let rule = &config.strategy.aggregation;
        let (Some(_), Gathered::Sum { sum, .. }) = (self.lanes.own, &self.updates) else {
            return;
        };
        let (mut updates, mut clients) = (HashMap::new(), BTreeSet::new());
        let is_new = |claim: &Claim| matches!(self.rounds.judge(claim), Ok(Judgement::New));
        let waiting: Vec<(&Claim, &Vec<i32>)> = batch
            .iter()
            .filter_map(|command| match command {
                Command::Update(Submission { claim, coordinates }, ..) => {
                    Some((claim, coordinates.as_ref().ok()?))
                }
                _ => None,
            })
            .filter(|(claim, _)| {
                let once = !updates.contains_key(&claim.update) && !clients.contains(&claim.client);
                let taken = once && is_new(claim);
                if taken {
                    updates.insert(claim.update, **claim);
                    clients.insert(claim.client);
                }
                taken
            })
            .collect();
        let received = self.rounds.received() as usize + waiting.len();
        if waiting.is_empty() || received >= config.manifest.rounds.target_clients as usize {
            return;
        }
        let mut with = self.lanes.spare.take().unwrap_or_else(|| PartialSum::zero(0));
        with.copy(sum);
        if config.central.is_none() && gather::sums_as_they_are(rule) {
            let coordinates: Vec<&Vec<i32>> = waiting.iter().map(|(_, coordinates)| *coordinates).collect();
            with.add_all(&coordinates);
        } else {
            for (claim, coordinates) in &waiting {
                let staleness = self.rounds.staleness(claim);
                match (&config.central, &self.private) {
                    (Some(central), Some(state)) => central.add(&mut with, coordinates, state),
                    _ => {
                        let grid_step = config.manifest.update.grid_step;
                        gather::add_to(&mut with, rule, coordinates, staleness, grid_step);
                    }
                }
            }
        }
        self.lanes.ahead = Some(AddedUp {
            sum: with,
            updates,
            counted: Vec::new(),
        });
    }

    /// What [`Self::add_up_ahead`] made, for the store.
    pub(crate) fn ahead(&self) -> Option<Ahead<'_>> {
        let (ahead, id, before) = (self.lanes.ahead.as_ref()?, self.lanes.own?, self.in_own_lane()?);
        Some(Ahead {
            round: self.rounds.round(),
            lane: Lane {
                id,
                updates: before + ahead.updates.len() as u32, // fewer than the target
            },
            steps: ahead.sum.steps(),
        })
    }

    /// Updates in this relay's sum; none where each is kept.
    fn in_own_lane(&self) -> Option<u32> {
        match &self.updates {
            Gathered::Sum { count, .. } => Some(*count),
            Gathered::Updates(_) => None,
        }
    }

    /// Forgets what was added up ahead: it was not written, or its round is no longer the open one.
    pub(crate) fn drop_ahead(&mut self) {
        if let Some(ahead) = self.lanes.ahead.take() {
            self.lanes.spare = Some(ahead.sum);
        }
    }

    /// Counts an update, and gathers it: at once, or with what was added up ahead.
    pub(super) fn add(&mut self, config: &TaskConfig, came: Came, changes: &mut Changes) {
        if let Some(ahead) = &mut self.lanes.ahead {
            ahead.counted.push(came);
        } else {
            self.gather(config, came, changes);
        }
    }

    /// Before the round's sum is used or written: what was added up ahead becomes the lane, where all of it was counted.
    pub(super) fn settle(&mut self, config: &TaskConfig, changes: &mut Changes) {
        let Some(AddedUp {
            sum: mut with,
            updates,
            counted,
        }) = self.lanes.ahead.take()
        else {
            return;
        };
        let is_in = |came: &Came| updates.get(&came.claim.update) == Some(&came.claim);
        let all = counted.iter().filter(|came| is_in(came)).count() == updates.len();
        if let (true, Gathered::Sum { sum, count }) = (all, &mut self.updates) {
            std::mem::swap(sum, &mut with);
            *count += updates.len() as u32; // fewer than the target
            changes.stands = true;
        } else {
            changes.sum = Some(Vec::new()); // in place of what was written
        }
        self.lanes.spare = Some(with);
        for came in counted {
            if all && is_in(&came) {
                config.buffers.give(came.coordinates);
            } else {
                self.gather(config, came, changes);
            }
        }
    }

    /// Reads in a turn that may close the round, with so many updates in its batch, what all other relays have added up in it.
    pub(crate) fn hear(
        &mut self,
        config: &TaskConfig,
        turn: &mut dyn Turn,
        batch: &[Command],
        now_ms: u64,
    ) -> Result<(), OpenError> {
        self.lanes.others = None;
        let (Some(own), Some(count)) = (self.lanes.own, self.in_own_lane()) else {
            return Ok(());
        };
        let received = self.rounds.received();
        let theirs = received.saturating_sub(count);
        let asks = |command: &Command| match command {
            Command::CheckIn(ask, ..) => Some(ask.client),
            _ => None,
        };
        let asking: BTreeSet<ClientId> = batch.iter().filter_map(asks).collect();
        let may_count = |command: &&Command| match command {
            Command::Update(Submission { claim, .. }, ..) => match self.rounds.judge(claim) {
                Ok(judgement) => judgement == Judgement::New,
                Err(Refusal::NotCheckedIn { .. }) => asking.contains(&claim.client),
                Err(_) => false,
            },
            _ => false,
        };
        let most = received as usize + batch.iter().filter(may_count).count();
        let policy = &config.manifest.rounds;
        let is_full = most >= policy.target_clients as usize && !self.rounds.is_put_off();
        let is_due = self.rounds.span().is_some_and(|span| span.deadline_ms <= now_ms)
            && most >= policy.min_clients as usize;
        if theirs == 0 || !(is_full || is_due) {
            return Ok(());
        }
        let (mut total, mut updates) = (PartialSum::zero(config.sum_width()), 0_u32);
        let mut wrong = None;
        turn.other_lanes(own, &mut |lane, steps| {
            match check_lane(config, lane, &steps) {
                Ok(()) => total.merge(&PartialSum::from_steps(steps)),
                Err(error) => wrong = Some(error),
            }
            updates = updates.saturating_add(lane.updates);
        })?;
        if updates != theirs {
            let error =
                format!("the other sums of the open round are of {updates} updates, and it counts {theirs}");
            wrong = wrong.or_else(|| Some(damaged(error)));
        }
        let is_operator = |command: &Command| matches!(command, Command::Pause(..) | Command::RollBack(..));
        match wrong {
            None => self.lanes.others = Some((total, theirs)),
            // A rollback gives the round up, which is what puts it right: the operator is not refused. No model is made of such sums.
            Some(error) if batch.iter().any(is_operator) => {
                tracing::error!(task = %config.manifest.task, %error, "the open round cannot close");
            }
            Some(error) => return Err(error),
        }
        Ok(())
    }

    /// All that the open round counts.
    pub(super) fn total(&self) -> Result<Cow<'_, Gathered>, String> {
        let Gathered::Sum { sum, count } = &self.updates else {
            return Ok(Cow::Borrowed(&self.updates));
        };
        let received = self.rounds.received();
        if *count == received {
            return Ok(Cow::Borrowed(&self.updates));
        }
        match &self.lanes.others {
            Some((others, theirs)) if count + theirs == received => {
                let mut total = sum.clone();
                total.merge(others);
                Ok(Cow::Owned(Gathered::Sum {
                    sum: total,
                    count: received,
                }))
            }
            _ => Err(format!(
                "of {received} updates that the round counts, {count} are in this relay's sum, and the others' were not read"
            )),
        }
    }

    /// The round has closed: nothing of it is gathered any more, by nobody.
    pub(super) fn leave_round(&mut self) {
        self.drop_ahead();
        self.lanes.others = None;
        self.updates.clear();
        self.came.clear();
    }

    /// This relay's lane, for the commit.
    pub(super) fn lane(&self) -> Option<Lane> {
        let (id, updates) = (self.lanes.own?, self.in_own_lane()?);
        Some(Lane { id, updates })
    }
}

fn check_lane(config: &TaskConfig, lane: Lane, steps: &[i64]) -> Result<(), OpenError> {
    if steps.len() != config.sum_width() {
        return Err(damaged(format!("a sum has {} entries", steps.len())));
    }
    check_sum(&config.strategy.aggregation, steps, lane.updates)
}
