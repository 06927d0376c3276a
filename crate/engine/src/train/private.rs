//! Training that is differentially private for each example: DP-SGD (Abadi et al., “Deep Learning with Differential Privacy”, CCS
//! 2016, [arXiv:1607.00133](https://arxiv.org/abs/1607.00133), algorithm 1).
//!
//! Each step takes a lot of examples, every one by a coin of its own, sums their gradients, each clipped to an L2 norm, adds noise to
//! the sum, and divides by the number of examples that a lot is expected to have. The chance in it is the caller's: see
//! [`Chance`]. What one example adds to the sum depends on no other and is bounded in whole numbers: `optim/lot`. So the weights, which
//! others choose, have no part in the bound; and nothing that the data do ends a training, which would be seen.

use super::{
    Checkpoint, Device, Job, Observer, Progress, Run, Settings, Trained, Training, proceed, settings::Private,
};
use crate::{
    EngineError, LayerSpec, Memory, Model, SpecError, TrainSpec,
    backend::cpu::PRIVATE_ROWS,
    model::check_memory,
    optim::lot::{Lot, Totals},
};

/// What is random in private training. Whoever implements it decides whether the training is private: both draws must come from a
/// cryptographic generator, and nobody else may learn them.
///
/// Steps count from 0 over all epochs. Asked for the same step again, it gives the same again: a step that a lost GPU did not finish is
/// done by the CPU, and whether it is may have to do with the data.
pub trait Chance {
    /// Fills `lot`, which is empty, with those of `0..examples` that are in step `step`, in any order but none twice: each with the same
    /// probability, by a coin of its own (Poisson sampling).
    ///
    /// # Errors
    /// [`EngineError::Chance`].
    fn lot(&mut self, step: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError>;

    /// Overwrites `noise`, `[d]`, with that of step `step`, in whole grid steps, each within ±2³⁰.
    ///
    /// # Errors
    /// [`EngineError::Chance`].
    fn noise(&mut self, step: u32, noise: &mut [i32]) -> Result<(), EngineError>;
}

/// How the steps of private training are cut. The other numbers are those of the [`TrainSpec`]: `clip_examples_l2`,
/// and `batch_size`, the examples that a lot is expected to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrivateSteps {
    /// Steps of an epoch, whatever the [`TrainSpec`] says of them. It must not depend on how many examples there are.
    pub steps_per_epoch: u32,
    /// What one step of the noise's grid is worth, in units of the gradient: finite and above 0.
    pub grid_step: f32,
    /// The square of the longest vector, in grid steps, that one example may add to a sum: what the noise is made for. At most 2⁴⁸, and up
    /// to 2⁴² faster where layers are dense. An
    /// example that is clipped to `clip_examples_l2` is within the clip norm over `grid_step` and half the square root of the number of
    /// parameters (and some room for floats: one part in 2¹⁴); one that may be above the bound all the same adds nothing.
    pub bound_squared: u64,
}

