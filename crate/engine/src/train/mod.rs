//! Local training: epochs of steps over the local examples, on whichever back end, with a fault on the GPU carried over to
//! the CPU.

mod private;
mod scaffold;
mod settings;

use std::future::Future;

pub use private::{Chance, PrivateSteps};
pub use scaffold::control_variate_after;
pub(crate) use settings::Settings;

#[cfg(feature = "gpu")]
use crate::backend::gpu::{GpuDevice, GpuRun, SUBMISSIONS};
use crate::{DataError, EngineError, Examples, Model, TrainSpec, backend::cpu::CpuRun, model::check_memory};

/// Where to train.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Device {
    /// The CPU, with SIMD: one thread, or those of a crew ([`crate::crew`]).
    Cpu,
    /// A GPU.
    #[cfg(feature = "gpu")]
    Gpu(GpuDevice),
}

/// How far training is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// `step` of `steps` of `epoch` of `epochs` are done; all count from 1.
    Step {
        /// The epoch.
        epoch: u32,
        /// Epochs in all.
        epochs: u32,
        /// Steps done in this epoch.
        step: u32,
        /// Steps of an epoch.
        steps: u32,
        /// The mean loss of the step's batch, where it is known at once: on the CPU.
        loss: Option<f32>,
    },
    /// An epoch is done.
    Epoch {
        /// The epoch.
        epoch: u32,
        /// Epochs in all.
        epochs: u32,
        /// Mean of the loss of its steps, each taken before the step.
        loss: f32,
    },
    /// The GPU was lost; the CPU goes on from the last step whose result is known, in the same order. That is the last one
    /// reported, or for models of more than a megabyte one that may lie some submissions back.
    Fallback {
        /// What the GPU reported.
        reason: &'a str,
    },
}

/// What the observer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop now: training returns [`EngineError::Stopped`].
    Stop,
}

/// Watches training, and may stop it. In a browser this is also where the worker takes its messages: the future may wait.
pub trait Observer {
    /// Called after every step on the CPU and after every submission on the GPU.
    fn progress(&mut self, progress: Progress<'_>) -> impl Future<Output = Control>;
}

/// An observer that lets training run to its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    async fn progress(&mut self, _: Progress<'_>) -> Control {
        Control::Continue
    }
}

/// What training gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The new parameters, `[d]`.
    pub parameters: Vec<f32>,
    /// The mean loss of every step's batch, taken before the step, first to last over all epochs.
    pub losses: Vec<f32>,
    /// Whether the GPU was lost on the way, so that (part of) the work was done on the CPU.
    pub fell_back: bool,
    /// The optimiser's state, for [`Training::resume`].
    pub optimizer: Vec<f32>,
    /// Steps that this state has seen.
    pub steps: u32,
}

/// Steps that the GPU is given before it is heard of: enough to hide the cost of submitting, few enough to report and stop
/// between them, and to be done again when the device is lost.
#[cfg(feature = "gpu")]
const STEPS_UNDER_WAY: usize = 8;
/// Steps in one submission.
#[cfg(feature = "gpu")]
const STEPS_PER_SUBMISSION: usize = STEPS_UNDER_WAY / SUBMISSIONS;

/// A back end in the middle of training.
enum Run<'m> {
    Cpu(Box<CpuRun<'m>>),
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuRun>),
}

/// What does not change during training.
struct Job<'m> {
    model: &'m Model,
    examples: &'m Examples,
    settings: &'m Settings,
}

/// The newest known state of a training: what a fault takes it back to.
#[derive(Clone)]
pub(crate) struct Checkpoint {
    /// The parameters, `[d]`.
    pub parameters: Vec<f32>,
    /// The optimiser's state.
    pub state: Vec<f32>,
    /// The losses of the steps of the epoch that led here; there are no others of that epoch in the parameters.
    pub losses: Vec<f32>,
}

