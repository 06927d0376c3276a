//! A task in memory: its rounds, its sum and its newest parameters, and how they are read from the store.

use std::sync::Arc;

use unsaid_engine::Model;
use unsaid_protocol::{
    CentralPrivacy, CheckIn, CheckInReply, ContentHash, DecodeError, Manifest, Privacy, RoundMetrics,
    UpdateFrame, UpdateReply,
};

use crate::{
    actor::{Answer, Command, Failure, OlderModel, RolledBack, Submission},
    aggregate::PartialSum,
    central::{self, Central},
    gather::{self, Gathered},
    randomness::Randomness,
    round::{Claim, Due, Head, Judgement, Refusal, Rounds, Rules},
    store::{Changes, Saved, StoreError, Turn},
    strategy::{Memory, Strategy},
    task_file::Task,
};

/// What does not change while a task runs.
#[derive(Debug)]
pub struct TaskConfig {
    /// What clients agree to.
    pub manifest: Manifest,
    /// The manifest's bytes as they are served.
    pub manifest_json: Vec<u8>,
    /// The manifest's name.
    pub manifest_hash: ContentHash,
    /// The model.
    pub model: Arc<Model>,
    /// Seed of the first model.
    pub seed: u64,
    /// The last round, if the task has one.
    pub round_limit: Option<u64>,
    /// Where clients add no noise to updates: the largest squared norm of an update, in grid steps².
    pub norm_bound: Option<u64>,
    /// What noise the relay adds, where it does.
    pub central: Option<Central>,
    /// Where that noise comes from.
    pub randomness: Randomness,
    /// How the next model is made.
    pub strategy: Strategy,
}

impl TaskConfig {
    /// The part of a task that the rounds need.
    pub fn new(task: Task) -> Self {
        let manifest_json = task.manifest.to_json();
        // With noise on the gradients alone an update is clipped and rounded last, as without any.
        let is_bounded = !matches!(task.manifest.privacy, Privacy::Local { .. });
        Self {
            manifest_hash: ContentHash::of(&manifest_json),
            manifest_json,
            norm_bound: is_bounded.then(|| task.encoding.bound_squared()),
            central: task.central,
            randomness: Randomness::default(),
            manifest: task.manifest,
            model: Arc::new(task.model),
            seed: task.seed,
            round_limit: task.round_limit,
            strategy: task.strategy,
        }
    }

    /// Coordinates of an update: one for each parameter, and the client's weight where clients weigh differently.
    pub fn coordinates(&self) -> usize {
        gather::width(&self.strategy.aggregation, self.manifest.parameters as usize)
    }

    /// Entries of a round's sum: those of an update, and what the relay counts beside them.
    fn sum_width(&self) -> usize {
        let rule = &self.strategy.aggregation;
        let summed = gather::sum_width(rule, self.manifest.parameters as usize);
        summed + self.central.as_ref().map_or(0, Central::extra)
    }

    fn nothing_gathered(&self) -> Gathered {
        match Gathered::none(&self.strategy.aggregation, self.manifest.parameters as usize) {
            Gathered::Sum { count, .. } => {
                let sum = PartialSum::zero(self.sum_width());
                Gathered::Sum { sum, count }
            }
            kept => kept,
        }
    }

    /// All that can be said of an update's bytes without the task's state. Coordinates that do not fit are only said after the
    /// state was asked: a client that repeats an accepted update, or comes late, should learn that first.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no frame.
    pub fn examine(&self, bytes: &[u8]) -> Result<Submission, DecodeError> {
        let frame = UpdateFrame::decode(bytes)?;
        let claim = Claim::of(&frame, bytes);
        let coordinates = self.fit(frame.coordinates);
        Ok(Submission { claim, coordinates })
    }

    fn fit(&self, coordinates: Vec<i32>) -> Result<Vec<i32>, Refusal> {
        let (found, expected) = (coordinates.len(), self.coordinates());
        if found != expected {
            return Err(Refusal::Coordinates { found, expected });
        }
        let (change, weight) = coordinates.split_at(self.manifest.parameters as usize);
        if let (Some(&found), Some(most)) = (weight.first(), self.strategy.aggregation.max_weight())
            && !u32::try_from(found).is_ok_and(|weight| (1..=most).contains(&weight))
        {
            return Err(Refusal::Weight { found, most });
        }
        if let Some(bound) = self.norm_bound {
            let square = |&coordinate: &i32| u128::from(coordinate.unsigned_abs()).pow(2);
            let found = change.iter().map(square).sum::<u128>();
            if found > u128::from(bound) {
                return Err(Refusal::Norm { found, bound });
            }
        }
        Ok(coordinates)
    }

