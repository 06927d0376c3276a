//! How fast a device's kernels are, and so which of them to use.

use super::{
    GpuDevice, Kernel, KernelTime, Kernels, OpBuffers, Planner, Work,
    batches::{BatchUniform, Batches},
    planner::Dispatch,
};
use crate::{EngineError, LayerSpec, LossSpec, Model, ModelSpec, SpecError, spec::Padding};

/// Milliseconds for each part of an operation, over one batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpTime {
    /// The output.
    pub forward_ms: f64,
    /// The gradient of the input.
    pub input_gradient_ms: f64,
    /// The gradient of the parameters; 0 where there are none.
    pub parameter_gradient_ms: f64,
}

/// Repetitions in one submission: enough to see more than the cost of submitting.
const REPEATS: usize = 16;
/// How often each kernel is timed.
const ROUNDS: usize = 4;
/// Milliseconds, compiling included, after which each kernel of a work is timed only once.
const BUDGET_MS: f64 = 150.0;
/// Milliseconds of work before an operation is timed: a device that was idle takes as long to run at full speed.
const WAKE_MS: f64 = 30.0;

/// What is timed: a layer over a batch, and the kernels that could be the fastest for it.
fn trials() -> [(Work, Vec<usize>, LayerSpec, usize, &'static [Kernel]); 3] {
    use Kernel::{Direct, Tile32, Tile64, Tile128};
    let convolution = LayerSpec::Conv2d {
        filters: 64,
        kernel: [5, 5],
        stride: [1, 1],
        padding: Padding::Same,
    };
    let dense = |units| LayerSpec::Dense { units };
    [
        (Work::Small, vec![784], dense(128), 64, &[Tile32, Tile64, Direct]),
        (
            Work::Large,
            vec![512],
            dense(1024),
            512,
            &[Tile64, Tile128, Direct],
        ),
        (
            Work::Convolution,
            vec![14, 14, 32],
            convolution,
            32,
            &[Tile32, Tile64, Direct],
        ),
    ]
}

/// A model of one layer.
fn model_of(input: Vec<usize>, layer: LayerSpec) -> Result<Model, SpecError> {
    Model::new(&ModelSpec {
        input,
        layers: vec![layer],
        loss: LossSpec::MeanSquaredError,
    })
}

impl GpuDevice {
    /// Times the kernels for products of matrices, once for the device, and uses the fastest from then on; the times, or none
    /// for a software adapter, where it is known. `now_ms` is the caller's clock.
    ///
    /// It takes some tens of milliseconds beside the time to compile what is timed.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`] and other faults of the device.
    pub async fn choose_kernels(&self, now_ms: impl Fn() -> f64) -> Result<Vec<KernelTime>, EngineError> {
        if self.is_software() {
            return Ok(Vec::new());
        }
        let known = self.kernel_times();
        if !known.is_empty() {
            return Ok(known);
        }
        let mut times = Vec::new();
        let start = now_ms();
        for (work, input, layer, rows, kernels) in trials() {
            let model = model_of(input, layer)?;
            let mut candidates = Vec::with_capacity(kernels.len());
            for &kernel in kernels {
                let planned = self.plan_ops(&model, rows, Kernels::all(kernel))?;
                planned.submit(self, &planned.ops[0].forward, 1).await?; // compiles
                candidates.push((kernel, planned, Timing::default()));
            }
            // In turns, so that a device that wakes up slowly, or is busy for a moment, is so for all.
            for _ in 0..ROUNDS {
                for (_, planned, timing) in &mut candidates {
                    planned
                        .sample(self, &planned.ops[0].forward, &now_ms, timing)
                        .await?;
                }
                if now_ms() - start > BUDGET_MS {
                    break;
                }
            }
            times.extend(candidates.iter().map(|(kernel, _, timing)| KernelTime {
                work,
                kernel: *kernel,
                ms: timing.ms(),
            }));
        }
        self.use_kernels(self.kernels().fastest(&times));
        self.keep_times(&times);
        Ok(times)
    }

    /// How long each operation of `model` takes with these kernels, over batches of so many `rows`, whatever numbers they hold.
    /// `now_ms` is the caller's clock. For finding out where the time goes.
    ///
    /// # Errors
    /// As in training.
    pub async fn time_ops(
        &self,
        model: &Model,
        rows: usize,
        kernels: Kernels,
        now_ms: impl Fn() -> f64,
    ) -> Result<Vec<OpTime>, EngineError> {
        let planned = self.plan_ops(model, rows, kernels)?;
        let mut times = Vec::with_capacity(planned.ops.len());
        for op in &planned.ops {
            let mut parts = [0.0; 3];
            let dispatches = [&op.forward, &op.input_gradient, &op.parameter_gradient];
            for (part, dispatches) in parts.iter_mut().zip(dispatches) {
                if dispatches.is_empty() {
                    continue;
                }
                let start = now_ms();
                while now_ms() - start < WAKE_MS {
                    planned.submit(self, dispatches, REPEATS).await?;
                }
                let mut timing = Timing::default();
                for _ in 0..ROUNDS {
                    planned.sample(self, dispatches, &now_ms, &mut timing).await?;
                }
                *part = timing.ms();
            }
            let [forward_ms, input_gradient_ms, parameter_gradient_ms] = parts;
            times.push(OpTime {
                forward_ms,
                input_gradient_ms,
                parameter_gradient_ms,
            });
        }
        Ok(times)
    }

    fn plan_ops(&self, model: &Model, rows: usize, kernels: Kernels) -> Result<Planned, EngineError> {
        self.begin_plan()?;
        let batches = Batches::new(self, 1)?;
        let batch = BatchUniform {
            rows: rows as u32,
            ..Default::default()
        };
        batches.write(self, std::iter::once(batch));
        let unused = self.upload("unused", &[0f32; 4])?;
        let mut planner = Planner::new(self, &batches.layout, rows, unused.clone(), unused);
        planner.kernels = kernels;
        let parameters = planner.fixed("parameters", model.parameter_count());
        let d_parameters = planner.fixed("gradient", model.parameter_count());
        let mut ops = Vec::new();
        for (index, node) in model.nodes().iter().enumerate() {
            let lens = model.value_lens();
            let [x, dx] = [0; 2].map(|_| planner.per_row("input", lens[node.input]));
            let [y, dy] = [0; 2].map(|_| planner.per_row("output", lens[index + 1]));
            let other = node.other.map(|other| planner.per_row("input", lens[other]));
            let kept = planner.per_row("kept", node.op.kept_len());
            let buffers = OpBuffers {
                x: &x,
                other: other.as_ref(),
                y: &y,
                dy: &dy,
                dx: Some(&dx),
                d_other: None,
                kept: &kept,
                shared: None,
                parameters: &parameters,
                d_parameters: &d_parameters,
            };
            node.op.plan_gpu(&mut planner, &buffers)?;
            ops.push(PlannedOp {
                forward: std::mem::take(&mut planner.forward),
                input_gradient: std::mem::take(&mut planner.input_gradient),
                parameter_gradient: std::mem::take(&mut planner.parameter_gradient),
            });
            planner.norms.clear();
            planner.scaled.clear();
        }
        planner.finish()?;
        Ok(Planned { batches, rows, ops })
    }
}

/// The shortest times of a submission of dispatches, and of one with [`REPEATS`] of them.
struct Timing {
    best_ms: [f64; 2],
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            best_ms: [f64::INFINITY; 2],
        }
    }
}