/// Trains `model` from `parameters` on `examples` as `spec` says. `seed` decides the order of the examples; the same seed on the
/// same back end gives the same bits; on a GPU with the same kernels (`GpuDevice::choose_kernels` may choose others on another
/// day, `use_kernels` fixes them).
///
/// ```
/// # use unsaid_engine::*;
/// # pollster::block_on(async {
/// let spec = r#"{"input": [2], "layers": [{"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"}"#;
/// let model = Model::new(&serde_json::from_str(spec)?)?;
/// let examples = Examples::new(vec![1.0, 0.0, 0.0, 1.0], vec![0, 1], 2, 2)?;
/// let how = r#"{"epochs": 20, "batch_size": 2, "optimizer": {"type": "sgd", "learning_rate": 0.5}}"#;
/// let how: TrainSpec = serde_json::from_str(how)?;
/// let start = model.initial_parameters(1);
/// let trained = train(&model, &start, &examples, &how, 7, &Device::Cpu, &mut Unobserved).await?;
/// assert_eq!(model.evaluate(&trained.parameters, &examples)?.accuracy, 1.0);
/// assert!(trained.losses.last() < trained.losses.first());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`EngineError`]: parameters or examples that are not the model's, a training spec out of range, a loss that is not finite,
/// a stop by the observer, or a GPU that refuses the work. A GPU that is lost is no error: the CPU takes over.
pub async fn train(
    model: &Model,
    parameters: &[f32],
    examples: &Examples,
    spec: &TrainSpec,
    seed: u64,
    device: &Device,
    observer: &mut impl Observer,
) -> Result<Trained, EngineError> {
    let training = Training::new(model, examples, spec).seed(seed);
    training.run(parameters, device, observer).await
}

/// A local training with everything that can be set. [`train`] is the short form.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    model: &'a Model,
    examples: &'a Examples,
    spec: &'a TrainSpec,
    seed: u64,
    correction: &'a [f32],
    optimizer: &'a [f32],
    steps_before: u32,
    memory_limit: u64,
}

/// The most memory that a training may have where nothing else is said: in 32 bits, the largest piece that an allocator gives.
const MEMORY_LIMIT: u64 = if cfg!(target_pointer_width = "32") {
    i32::MAX as u64
} else {
    u64::MAX
};

impl<'a> Training<'a> {
    /// A training of `model` on `examples` as `spec` says, with seed 0 and a fresh optimiser.
    pub const fn new(model: &'a Model, examples: &'a Examples, spec: &'a TrainSpec) -> Self {
        Self {
            model,
            examples,
            spec,
            seed: 0,
            correction: &[],
            optimizer: &[],
            steps_before: 0,
            memory_limit: MEMORY_LIMIT,
        }
    }

    /// The seed of the order of the examples and of dropout.
    #[must_use]
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// SCAFFOLD's correction `c − cᵢ`, `[d]`: added to every gradient (Karimireddy et al. 2020, algorithm 1, line 10). What `cᵢ` is
    /// afterwards says [`Training::control_variate`].
    #[must_use]
    pub const fn correction(self, correction: &'a [f32]) -> Self {
        Self { correction, ..self }
    }

    /// Goes on with the optimiser of an earlier training: its [`Trained::optimizer`] and [`Trained::steps`].
    #[must_use]
    pub const fn resume(self, optimizer: &'a [f32], steps: u32) -> Self {
        Self {
            optimizer,
            steps_before: steps,
            ..self
        }
    }

    /// The most bytes that training may have: [`EngineError::OutOfMemory`] where [`Model::memory`] is above.
    #[must_use]
    pub const fn memory_limit(self, memory_limit: u64) -> Self {
        Self { memory_limit, ..self }
    }

    /// Checks everything that can be checked without training.
    fn settings(&self, parameters: &[f32]) -> Result<Settings, EngineError> {
        self.model.check_runs(parameters)?;
        let settings = self.checked(parameters)?;
        check_memory(
            self.model.memory_of(&settings, self.examples.len()),
            self.memory_limit,
        )?;
        Ok(settings)
    }