    /// Whether the task is still under this relay's manifest.
    fn check_manifest(&self, in_force: &str) -> Result<(), OpenError> {
        if in_force.as_bytes() == self.manifest_json {
            Ok(())
        } else {
            Err(OpenError::OtherManifest(ContentHash::of(in_force.as_bytes())))
        }
    }

    /// Whether a store that takes values of at most `most` bytes takes all that the task will have.
    fn check_sizes(&self, most: Option<u64>) -> Result<(), OpenError> {
        const MODEL_HEADER: u64 = 1 << 20; // far more than the names and shapes of the largest model take
        let Some(most) = most else { return Ok(()) };
        let parameters = self.manifest.parameters as usize;
        let rule = &self.strategy.aggregation;
        let (sum, update) = if rule.needs_updates() {
            (0, self.coordinates())
        } else {
            (gather::sum_width(rule, parameters), 0)
        };
        for (what, bytes) in [
            ("the sum of a round", 8 * sum as u64),
            ("an update", 4 * update as u64),
            ("a model", 4 * parameters as u64 + MODEL_HEADER),
            (
                "what the strategy remembers",
                4 * self.strategy.fresh(parameters).values.len() as u64,
            ),
        ] {
            if bytes > most {
                return Err(OpenError::TooLarge { what, bytes, most });
            }
        }
        Ok(())
    }

    /// How far apart the rounds that count one client have to be.
    const fn min_separation(&self) -> u32 {
        match &self.manifest.privacy {
            Privacy::Central(CentralPrivacy { tree: Some(tree), .. }) => tree.min_separation,
            _ => 0,
        }
    }

    const fn rules(&self) -> Rules {
        Rules {
            policy: self.manifest.rounds,
            limit: self.round_limit,
            manifest: self.manifest_hash,
            max_staleness: self.strategy.aggregation.max_staleness(),
            min_separation: self.min_separation(),
        }
    }
}

/// Why a task cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has the task with another model.
    #[error(
        "the store has this task with another model: give the changed task another id, or use another store"
    )]
    OtherModel,
    /// The grid changed while the open round held updates on the old one.
    #[error(
        "the open round holds {received} updates on a grid of {old}, and the task file now says {new}: \
         let the round close under the old task file first"
    )]
    OtherGrid {
        /// Updates that the round holds.
        received: u32,
        /// Their grid step.
        old: f64,
        /// The new one.
        new: f64,
    },
    /// The rule changed while the open round held updates that were gathered for the old one.
    #[error(
        "the open round holds {received} updates that were gathered for another aggregation rule: \
         let the round close under the old task file first"
    )]
    OtherRule {
        /// Updates that the round holds.
        received: u32,
    },
    /// The store takes no value as large as one of the task's.
    #[error(
        "{what} of this task takes {bytes} bytes, and the store takes {most} at most: use a file, or a smaller model"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
        /// The most.
        most: u64,
    },
    /// Another relay that shares the store runs the task under another manifest.
    #[error(
        "another relay has brought this task under the manifest {0}: start this one again with the same task file"
    )]
    OtherManifest(ContentHash),
    /// The bound of an update or the noise changed while the open round held updates under the old terms.
    #[error(
        "the open round holds {received} updates that were promised other bounds or other noise: \
         let the round close under the old task file first"
    )]
    OtherPrivacy {
        /// Updates that the round holds.
        received: u32,
    },
    /// What the store holds does not belong together.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// A task in memory.
pub struct Live {
    /// The round machine.
    pub rounds: Rounds,
    updates: Gathered,
    parameters: Vec<f32>,
    memory: Memory,
    /// What the relay's own noise cost so far, and the clip norm; where it adds noise.
    private: Option<central::State>,
}

impl Live {
    /// Reads a task in its turn, or begins it. What is to be stored of that is put into `changes`.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(
        config: &TaskConfig,
        turn: &mut dyn Turn,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<Self, OpenError> {
        config.check_sizes(turn.most_bytes())?;
        match turn.load()? {
            Some(saved) => Self::resume(config, turn, &saved, changes),
            None => {
                let (live, first) = Self::first(config, now_ms)?;
                *changes = first;
                Ok(live)
            }
        }
    }