impl Training<'_> {
    /// Trains from `parameters` on `device`, privately for each example, of which there may be none. [`Trained::losses`] are those of the
    /// steps in whose lots there was an example with a finite loss; on a GPU, of all whose lots were not empty.
    ///
    /// An example whose gradient is not finite adds nothing. Where noise and steps make parameters that are not finite, or as far from
    /// where they began, [`Trained::parameters`] are those that it began with. A GPU that is lost is no error here either: the CPU does
    /// the epoch again, with the same lots and the same noise.
    ///
    /// # Errors
    /// As [`super::train`] but for losses that are not finite, and as [`Model::check_private`]; [`EngineError::Chance`].
    pub async fn run_private(
        self,
        parameters: &[f32],
        steps: PrivateSteps,
        chance: &mut dyn Chance,
        device: &Device,
        observer: &mut impl Observer,
    ) -> Result<Trained, EngineError> {
        let settings = self.private_settings(parameters, steps)?;
        let mut checkpoint = self.checkpoint(&settings, parameters);
        let job = Job {
            model: self.model,
            examples: self.examples,
            settings: &settings,
        };
        let mut losses = Vec::new();
        let mut fell_back = false;
        // Nothing is nothing to a GPU.
        let device = if self.examples.is_empty() {
            &Device::Cpu
        } else {
            device
        };
        let mut run = match job.start(device, &checkpoint).await {
            Err(EngineError::DeviceLost(reason)) => {
                fell_back = true;
                job.fall_back(&reason, &checkpoint, observer).await?
            }
            run => run?,
        };
        let start = parameters;
        let mut draws = Draws {
            chance,
            lot: Vec::new(),
            noise: vec![0; parameters.len()],
            steps: steps.steps_per_epoch,
        };
        for epoch in 1..=settings.epochs {
            let done = job.private_epoch(&mut run, epoch, &mut checkpoint, &mut draws, observer);
            match done.await {
                Err(EngineError::DeviceLost(reason)) => {
                    fell_back = true;
                    run = job.fall_back(&reason, &checkpoint, observer).await?;
                    job.private_epoch(&mut run, epoch, &mut checkpoint, &mut draws, observer)
                        .await?;
                }
                result => result?,
            }
            let epoch_losses = std::mem::take(&mut checkpoint.losses);
            let loss = epoch_losses.iter().sum::<f32>() / epoch_losses.len().max(1) as f32;
            losses.extend(epoch_losses);
            let epochs = settings.epochs;
            proceed(observer.progress(Progress::Epoch { epoch, epochs, loss }).await)?;
        }
        let (parameters, optimizer) = match run {
            Run::Cpu(run) => run.into_state(),
            #[cfg(feature = "gpu")]
            Run::Gpu(_) => (checkpoint.parameters, checkpoint.state),
        };
        let steps = settings.epochs * steps.steps_per_epoch;
        let mut moved = parameters.iter().zip(start).map(|(after, before)| after - before);
        let parameters = if moved.all(f32::is_finite) {
            parameters
        } else {
            start.to_vec()
        };
        Ok(Trained {
            parameters,
            steps: settings.steps_before.saturating_add(steps),
            losses,
            fell_back,
            optimizer,
        })
    }

    pub(crate) fn private_settings(
        &self,
        parameters: &[f32],
        steps: PrivateSteps,
    ) -> Result<Settings, EngineError> {
        self.model.check_runs(parameters)?;
        self.model.check_private(self.spec, steps)?;
        let mut settings = self.checked_of_any(parameters)?;
        let expected = settings.batch as u32;
        // Each example is a batch of its own, whatever is computed beside it, and clipped in whole numbers.
        settings.batch = 1;
        let clip_l2 = settings.clip_examples_l2.take().unwrap_or_default();
        settings.private = Some(Private {
            lot: Lot::new(clip_l2, steps.grid_step, steps.bound_squared, expected),
            rows: self.model.private_rows(),
            #[cfg(feature = "gpu")]
            steps: steps.steps_per_epoch as usize,
        });
        check_memory(self.model.private_memory(&settings), self.memory_limit)?;
        Ok(settings)
    }
}

impl Model {
    /// How many examples private training computes beside each other on the CPU: what the model is decides, and no data. Only dense layers are
    /// any faster by it; all else is asked for each example by itself.
    fn private_rows(&self) -> usize {
        let dense = self.nodes().iter().any(|node| node.op.outer().is_some());
        if dense { PRIVATE_ROWS } else { 1 }
    }

    /// The memory of a private training: not that of as many examples as there are, since whether they fit would tell how many.
    pub(crate) fn private_memory(&self, settings: &Settings) -> Memory {
        let mut memory = self.memory_of(settings, usize::MAX);
        // The sum of a lot, of any size, and its noise.
        let more = (Totals::BYTES + 4) * self.parameter_count() as u64;
        memory.gradients = memory.gradients.saturating_add(more);
        memory
    }

