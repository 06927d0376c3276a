//! A task in memory: its rounds, its sum and its newest parameters, and how they are read from the store.

use std::sync::Arc;

use unsaid_engine::Model;
use unsaid_protocol::{ContentHash, Manifest, RoundMetrics, UpdateReply};

use crate::{
    actor::{Answer, Command, Failure, Submission},
    aggregate::{PartialSum, federated_average},
    round::{Due, Judgement, Rounds, Rules},
    store::{Changes, Saved, Store, StoreError},
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
    /// Where the task adds no noise: the largest squared norm of an update, in grid steps².
    pub norm_bound: Option<u64>,
}

impl TaskConfig {
    /// The part of a task that the rounds need.
    pub fn new(task: Task) -> Self {
        let manifest_json = task.manifest.to_json();
        let noiseless = matches!(task.manifest.privacy, unsaid_protocol::Privacy::None);
        Self {
            manifest_hash: ContentHash::of(&manifest_json),
            manifest_json,
            norm_bound: noiseless.then(|| task.encoding.bound_squared()),
            manifest: task.manifest,
            model: Arc::new(task.model),
            seed: task.seed,
            round_limit: task.round_limit,
        }
    }

    const fn rules(&self) -> Rules {
        Rules {
            policy: self.manifest.rounds,
            limit: self.round_limit,
            manifest: self.manifest_hash,
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
    /// What the store holds does not belong together.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// A task in memory.
pub struct Live {
    /// The round machine.
    pub rounds: Rounds,
    sum: PartialSum,
    parameters: Vec<f32>,
}

impl Live {
    /// Reads a task from the store, or begins it there.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(config: &TaskConfig, store: &dyn Store, now_ms: u64) -> Result<Self, OpenError> {
        match store.load(&config.manifest.task)? {
            Some(saved) => Self::resume(config, store, &saved),
            None => Self::begin(config, store, now_ms),
        }
    }

    fn begin(config: &TaskConfig, store: &dyn Store, now_ms: u64) -> Result<Self, OpenError> {
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
        };
        let changes = Changes {
            head: Some(rounds.head()),
            manifest: Some(String::from_utf8_lossy(&config.manifest_json).into_owned()),
            models: vec![(model, bytes)],
            rounds: vec![metrics],
            ..Changes::default()
        };
        store.commit(&config.manifest.task, &changes)?;
        let sum = PartialSum::zero(parameters.len());
        Ok(Self {
            rounds,
            sum,
            parameters,
        })
    }

    fn resume(config: &TaskConfig, store: &dyn Store, saved: &Saved) -> Result<Self, OpenError> {
        let task = &config.manifest.task;
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
            let (old, new) = (old.update.grid_step, config.manifest.update.grid_step);
            let received = rounds.received();
            if received > 0 && old != new {
                return Err(OpenError::OtherGrid { received, old, new });
            }
            let manifest = Some(String::from_utf8_lossy(&config.manifest_json).into_owned());
            let changes = Changes {
                manifest,
                ..Changes::default()
            };
            store.commit(task, &changes)?;
            tracing::info!(%task, manifest = %config.manifest_hash, "the task goes on under another manifest");
        }
        let model = rounds.model();
        let bytes = store
            .model(task, &model)?
            .ok_or_else(|| damaged(format!("the model {model} is missing")))?;
        let parameters = config.model.from_safetensors(&bytes).map_err(damaged)?;
        let sum = match &saved.sum {
            Some(steps) if steps.len() == parameters.len() => PartialSum::from_steps(steps.clone()),
            Some(steps) => return Err(damaged(format!("the sum has {} entries", steps.len()))),
            None if rounds.received() > 0 => return Err(damaged("the open round's sum is missing")),
            None => PartialSum::zero(parameters.len()),
        };
        Ok(Self {
            rounds,
            sum,
            parameters,
        })
    }

    /// Lets time pass.
    pub fn tick(&mut self, config: &TaskConfig, now_ms: u64, changes: &mut Changes) {
        match self.rounds.tick(now_ms) {
            Due::Nothing => {}
            Due::Publish => self.publish(config, now_ms, changes),
            Due::Extended | Due::Lapsed => changes.head = Some(self.rounds.head()),
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
                let before = (self.rounds.checked_in(), self.rounds.span());
                let answer = self.rounds.check_in(&ask, now_ms);
                if before.0 != self.rounds.checked_in() {
                    changes.check_ins.push((self.rounds.round(), ask.client));
                }
                if before.1 != self.rounds.span() {
                    changes.head = Some(self.rounds.head());
                }
                Answer::CheckIn(reply, answer.map_err(Failure::Refused))
            }
            Command::Update(submission, reply) => {
                let answer = self.update(config, submission, now_ms, changes);
                Answer::Update(reply, answer.map_err(Failure::Refused))
            }
            Command::Evaluated(metrics) => {
                changes.rounds.push(metrics);
                Answer::Nothing
            }
            Command::Stop => Answer::Nothing,
        }
    }

    fn update(
        &mut self,
        config: &TaskConfig,
        Submission { claim, coordinates }: Submission,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<UpdateReply, crate::round::Refusal> {
        let update = claim.update;
        if let Judgement::Duplicate { round } = self.rounds.judge(&claim)? {
            return Ok(UpdateReply {
                update,
                round,
                duplicate: true,
            });
        }
        self.sum.add(&coordinates?);
        let entry = self.rounds.count(&claim, now_ms);
        changes.counted.push(entry);
        changes.sum = Some(Vec::new()); // written below, once for the whole batch
        self.tick(config, now_ms, changes);
        Ok(UpdateReply {
            update,
            round: entry.round,
            duplicate: false,
        })
    }

    /// Puts what is written as a whole into `changes`: the head, and the sum where it changed.
    pub fn complete(&self, changes: &mut Changes) {
        changes.head = Some(self.rounds.head());
        if changes.sum.is_some() {
            changes.sum = (self.rounds.received() > 0).then(|| self.sum.steps().to_vec());
        }
    }

    fn publish(&mut self, config: &TaskConfig, now_ms: u64, changes: &mut Changes) {
        let grid_step = config.manifest.update.grid_step;
        let parameters = federated_average(&self.parameters, &self.sum, self.rounds.received(), grid_step);
        let bytes = match config.model.to_safetensors(&parameters) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "the next model cannot be written; the round stays open");
                self.rounds.extend(now_ms);
                return;
            }
        };
        let model = ContentHash::of(&bytes);
        let metrics = self.rounds.publish(model, bytes.len() as u64, now_ms);
        tracing::info!(
            task = %config.manifest.task, round = metrics.round, clients = metrics.clients, duration_ms = metrics.duration_ms,
            "published"
        );
        changes.models.push((model, bytes));
        changes.rounds.push(metrics);
        self.parameters = parameters;
        self.sum.clear();
    }
}

fn damaged(error: impl ToString) -> OpenError {
    OpenError::Damaged(error.to_string())
}