    /// As [`Training::settings`], for a model that runs anywhere.
    pub(crate) fn checked(&self, parameters: &[f32]) -> Result<Settings, EngineError> {
        if self.examples.is_empty() {
            return Err(DataError::Empty.into());
        }
        self.checked_of_any(parameters)
    }

    /// As [`Training::checked`], where there may be no examples.
    fn checked_of_any(&self, parameters: &[f32]) -> Result<Settings, EngineError> {
        self.model.check_count(parameters)?;
        if !self.correction.is_empty() {
            self.model.check_count(self.correction)?;
        }
        self.model.check_any_examples(self.examples)?;
        let mut settings = Settings::new(self.model, self.spec, self.seed, parameters, self.correction)?;
        settings.steps_before = self.steps_before;
        Ok(settings)
    }

    /// Trains from `parameters` on `device`.
    ///
    /// # Errors
    /// As [`train`].
    pub async fn run(
        self,
        parameters: &[f32],
        device: &Device,
        observer: &mut impl Observer,
    ) -> Result<Trained, EngineError> {
        let settings = self.settings(parameters)?;
        let from = self.checkpoint(&settings, parameters);
        run(self.model, self.examples, &settings, from, device, observer).await
    }

    /// Where it begins.
    fn checkpoint(&self, settings: &Settings, parameters: &[f32]) -> Checkpoint {
        let mut state = settings.optimizer.fresh_state(parameters.len());
        if self.optimizer.len() == state.len() {
            state.copy_from_slice(self.optimizer);
        }
        Checkpoint {
            parameters: parameters.to_vec(),
            state,
            losses: Vec::new(),
        }
    }
}