    /// Checks that this model can be trained privately for each example as `spec` and `steps` say, without training. The rest of `spec` is
    /// checked by [`Model::check_training`].
    ///
    /// # Errors
    /// [`SpecError::Training`] where examples are not clipped, where steps are to be made of several batches, where there are too many
    /// steps, or where the grid or the bound is out of range. [`SpecError::Refused`] for a model that another program computes, and for one with dropout: it drops by an example's
    /// place in its batch, and each is a batch of its own here: of all examples of a step the same.
    pub fn check_private(&self, spec: &TrainSpec, steps: PrivateSteps) -> Result<(), SpecError> {
        let require = |fits: bool, field, found: f64, expected| {
            let refused = SpecError::Training {
                field,
                found,
                expected,
            };
            fits.then_some(()).ok_or(refused)
        };
        let clip = spec.clip_examples_l2;
        require(
            clip.is_some(),
            "clip_examples_l2",
            f64::NAN,
            "a number in private training",
        )?;
        let accumulate = spec.accumulate.get();
        require(
            accumulate == 1,
            "accumulate",
            accumulate.into(),
            "1 in private training",
        )?;
        let PrivateSteps {
            steps_per_epoch,
            grid_step,
            bound_squared,
        } = steps;
        require(
            grid_step.is_normal() && grid_step > 0.0,
            "grid_step",
            grid_step.into(),
            "a finite number above 0",
        )?;
        require(
            (1..=Lot::MAX_BOUND_SQUARED).contains(&bound_squared),
            "bound_squared",
            bound_squared as f64,
            "between 1 and 2^48",
        )?;
        let all = spec.epochs.get().checked_mul(steps_per_epoch);
        require(
            steps_per_epoch > 0 && all.is_some(),
            "epochs",
            spec.epochs.get().into(),
            "so few that there are fewer than 2^32 steps",
        )?;
        if self.is_external() {
            return Err(SpecError::Refused {
                layer: 0,
                kind: "external",
                reason: "cannot be trained privately for each example: another program computes its gradients",
            });
        }
        let mut layers = self.spec().layers.iter();
        match layers.position(|layer| matches!(layer, LayerSpec::Dropout { .. })) {
            None => Ok(()),
            Some(layer) => Err(SpecError::Refused {
                layer,
                kind: "dropout",
                reason: "cannot be in a model that is trained privately for each example: it would drop the same of all that are in \
                         a lot",
            }),
        }
    }
}

/// The chance of a training, and room for what it draws.
struct Draws<'a> {
    chance: &'a mut dyn Chance,
    lot: Vec<u32>,
    noise: Vec<i32>,
    steps: u32,
}

impl Draws<'_> {
    /// Draws step `step`, from 0 over all epochs.
    fn draw(&mut self, step: u32, examples: usize) -> Result<(), EngineError> {
        self.lot.clear();
        self.chance.lot(step, examples as u32, &mut self.lot)?;
        // In one order, whatever the caller's: where a sum is cut off, it goes by it.
        self.lot.sort_unstable();
        let is_there = |&index: &u32| (index as usize) < examples;
        if !self.lot.iter().all(is_there) || self.lot.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(EngineError::Chance(
                "a lot has examples that are not there, or one of them twice".into(),
            ));
        }
        self.chance.noise(step, &mut self.noise)
    }
}

impl Job<'_> {
    /// One epoch, from its beginning. The losses of its steps are in the checkpoint then; its parameters are those of the end on the GPU
    /// only, since the CPU loses nothing.
    async fn private_epoch(
        &self,
        run: &mut Run<'_>,
        epoch: u32,
        checkpoint: &mut Checkpoint,
        draws: &mut Draws<'_>,
        observer: &mut impl Observer,
    ) -> Result<(), EngineError> {
        let steps = draws.steps;
        let report = |step: u32, loss: Option<f32>| Progress::Step {
            epoch,
            epochs: self.settings.epochs,
            step,
            steps,
            loss,
        };
        checkpoint.losses.clear();
        #[cfg(feature = "gpu")]
        let (mut pending, mut taken) = (None, Vec::<u32>::new());
        for step in 1..=steps {
            draws.draw((epoch - 1) * steps + step - 1, self.examples.len())?;
            let numbers = self.settings.numbers(epoch, steps as usize, step as usize - 1);
            match run {
                Run::Cpu(run) => {
                    let loss = run.private_step(&draws.lot, &draws.noise, numbers);
                    checkpoint.losses.extend(loss);
                    proceed(observer.progress(report(step, loss)).await)?;
                }
                #[cfg(feature = "gpu")]
                Run::Gpu(run) => {
                    let next = run.submit_private(step as usize - 1, &draws.lot, &draws.noise, numbers)?;
                    if !draws.lot.is_empty() {
                        taken.push(step);
                    }
                    if let Some(submission) = pending.replace(next) {
                        run.wait(submission, checkpoint).await?;
                        proceed(observer.progress(report(step - 1, None)).await)?;
                    }
                }
            }
        }
        #[cfg(feature = "gpu")]
        if let (Run::Gpu(run), Some(submission)) = (run, pending) {
            run.wait(submission, checkpoint).await?;
            let all = run.end_private_epoch(checkpoint).await?;
            let losses = taken.iter().map(|&step| all[step as usize - 1]);
            checkpoint.losses.extend(losses);
            proceed(observer.progress(report(steps, None)).await)?;
        }
        Ok(())
    }
}
