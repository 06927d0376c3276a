//! What does not change while a task runs.

use std::sync::Arc;

use unsaid_engine::{Model, WeightsError};
use unsaid_privacy::Cost;
use unsaid_protocol::{CentralPrivacy, ContentHash, CoordinateWidth, DecodeError, Manifest, Privacy};

use super::OpenError;
use crate::{
    actor::Submission,
    aggregate::PartialSum,
    buffers::Buffers,
    central::Central,
    gather::{self, Gathered},
    identity,
    intake::Intake,
    lineage,
    randomness::Randomness,
    round::{Chance, Head, Rules},
    strategy::{Strategy, scaffold::Control},
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
    /// The most clients that a span of a round lets in, if the task limits them.
    pub invited: Option<u32>,
    /// With which probability a client that asks is let in, if the task selects by chance.
    pub chance: Option<Chance>,
    /// How many models are kept of it, if it says so.
    pub keep_models: Option<u64>,
    /// Where clients add no noise to updates: the largest squared norm of an update, in grid steps².
    pub norm_bound: Option<u64>,
    /// What a round costs a client that takes part, by the noise that it adds itself; everything where it adds none.
    pub cost: Cost,
    /// What moves the shared control variate, where there is one.
    pub control: Option<Control>,
    /// What noise the relay adds, where it does.
    pub central: Option<Central>,
    /// Where that noise comes from, and the keys by which rounds draw whom they let in.
    pub randomness: Randomness,
    /// How the next model is made.
    pub strategy: Strategy,
    /// Where coordinates are read to.
    pub(crate) buffers: Buffers,
    /// Whom it lets take part, where it asks for identities.
    pub identity: Option<identity::Rules>,
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
            cost: lineage::cost_of_round(&task.manifest),
            control: task.control,
            central: task.central,
            randomness: Randomness::default(),
            manifest: task.manifest,
            model: Arc::new(task.model),
            seed: task.seed,
            round_limit: task.round_limit,
            invited: task.invited,
            chance: task.chance,
            keep_models: task.keep_models,
            strategy: task.strategy,
            identity: task.identity,
            buffers: Buffers::default(),
        }
    }

    /// A model's file: its parameters, and the control variate that belongs to them where the task has one.
    pub(super) fn write(&self, parameters: &[f32], control: &[f32]) -> Result<Vec<u8>, WeightsError> {
        match self.control {
            None => self.model.to_safetensors(parameters),
            Some(_) => self.model.to_safetensors_with_control(parameters, control),
        }
    }

    /// Parameters and control variate of a model's file; of one that has none, and was written before the task had any, it is zeros.
    ///
    /// # Errors
    /// [`WeightsError`]
    pub fn read(&self, file: &[u8]) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
        let (parameters, mut control) = self.model.from_safetensors_with_control(file)?;
        match self.control {
            None => control.clear(),
            Some(_) => control.resize(parameters.len(), 0.0),
        }
        Ok((parameters, control))
    }

    /// Coordinates of an update: one for each parameter, and the client's weight where clients weigh differently.
    pub fn coordinates(&self) -> usize {
        gather::width(&self.strategy.aggregation, self.manifest.parameters as usize)
    }

    /// Entries of a round's sum: those of an update, and what the relay counts beside them.
    pub(super) fn sum_width(&self) -> usize {
        let rule = &self.strategy.aggregation;
        let summed = gather::sum_width(rule, self.manifest.parameters as usize);
        summed + self.central.as_ref().map_or(0, Central::extra)
    }

    pub(super) fn nothing_gathered(&self) -> Gathered {
        match Gathered::none(&self.strategy.aggregation, self.manifest.parameters as usize) {
            Gathered::Sum { count, .. } => {
                let sum = PartialSum::zero(self.sum_width());
                Gathered::Sum { sum, count }
            }
            kept => kept,
        }
    }

    /// All that can be said of an update's bytes without the task's state, where they are all there: see [`Intake`].
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no frame.
    pub fn examine(&self, bytes: &[u8]) -> Result<Submission, DecodeError> {
        let mut intake = Intake::new(self, self.identity.is_some());
        intake.push(bytes);
        intake.finish()
    }

    /// The width of every update's coordinates, where it must not follow from them: in mode `central`, where they have no noise yet.
    pub(crate) fn fixed_width(&self) -> Option<CoordinateWidth> {
        self.central
            .as_ref()
            .and_then(|_| self.norm_bound.map(CoordinateWidth::for_bound))
    }

    /// Whether the task is still under this relay's manifest.
    pub(super) fn check_manifest(&self, in_force: &str) -> Result<(), OpenError> {
        if in_force.as_bytes() == self.manifest_json {
            Ok(())
        } else {
            Err(OpenError::OtherManifest(ContentHash::of(in_force.as_bytes())))
        }
    }

    /// Whether identities have the same shares of the task and the same budget as the relay says that wrote `head`.
    pub(super) fn check_shares(&self, head: &Head) -> Result<(), OpenError> {
        if head.shares == self.shares() {
            Ok(())
        } else {
            Err(OpenError::OtherShares)
        }
    }

    fn shares(&self) -> Option<ContentHash> {
        self.identity.as_ref().map(identity::Rules::shares)
    }

    /// Whether a store that takes values of at most `most` bytes takes all that the task will have.
    pub(super) fn check_sizes(&self, most: Option<u64>) -> Result<(), OpenError> {
        const MODEL_HEADER: u64 = 1 << 20; // far more than the names and shapes of the largest model take
        let Some(most) = most else { return Ok(()) };
        let parameters = self.manifest.parameters as usize;
        let rule = &self.strategy.aggregation;
        let vectors = 1 + u64::from(self.control.is_some());
        let (sum, update) = if rule.needs_updates() {
            (0, self.coordinates())
        } else {
            (gather::sum_width(rule, parameters), 0)
        };
        for (what, bytes) in [
            ("the sum of a round", 8 * sum as u64),
            ("an update", 4 * update as u64),
            ("a model", vectors * 4 * parameters as u64 + MODEL_HEADER),
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

    pub(super) fn rules(&self) -> Rules {
        Rules {
            policy: self.manifest.rounds,
            limit: self.round_limit,
            invited: self.invited,
            chance: self.chance,
            manifest: self.manifest_hash,
            max_staleness: self.strategy.aggregation.max_staleness(),
            min_separation: self.min_separation(),
            by_identity: self.identity.is_some(),
            shares: self.shares(),
        }
    }
}