async fn run(
    model: &Model,
    examples: &Examples,
    settings: &Settings,
    mut checkpoint: Checkpoint,
    device: &Device,
    observer: &mut impl Observer,
) -> Result<Trained, EngineError> {
    let job = Job {
        model,
        examples,
        settings,
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
    for epoch in 1..=settings.epochs {
        match job.epoch(&mut run, epoch, &mut checkpoint, observer).await {
            Err(EngineError::DeviceLost(reason)) => {
                fell_back = true;
                run = job.fall_back(&reason, &checkpoint, observer).await?;
                job.epoch(&mut run, epoch, &mut checkpoint, observer).await?;
            }
            result => result?,
        }
        let epoch_losses = std::mem::take(&mut checkpoint.losses);
        let loss = epoch_losses.iter().sum::<f32>() / epoch_losses.len() as f32;
        losses.extend(epoch_losses);
        proceed(
            observer
                .progress(Progress::Epoch {
                    epoch,
                    epochs: settings.epochs,
                    loss,
                })
                .await,
        )?;
    }
    let (parameters, optimizer) = match run {
        Run::Cpu(run) => run.into_state(),
        #[cfg(feature = "gpu")]
        Run::Gpu(_) => (checkpoint.parameters, checkpoint.state),
    };
    Ok(Trained {
        parameters,
        steps: settings.steps_before.saturating_add(losses.len() as u32),
        losses,
        fell_back,
        optimizer,
    })
}

fn proceed(control: Control) -> Result<(), EngineError> {
    match control {
        Control::Continue => Ok(()),
        Control::Stop => Err(EngineError::Stopped),
    }
}

impl<'m> Job<'m> {
    #[cfg_attr(
        not(feature = "gpu"),
        allow(clippy::unused_async, reason = "only a GPU is waited for")
    )]
    async fn start(&self, device: &Device, from: &Checkpoint) -> Result<Run<'m>, EngineError> {
        match device {
            Device::Cpu => Ok(self.start_cpu(from)),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => {
                let Checkpoint {
                    parameters, state, ..
                } = from;
                let run = GpuRun::new(gpu, self.model, self.examples, self.settings, parameters, state)?;
                gpu.compiled().await;
                Ok(Run::Gpu(Box::new(run)))
            }
        }
    }

    fn start_cpu(&self, from: &Checkpoint) -> Run<'m> {
        let Checkpoint {
            parameters, state, ..
        } = from.clone();
        let run = CpuRun::new(self.model, self.examples, self.settings, parameters, state);
        Run::Cpu(Box::new(run))
    }

    async fn fall_back(
        &self,
        reason: &str,
        from: &Checkpoint,
        observer: &mut impl Observer,
    ) -> Result<Run<'m>, EngineError> {
        proceed(observer.progress(Progress::Fallback { reason }).await)?;
        Ok(self.start_cpu(from))
    }

    /// The order of the examples in `epoch`, from 1.
    fn order(&self, epoch: u32) -> Vec<u32> {
        self.settings.order(self.examples.len(), epoch)
    }

    /// One epoch, from the step on that the checkpoint has reached. The losses of its steps are in the checkpoint then; its
    /// parameters are those of the end on the GPU only, since the CPU loses nothing.
    async fn epoch(
        &self,
        run: &mut Run<'m>,
        epoch: u32,
        checkpoint: &mut Checkpoint,
        observer: &mut impl Observer,
    ) -> Result<(), EngineError> {
        let order = self.order(epoch);
        let steps = order.len().div_ceil(self.settings.step_len());
        let report = |step: usize, loss: Option<f32>| Progress::Step {
            epoch,
            epochs: self.settings.epochs,
            step: step as u32,
            steps: steps as u32,
            loss,
        };
        let non_finite = |step: usize| EngineError::NonFinite {
            epoch,
            step: step as u32 + 1,
        };
        let losses = &mut checkpoint.losses;
        match run {
            Run::Cpu(run) => {
                let batches = order.chunks(self.settings.step_len()).enumerate();
                for (step, batch) in batches.skip(losses.len()) {
                    let loss = run.step(batch, self.settings.numbers(epoch, steps, step));
                    if !loss.is_finite() {
                        return Err(non_finite(step));
                    }
                    losses.push(loss);
                    proceed(observer.progress(report(step + 1, Some(loss))).await)?;
                }
            }
            #[cfg(feature = "gpu")]
            Run::Gpu(run) => {
                run.begin_epoch(&order, epoch, self.settings, self.examples)?;
                let finite = |checkpoint: &Checkpoint| {
                    let bad = checkpoint.losses.iter().position(|loss| !loss.is_finite());
                    bad.map_or(Ok(()), |step| Err(non_finite(step)))
                };
                let piece = (STEPS_PER_SUBMISSION / self.settings.accumulate).max(1);
                // One submission is waited for while the next is under way.
                let mut pending = None;
                let pieces = (0..steps).step_by(piece).map(Some);
                for first in pieces.chain([None]) {
                    let next = first.map(|first| run.submit(first..steps.min(first + piece)));
                    let Some(submission) = std::mem::replace(&mut pending, next) else {
                        continue;
                    };
                    let end = submission.steps;
                    run.wait(submission, checkpoint).await?;
                    finite(checkpoint)?;
                    proceed(observer.progress(report(end, None)).await)?;
                }
                run.end_epoch(steps, checkpoint).await?;
                finite(checkpoint)?;
            }
        }
        Ok(())
    }
}

/// The (upper) median of a few numbers: the one that has half of the others below it. Without sorting, which weighs 4 kB in wasm.
fn median(values: &[f64]) -> f64 {
    let rank = |value: &f64| values.iter().filter(|other| *other < value).count();
    let below = |value: &&f64| rank(value) <= values.len() / 2;
    values
        .iter()
        .filter(below)
        .fold(f64::NEG_INFINITY, |median, value| median.max(*value))
}

/// Browsers tell the time to a tenth of a millisecond, and a step of a small model takes less: a timed piece is as many steps as
/// take this long.
const LEAST_TIMED_MS: f64 = 2.0;
/// For a clock that stands still.
const MOST_TIMED_STEPS: usize = 10_000;

