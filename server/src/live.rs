//! A task in memory: its rounds, its sum and its newest parameters. `live/open.rs` reads it from the store, `live/publish.rs` closes its rounds,
//! `live/lanes.rs` shares them with other relays.

use rand_core::Rng;
use unsaid_privacy::Cost;
use unsaid_protocol::{CheckIn, CheckInReply, IdentityId, UpdateReply};

use crate::{
    actor::{Answer, Command, Failure, Submission},
    aggregate::PartialSum,
    central,
    gather::{self, Gathered},
    identity::Standings,
    round::{Claim, DrawKey, Due, Head, Judgement, Refusal, Rounds},
    store::{Changes, StoreError, Turn},
    strategy::Memory,
};

mod config;
mod lanes;
mod open;
mod publish;

use self::lanes::{Came, Lanes};
pub use self::{config::TaskConfig, open::OpenError};

/// Updates that are added to the sum together: each has to be read, the sum only once for four of them.
const TOGETHER: usize = 8;

/// A task in memory.
pub struct Live {
    /// The round machine.
    pub rounds: Rounds,
    /// Where other relays share the store, what this one has gathered of a sum.
    updates: Gathered,
    /// Updates that are counted and not yet in the sum: at most [`TOGETHER`].
    came: Vec<Vec<i32>>,
    lanes: Lanes,
    parameters: Vec<f32>,
    /// The shared control variate, `[d]`; empty where the task has none.
    control: Vec<f32>,
    memory: Memory,
    /// What the relay's own noise cost so far, and the clip norm; where it adds noise.
    private: Option<central::State>,
    /// What all published rounds cost who took part in each, by noise that clients add.
    spent: Cost,
    /// How the identities of the present turn stand.
    standings: Standings,
    /// The most that an identity's updates cost, as ε, of those that were counted since the task was read.
    dearest: Option<f64>,
}

impl Live {
    /// What [`Live::open`] needs of this, beside what is kept entry by entry.
    fn head(&self) -> Head {
        Head {
            tree: self.private.as_ref().and_then(|private| private.tree.clone()),
            spent: Some((&self.spent).into()),
            ..self.rounds.head()
        }
    }

    /// The newest parameters, `[d]`.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The shared control variate, `[d]`; empty where the task has none.
    pub fn control(&self) -> &[f32] {
        &self.control
    }

    /// The most that an identity's updates cost, as ε, of those that were counted since the task was read; none before the first.
    pub const fn dearest(&self) -> Option<f64> {
        self.dearest
    }

    /// Lets time pass.
    pub fn tick(&mut self, config: &TaskConfig, now_ms: u64, changes: &mut Changes) {
        let forgot = self.rounds.forgot();
        let due = self.rounds.tick(now_ms);
        if self.rounds.forgot() != forgot {
            changes.forgotten = Some(self.rounds.round());
            let open = self.rounds.round();
            changes
                .check_ins
                .retain(|(round, client)| *round != open || self.rounds.has_reported(client));
        }
        match due {
            Due::Nothing => {}
            Due::Publish => {
                let open = self.rounds.round();
                self.publish(config, now_ms, changes);
                if self.rounds.round() == open {
                    changes.head = Some(self.head()); // put off, for whoever reads the store too
                }
            }
            Due::Extended | Due::Lapsed | Due::Moved => changes.head = Some(self.head()),
        }
    }

    /// Reads in its turn how those stand who ask for something in it, and drops figures of rounds that the store does not have, or has with
    /// another model: it was put back to an older state.
    pub(crate) fn meet(&mut self, turn: &mut dyn Turn, batch: &mut Vec<Command>) -> Result<(), StoreError> {
        let mut lost = Vec::new();
        for command in batch.iter() {
            if let Command::Evaluated(figures) = command {
                let round = turn.round(figures.round)?;
                lost.push(round.is_none_or(|round| round.model != figures.model));
            }
        }
        let mut lost = lost.into_iter();
        batch.retain(|command| match command {
            Command::Evaluated(figures) if lost.next() == Some(true) => {
                tracing::warn!(
                    round = figures.round,
                    "figures of a round that is no more are dropped"
                );
                false
            }
            _ => true,
        });
        let ids = batch.iter().filter_map(Command::identity);
        let ids: std::collections::BTreeSet<_> = ids.collect();
        self.standings = Standings::read(turn, ids.into_iter().collect())?;
        Ok(())
    }