impl Timing {
    /// Milliseconds for the dispatches once: by how much the longer submission is longer. Clocks of browsers are coarse: a
    /// difference that is too small to be seen is less than one of their ticks.
    fn ms(&self) -> f64 {
        let [one, many] = self.best_ms;
        (many - one).max(0.0) / (REPEATS - 1) as f64
    }
}

struct Planned {
    batches: Batches,
    rows: usize,
    ops: Vec<PlannedOp>,
}

struct PlannedOp {
    forward: Vec<Dispatch>,
    input_gradient: Vec<Dispatch>,
    parameter_gradient: Vec<Dispatch>,
}

impl Planned {
    /// Times a submission of `dispatches`, and one with [`REPEATS`] of them.
    async fn sample(
        &self,
        gpu: &GpuDevice,
        dispatches: &[Dispatch],
        now_ms: &impl Fn() -> f64,
        timing: &mut Timing,
    ) -> Result<(), EngineError> {
        for (best, count) in timing.best_ms.iter_mut().zip([1, REPEATS]) {
            let start = now_ms();
            self.submit(gpu, dispatches, count).await?;
            *best = best.min(now_ms() - start);
        }
        Ok(())
    }

    async fn submit(
        &self,
        gpu: &GpuDevice,
        dispatches: &[Dispatch],
        count: usize,
    ) -> Result<(), EngineError> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for _ in 0..count {
                self.batches.record(&mut pass, 0, self.rows, dispatches);
            }
        }
        let pending = gpu.submit(encoder).done(gpu);
        gpu.wait(pending).await
    }
}
