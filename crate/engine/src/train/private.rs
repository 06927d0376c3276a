//! Training that is differentially private for each example: DP-SGD (Abadi et al., “Deep Learning with Differential Privacy”, CCS
//! 2016, [arXiv:1607.00133](https://arxiv.org/abs/1607.00133), algorithm 1).
//!
//! Each step takes a lot of examples, every one by a coin of its own, sums their gradients, each clipped to an L2 norm, adds noise to
//! the sum, and divides by the number of examples that a lot is expected to have. The chance in it is the caller's: see
//! [`Chance`]. How the sum is rounded to the grid of the noise: `optim/noise`.

use super::{
    Checkpoint, Device, Job, Observer, Progress, Run, Settings, Trained, Training, proceed, settings::Private,
};
use crate::{EngineError, LayerSpec, Model, SpecError, TrainSpec, model::check_memory, optim::noise::Noise};

/// What is random in private training. Whoever implements it decides whether the training is private: both draws must come from a
/// cryptographic generator, and nobody else may learn them.
pub trait Chance {
    /// Fills `lot`, which is empty, with those of `0..examples` that are in the next step, in any order: each with the same
    /// probability, by a coin of its own (Poisson sampling).
    ///
    /// # Errors
    /// [`EngineError::Chance`].
    fn lot(&mut self, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError>;

    /// Overwrites `noise`, `[d]`, with that of the next step, in whole grid steps, each within ±2³⁰.
    ///
    /// # Errors
    /// [`EngineError::Chance`].
    fn noise(&mut self, noise: &mut [i32]) -> Result<(), EngineError>;
}

/// How the steps of private training are cut. The other numbers are those of the [`TrainSpec`]: `clip_examples_l2`,
/// and `batch_size`, the examples that a lot is expected to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrivateSteps {
    /// Steps of an epoch. It must not depend on how many examples there are.
    pub steps_per_epoch: u32,
    /// What one step of the noise's grid is worth, in units of the gradient: finite and above 0.
    pub grid_step: f32,
}

/// Standard deviations of the size of a lot for which there is room in one batch; larger ones are computed in parts.
const ROOM: f64 = 3.0;

impl Training<'_> {
    /// Trains from `parameters` on `device`, privately for each example. [`Trained::losses`] are those of the steps whose lots were
    /// not empty; on a GPU, of a lot that takes several batches, that of the first.
    ///
    /// A GPU that is lost is no error here either: the CPU does the epoch again, with other lots and other noise. Nobody has seen
    /// what the GPU made of the first ones.
    ///
    /// # Errors
    /// As [`super::train`] and [`Model::check_private`]; [`EngineError::Chance`].
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
        let mut run = match job.start(device, &checkpoint).await {
            Err(EngineError::DeviceLost(reason)) => {
                fell_back = true;
                job.fall_back(&reason, &checkpoint, observer).await?
            }
            run => run?,
        };
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
        // The last step's gradient has not been through a loss.
        if !parameters.iter().all(|parameter| parameter.is_finite()) {
            return Err(EngineError::NonFinite {
                epoch: settings.epochs,
                step: draws.steps,
            });
        }
        Ok(Trained {
            parameters,
            steps: settings.steps_before.saturating_add(steps),
            losses,
            fell_back,
            optimizer,
        })
    }

    fn private_settings(&self, parameters: &[f32], steps: PrivateSteps) -> Result<Settings, EngineError> {
        self.model.check_runs(parameters)?;
        self.model.check_private(self.spec, steps)?;
        let mut settings = self.checked(parameters)?;
        let expected = settings.batch;
        settings.private = Some(Private {
            noise: Noise::new(steps.grid_step, expected as u32),
            #[cfg(feature = "gpu")]
            steps: steps.steps_per_epoch as usize,
        });
        // Lots vary: most of them fit in a batch a little larger than they are expected to be.
        let room = (ROOM * (expected as f64).sqrt()).ceil() as usize;
        settings.batch = expected.saturating_add(room);
        let mut memory = self.model.memory_of(&settings, self.examples.len());
        // The sum of a lot, and its noise.
        memory.gradients = memory.gradients.saturating_add(8 * parameters.len() as u64);
        check_memory(memory, self.memory_limit)?;
        Ok(settings)
    }
}

impl Model {
    /// Checks that this model can be trained privately for each example as `spec` and `steps` say, without training. The rest of `spec` is
    /// checked by [`Model::check_training`].
    ///
    /// # Errors
    /// [`SpecError::Training`] where examples are not clipped, where steps are to be made of several batches, or where there are too many
    /// steps. [`SpecError::Refused`] for a model that another program computes, and for one with dropout: which numbers it drops goes by an
    /// example's place in its lot, so that one example more would change the gradients of others.
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
        } = steps;
        require(
            grid_step.is_normal() && grid_step > 0.0,
            "grid_step",
            grid_step.into(),
            "a finite number above 0",
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
                reason: "cannot be in a model that is trained privately for each example: what it drops depends on how many others \
                         are in the lot",
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
    /// Draws the next step.
    fn next(&mut self, examples: usize) -> Result<(), EngineError> {
        self.lot.clear();
        self.chance.lot(examples as u32, &mut self.lot)?;
        if self.lot.len() > examples || self.lot.iter().any(|&index| index as usize >= examples) {
            return Err(EngineError::Chance(
                "a lot has examples that are not there".into(),
            ));
        }
        self.chance.noise(&mut self.noise)
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
        let non_finite = |step: u32| EngineError::NonFinite { epoch, step };
        checkpoint.losses.clear();
        #[cfg(feature = "gpu")]
        let (mut pending, mut taken) = (None, Vec::new());
        for step in 1..=steps {
            draws.next(self.examples.len())?;
            let numbers = self.settings.numbers(epoch, steps as usize, step as usize - 1);
            match run {
                Run::Cpu(run) => {
                    let loss = run.private_step(&draws.lot, &draws.noise, numbers);
                    if loss.is_some_and(|loss| !loss.is_finite()) {
                        return Err(non_finite(step));
                    }
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
            for step in taken {
                let loss = all[step as usize - 1];
                if !loss.is_finite() {
                    return Err(non_finite(step));
                }
                checkpoint.losses.push(loss);
            }
            proceed(observer.progress(report(steps, None)).await)?;
        }
        Ok(())
    }
}