    /// Reads a task again that this relay has opened before.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn reopen(config: &TaskConfig, turn: &mut dyn Turn) -> Result<Self, OpenError> {
        if let Some(manifest) = turn.manifest()? {
            config.check_manifest(&manifest)?; // before all that would be read for nothing
        }
        let saved = turn.load()?.ok_or_else(|| damaged("the task is gone"))?;
        config.check_manifest(&saved.manifest)?;
        Self::resume(config, turn, &saved, &mut Changes::default())
    }

    /// Takes over what another relay did, as its store tells it.
    ///
    /// # Errors
    /// [`OpenError`]: then this is neither what it was nor what it should be.
    pub fn catch_up(
        &mut self,
        config: &TaskConfig,
        turn: &mut dyn Turn,
        saved: &Saved,
    ) -> Result<(), OpenError> {
        config.check_manifest(&saved.manifest)?;
        let opened = saved.head.round != self.rounds.round();
        let (check_ins, counted) = (saved.check_ins.iter(), saved.counted.iter());
        self.rounds
            .catch_up(&saved.head, check_ins.copied(), counted.copied());
        if opened {
            self.parameters = parameters(config, turn, &self.rounds)?;
            self.memory = config
                .strategy
                .recall(saved.memory.as_ref(), self.parameters.len());
            self.updates.clear();
            self.private = private(config, turn, saved.head.tree)?;
        }
        gather_again(config, &self.rounds, saved, &mut self.updates)?;
        Ok(())
    }

    /// A task before its first round, and what is to be stored of it.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] where the model cannot be written.
    pub fn first(config: &TaskConfig, now_ms: u64) -> Result<(Self, Changes), OpenError> {
        let parameters = config.model.initial_parameters(config.seed);
        let bytes = config.model.to_safetensors(&parameters).map_err(damaged)?;
        let model = ContentHash::of(&bytes);
        let rounds = Rounds::first(config.rules(), model);
        let metrics = RoundMetrics {
            round: 0,
            model,
            clients: 0,
            checked_in: 0,
            bytes_up: 0,
            model_bytes: bytes.len() as u64,
            duration_ms: 0,
            published_at_ms: now_ms,
            accuracy: None,
            loss: None,
            rolled_back_to: None,
            privacy: None,
        };
        let changes = Changes {
            head: Some(rounds.head()),
            manifest: Some(String::from_utf8_lossy(&config.manifest_json).into_owned()),
            models: vec![(model, bytes)],
            rounds: vec![metrics],
            ..Changes::default()
        };
        let live = Self {
            rounds,
            updates: config.nothing_gathered(),
            memory: config.strategy.fresh(parameters.len()),
            parameters,
            private: config.central.as_ref().map(Central::first),
        };
        Ok((live, changes))
    }

    fn resume(
        config: &TaskConfig,
        turn: &mut dyn Turn,
        saved: &Saved,
        changes: &mut Changes,
    ) -> Result<Self, OpenError> {
        let task = &config.manifest.task;
        let mut tree = saved.head.tree;
        let rounds = Rounds::resume(
            config.rules(),
            &saved.head,
            saved.check_ins.iter().copied(),
            saved.counted.iter().copied(),
        );
        if saved.manifest.as_bytes() != config.manifest_json {
            let old = Manifest::from_json(saved.manifest.as_bytes()).map_err(damaged)?;
            if old.model != config.manifest.model {
                return Err(OpenError::OtherModel);
            }
            let received = rounds.received();
            let now = &config.manifest;
            let promised = |it: &Manifest| {
                let central = matches!(it.privacy, Privacy::Central(_));
                let terms = (it.privacy, it.update.clip_l2, it.rounds.target_clients);
                central.then_some(terms)
            };
            if received > 0 && promised(&old) != promised(now) {
                return Err(OpenError::OtherPrivacy { received });
            }
            let strategy = old.strategy;
            let (old, new) = (old.update.grid_step, now.update.grid_step);
            if received > 0 && old != new {
                return Err(OpenError::OtherGrid { received, old, new });
            }
            let old: Strategy = match strategy {
                Some(strategy) => serde_json::from_value(strategy).map_err(damaged)?,
                None => Strategy::default(),
            };
            if received > 0 && old.aggregation != config.strategy.aggregation {
                return Err(OpenError::OtherRule { received });
            }
            changes.manifest = Some(String::from_utf8_lossy(&config.manifest_json).into_owned());
            // In the same transaction: a tree ends with its terms.
            changes.head = Some(rounds.head());
            tree = None;
            tracing::info!(%task, manifest = %config.manifest_hash, "the task goes on under another manifest");
        }
        let parameters = parameters(config, turn, &rounds)?;
        let mut updates = config.nothing_gathered();
        gather_again(config, &rounds, saved, &mut updates)?;
        Ok(Self {
            private: private(config, turn, tree)?,
            updates,
            memory: config.strategy.recall(saved.memory.as_ref(), parameters.len()),
            rounds,
            parameters,
        })
    }

    /// What [`Live::open`] needs of this, beside what is kept entry by entry.
    fn head(&self) -> Head {
        Head {
            tree: self.private.and_then(|private| private.tree),
            ..self.rounds.head()
        }
    }

    /// The newest parameters, `[d]`.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
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
            Due::Publish => self.publish(config, now_ms, changes),
            Due::Extended | Due::Lapsed => changes.head = Some(self.head()),
        }
    }

    pub(crate) fn apply(
        &mut self,
        config: &TaskConfig,
        command: Command,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Answer {
        match command {
            Command::CheckIn(ask, reply) => {
                let answer = self.check_in(&ask, now_ms, changes);
                Answer::CheckIn(reply, answer.map_err(Failure::Refused))
            }
            Command::Update(submission, reply) => {
                let answer = self.update(config, submission, now_ms, changes);
                Answer::Update(reply, answer.map_err(Failure::Refused))
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

    /// Goes back to an older model.
    fn roll_back(
        &mut self,
        config: &TaskConfig,
        older: OlderModel,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<RolledBack, Refusal> {
        let OlderModel {
            round: to,
            model,
            bytes,
            parameters,
        } = older;
        let discarded = self.rounds.received();
        let mut metrics = self.rounds.roll_back(to, model, bytes.len() as u64, now_ms)?;
        // What was told stays told. A tree counts rounds, and this one has no sum.
        metrics.privacy = self.figures(config);
        if let Some(private) = &mut self.private {
            private.tree = None;
        }
        let round = metrics.round;
        tracing::info!(task = %config.manifest.task, round, to, discarded, "rolled back");
        // What the strategy remembers belongs to the models that are left.
        let memory = config.strategy.fresh(parameters.len());
        changes.models.push((model, bytes));
        changes.rounds.push(metrics);
        changes.updates.clear();
        changes.memory = Some(memory.clone());
        (self.parameters, self.memory) = (parameters, memory);
        self.updates.clear();
        Ok(RolledBack {
            round,
            to,
            model,
            discarded,
        })
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
        if let Judgement::Duplicate { round } = self.rounds.judge(&claim)? {
            return Ok(UpdateReply {
                update,
                round,
                duplicate: true,
            });
        }
        let coordinates = coordinates?;
        let rule = &config.strategy.aggregation;
        if rule.needs_updates() {
            changes.updates.push((update, coordinates.clone()));
        } else {
            changes.sum = Some(Vec::new()); // written below, once for the whole batch
        }
        let staleness = self.rounds.staleness(&claim);
        match (&config.central, &self.private, &mut self.updates) {
            (Some(central), Some(state), Gathered::Sum { sum, count }) => {
                central.add(sum, &coordinates, state);
                *count += 1;
            }
            (_, _, updates) => {
                let grid_step = config.manifest.update.grid_step;
                updates.add(rule, update, coordinates, staleness, grid_step);
            }
        }
        let entry = self.rounds.count(&claim, now_ms);
        changes.counted.push(entry);
        self.tick(config, now_ms, changes);
        Ok(UpdateReply {
            update,
            round: entry.round,
            duplicate: false,
        })
    }

    /// Puts what is written as a whole into `changes`: the head, and the sum where it changed.
    pub fn complete(&self, changes: &mut Changes) {
        changes.head = Some(self.head());
        if changes.sum.is_some() {
            changes.sum = match &self.updates {
                Gathered::Sum { sum, count } if *count > 0 => Some(sum.steps().to_vec()),
                _ => None,
            };
        }
    }

    fn publish(&mut self, config: &TaskConfig, now_ms: u64, changes: &mut Changes) {
        let mut memory = self.memory.clone();
        let made = self.next(config, &mut memory).and_then(|(parameters, private)| {
            if parameters.iter().any(|value| !value.is_finite()) {
                return Err("a parameter is not a finite number".to_owned());
            }
            let bytes = config.model.to_safetensors(&parameters);
            let bytes = bytes.map_err(|error| error.to_string())?;
            Ok((parameters, private, bytes))
        });
        let (parameters, private, bytes) = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(%error, "the next model cannot be published; the round stays open");
                self.rounds.extend(now_ms);
                return;
            }
        };
        let model = ContentHash::of(&bytes);
        self.private = private;
        let mut metrics = self.rounds.publish(model, bytes.len() as u64, now_ms);
        metrics.privacy = self.figures(config);
        tracing::info!(
            task = %config.manifest.task, round = metrics.round, clients = metrics.clients, duration_ms = metrics.duration_ms,
            "published"
        );
        changes.models.push((model, bytes));
        changes.rounds.push(metrics);
        changes.updates.clear(); // those that came in the very commit that closes their round are never written
        changes.memory = Some(memory.clone());
        (self.parameters, self.memory) = (parameters, memory);
        self.updates.clear();
    }
}

impl Live {
    /// The parameters that the open round makes, and what is known of its privacy after it.
    fn next(
        &self,
        config: &TaskConfig,
        memory: &mut Memory,
    ) -> Result<(Vec<f32>, Option<central::State>), String> {
        let (before, strategy) = (&self.parameters, &config.strategy);
        match (&config.central, &self.private, &self.updates) {
            (Some(central), Some(state), Gathered::Sum { sum, count }) => {
                let generator = config.randomness.of(self.rounds.round());
                let mut generator =
                    generator.map_err(|error| format!("there is no randomness for the noise: {error}"))?;
                let release = central.release(sum, *count, state, &mut generator);
                let release = release.map_err(|error| error.to_string())?;
                let parameters = strategy.follow(before, &release.direction, memory);
                Ok((parameters, Some(release.state)))
            }
            // Without its noise no sum is told.
            (Some(_), _, _) => Err("the noise is for a sum, and there is none".to_owned()),
            (None, _, updates) => {
                let grid_step = config.manifest.update.grid_step;
                Ok((strategy.next_model(before, updates, grid_step, memory), None))
            }
        }
    }

    fn figures(&self, config: &TaskConfig) -> Option<unsaid_protocol::RoundPrivacy> {
        let central = config.central.as_ref()?;
        self.private.as_ref().map(|state| central.figures(state))
    }
}

/// What is known of the privacy of the rounds that were published, with the tree that goes on; none where the relay adds no noise.
fn private(
    config: &TaskConfig,
    turn: &mut dyn Turn,
    tree: Option<central::Tree>,
) -> Result<Option<central::State>, OpenError> {
    let Some(central) = &config.central else {
        return Ok(None);
    };
    let published = turn.rounds()?;
    let last = published.iter().rev().find_map(|round| round.privacy);
    central.resume(last.as_ref(), tree).map(Some).map_err(damaged)
}

/// The newest parameters, `[d]`.
fn parameters(config: &TaskConfig, turn: &mut dyn Turn, rounds: &Rounds) -> Result<Vec<f32>, OpenError> {
    let model = rounds.model();
    let bytes = turn
        .model(&model)?
        .ok_or_else(|| damaged(format!("the model {model} is missing")))?;
    config.model.from_safetensors(&bytes).map_err(damaged)
}

/// Adds to what is known of the open round's updates what was stored of them.
fn gather_again(
    config: &TaskConfig,
    rounds: &Rounds,
    saved: &Saved,
    known: &mut Gathered,
) -> Result<(), OpenError> {
    let received = rounds.received();
    let summed = config.sum_width();
    let expected = config.coordinates();
    match known {
        Gathered::Sum { sum, count } => match &saved.sum {
            Some(steps) if steps.len() == summed => {
                (*sum, *count) = (PartialSum::from_steps(steps.clone()), received);
            }
            Some(steps) => return Err(damaged(format!("the sum has {} entries", steps.len()))),
            None if received > 0 => return Err(damaged("the open round's sum is missing")),
            None => {}
        },
        Gathered::Updates(updates) => {
            if let Some((_, wrong)) = saved.updates.iter().find(|(_, it)| it.len() != expected) {
                return Err(damaged(format!("an update has {} coordinates", wrong.len())));
            }
            updates.extend(saved.updates.iter().cloned());
            if updates.len() != received as usize {
                return Err(damaged("updates of the open round are missing"));
            }
        }
    }
    Ok(())
}

fn damaged(error: impl ToString) -> OpenError {
    OpenError::Damaged(error.to_string())
}