    pub(crate) fn apply(
        &mut self,
        config: &TaskConfig,
        command: Command,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Answer {
        match command {
            Command::CheckIn(ask, who, reply) => {
                let known = self.knows(config, who.as_ref(), &ask, now_ms);
                let answer = known.and_then(|()| {
                    self.prepare_draw(config, changes);
                    self.check_in(&ask, now_ms, changes)
                });
                Answer::CheckIn(reply, answer.map_err(Failure::Refused))
            }
            Command::Update(submission, turn, reply) => {
                let answer = self.update(config, submission, now_ms, changes);
                Answer::Update(reply, answer.map_err(Failure::Refused), turn)
            }
            Command::Pause(paused, reply) => {
                self.rounds.pause(paused);
                changes.head = Some(self.head());
                Answer::Paused(reply, Ok(()))
            }
            Command::RollBack(older, reply) => {
                let answer = self.roll_back(config, older, now_ms, changes);
                Answer::RolledBack(reply, answer.map_err(Failure::Refused))
            }
            Command::Evaluated(metrics) => {
                changes.rounds.push(metrics);
                Answer::Nothing
            }
            Command::Look(_) | Command::Stop => Answer::Nothing,
        }
    }

    /// Whether whoever signed a check-in may take part.
    fn knows(
        &self,
        config: &TaskConfig,
        who: Option<&IdentityId>,
        ask: &CheckIn,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let Some(rules) = &config.identity else {
            return Ok(());
        };
        self.rounds.check_manifest(ask.manifest)?; // whoever knows older terms is told that first
        let who = who.ok_or(Refusal::IdentityRequired)?;
        self.standings
            .check_in(rules, &self.rounds, who, &ask.client, now_ms)
    }

    /// Where a span is about to draw whom it lets in, draws its key. Without randomness nobody is let in.
    fn prepare_draw(&mut self, config: &TaskConfig, changes: &mut Changes) {
        if !self.rounds.wants_key() {
            return;
        }
        match config.randomness.of(self.rounds.round()) {
            Ok(mut generator) => {
                let mut key = [0; 32];
                generator.fill_bytes(&mut key);
                self.rounds.draw_by(DrawKey::from_bytes(key));
                changes.head = Some(self.head());
            }
            Err(error) => {
                tracing::error!(%error, "there is no randomness to draw clients by; none is let in")
            }
        }
    }

    /// A client asks to take part.
    ///
    /// # Errors
    /// As [`Rounds::check_in`].
    pub fn check_in(
        &mut self,
        ask: &CheckIn,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<CheckInReply, Refusal> {
        let before = (self.rounds.checked_in(), self.rounds.span());
        let answer = self.rounds.check_in(ask, now_ms);
        if before.0 != self.rounds.checked_in() {
            changes.check_ins.push((self.rounds.round(), ask.client));
        }
        if before.1 != self.rounds.span() {
            changes.head = Some(self.head());
        }
        answer
    }

    /// A client reports. Where that completes the round, the next model is made.
    ///
    /// # Errors
    /// As [`Rounds::judge`], and what [`TaskConfig::examine`] found.
    pub fn update(
        &mut self,
        config: &TaskConfig,
        Submission { claim, coordinates }: Submission,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<UpdateReply, Refusal> {
        let update = claim.update;
        let judged = self.rounds.judge(&claim);
        match judged {
            Ok(Judgement::Duplicate { round }) => {
                return Ok(UpdateReply {
                    update,
                    round,
                    duplicate: true,
                });
            }
            Err(conflict @ Refusal::Conflict { .. }) => return Err(conflict),
            _ => {}
        }
        match (&config.identity, &claim.identity) {
            (None, _) => judged.map(drop)?,
            // Whoever knows only other terms is told that first.
            (Some(_), None) => {
                return Err(match judged {
                    Err(other_terms @ Refusal::Manifest { .. }) => other_terms,
                    _ => Refusal::IdentityRequired,
                });
            }
            (Some(rules), Some(who)) => {
                self.standings.update(rules, &self.rounds, who, now_ms)?;
                judged.map(drop)?;
            }
        }
        let coordinates = coordinates?;
        let staleness = self.rounds.staleness(&claim);
        let came = Came {
            claim,
            coordinates,
            staleness,
        };
        self.add(config, came, changes);
        let entry = self.rounds.count(&claim, now_ms);
        changes.counted.push(entry);
        if let (Some(rules), Some(who)) = (&config.identity, claim.identity) {
            let account = self.standings.count(rules, &who, now_ms);
            let epsilon = rules.epsilon(account.cost);
            self.dearest = Some(self.dearest.map_or(epsilon, |dearest| dearest.max(epsilon)));
            changes.accounts.retain(|(other, _)| *other != who);
            changes.accounts.push((who, account));
        }
        self.tick(config, now_ms, changes);
        Ok(UpdateReply {
            update,
            round: entry.round,
            duplicate: false,
        })
    }

    /// Gathers an update of the open round.
    fn gather(&mut self, config: &TaskConfig, came: Came, changes: &mut Changes) {
        let Came {
            claim: Claim { update, .. },
            coordinates,
            staleness,
        } = came;
        let rule = &config.strategy.aggregation;
        if rule.needs_updates() {
            changes.updates.push((update, coordinates.clone()));
        } else {
            changes.sum = Some(Vec::new()); // written below, once for the whole batch
        }
        match (&config.central, &self.private, &mut self.updates) {
            (None, _, _) if gather::sums_as_they_are(rule) => {
                self.came.push(coordinates);
                if self.came.len() == TOGETHER {
                    self.add_up(config);
                }
            }
            (Some(central), Some(state), Gathered::Sum { sum, count }) => {
                central.add(sum, &coordinates, state);
                *count += 1;
            }
            (_, _, updates) => {
                let grid_step = config.manifest.update.grid_step;
                updates.add(rule, update, coordinates, staleness, grid_step);
            }
        }
    }

    /// Adds what came to the sum.
    fn add_up(&mut self, config: &TaskConfig) {
        self.updates.add_all(&self.came);
        self.came
            .drain(..)
            .for_each(|coordinates| config.buffers.give(coordinates));
    }

    /// Puts what is written as a whole into `changes`: the head, and the sum where it changed, which is lent until
    /// [`Self::take_back`].
    pub fn complete(&mut self, config: &TaskConfig, changes: &mut Changes) {
        self.settle(config, changes);
        self.add_up(config);
        changes.head = Some(self.head());
        changes.keep_models = config.keep_models;
        changes.lane = self.lane();
        if changes.sum.is_some() {
            changes.sum = match &mut self.updates {
                Gathered::Sum { sum, count } if *count > 0 => Some(sum.lend()),
                _ => None,
            };
        }
    }

    /// Takes back what [`Self::complete`] lent, once it is written.
    pub fn take_back(&mut self, changes: &mut Changes) {
        if let (Gathered::Sum { sum, .. }, Some(steps)) = (&mut self.updates, changes.sum.take()) {
            *sum = PartialSum::from_steps(steps);
        }
    }
}