/// Milliseconds per step of this very job on `device`: the median of `samples` timed pieces after one that is not timed (it
/// compiles the kernels). `now_ms` is the caller's clock. The parameters are left as they are.
///
/// # Errors
/// As [`train`], except that a lost GPU is an error here.
pub async fn time_steps(
    model: &Model,
    parameters: &[f32],
    examples: &Examples,
    spec: &TrainSpec,
    device: &Device,
    samples: usize,
    now_ms: impl Fn() -> f64,
) -> Result<f64, EngineError> {
    let settings = Training::new(model, examples, spec).settings(parameters)?;
    let job = Job {
        model,
        examples,
        settings: &settings,
    };
    let order = job.order(1);
    let batches: Vec<&[u32]> = order.chunks(settings.step_len()).collect();
    let from = Checkpoint {
        parameters: parameters.to_vec(),
        state: settings.optimizer.fresh_state(parameters.len()),
        losses: Vec::new(),
    };
    #[cfg(feature = "gpu")]
    let mut newest = from.clone();
    let mut run = job.start(device, &from).await?;
    let mut times = Vec::with_capacity(samples);
    for sample in 0..=samples.max(1) {
        let start = now_ms();
        let steps = match &mut run {
            Run::Cpu(run) => {
                let mut steps = 0;
                while steps == 0 || (now_ms() - start < LEAST_TIMED_MS && steps < MOST_TIMED_STEPS) {
                    let batch = batches[(sample + steps) % batches.len()];
                    run.step(batch, settings.numbers(1, batches.len(), 0));
                    steps += 1;
                }
                steps
            }
            #[cfg(feature = "gpu")]
            Run::Gpu(run) => {
                run.begin_epoch(&order, 1, &settings, examples)?;
                let steps = batches.len().min(STEPS_UNDER_WAY);
                let first = run.submit(0..steps.min(STEPS_PER_SUBMISSION));
                let rest = (steps > first.steps).then(|| run.submit(first.steps..steps));
                run.wait(first, &mut newest).await?;
                if let Some(rest) = rest {
                    run.wait(rest, &mut newest).await?;
                }
                steps
            }
        };
        if sample > 0 {
            times.push((now_ms() - start) / steps as f64);
        }
    }
    Ok(median(&times))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use pollster::block_on;

    use super::{Device, median, time_steps};
    use crate::{Examples, LossSpec, Model, ModelSpec, OptimizerSpec, TrainSpec};

    /// A browser's clock tells tenths of a millisecond; here every look at it takes 50 µs, and a step none.
    #[test]
    fn a_step_that_is_shorter_than_a_tick_of_the_clock_is_timed_all_the_same() {
        let spec = ModelSpec::of([2]).dense(2).loss(LossSpec::SoftmaxCrossEntropy);
        let model = Model::new(&spec).unwrap();
        let examples = Examples::new(vec![1.0, 0.0, 0.0, 1.0], vec![0, 1], 2, 2).unwrap();
        let how = TrainSpec::new(
            1.try_into().unwrap(),
            1.try_into().unwrap(),
            OptimizerSpec::sgd(0.1),
        );
        let start = model.initial_parameters(1);
        let timed = |now: &dyn Fn() -> f64| {
            block_on(time_steps(&model, &start, &examples, &how, &Device::Cpu, 3, now)).unwrap()
        };
        let looks = Cell::new(0u32);
        let ms = timed(&|| {
            looks.set(looks.get() + 1);
            (f64::from(looks.get()) / 2.0).floor() / 10.0
        });
        assert!((0.045..0.065).contains(&ms), "{ms}");
        assert_eq!(
            timed(&|| 7.0),
            0.0,
            "a clock that stands still does not hold it for ever"
        );
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[5.0, 5.0, 1.0]), 5.0);
        assert_eq!(median(&[1.0, 4.0, 2.0, 3.0]), 3.0);
    }
}
