//! How fast a device's kernels are, and so which of them to use.

use super::{
    GpuDevice, GpuRun, Kernel, KernelTime, Kernels, OpBuffers, Planner, Work,
    batches::{BatchUniform, Batches},
    planner::Dispatch,
};
use crate::{EngineError, Examples, LayerSpec, LossSpec, Model, ModelSpec, spec::Padding, train::Settings};

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
const REPEATS: usize = 8;
/// How often each kernel is timed.
const ROUNDS: usize = 4;
/// Milliseconds, compiling included, after which each kernel of a work is timed only once.
pub(super) const BUDGET_MS: f64 = 150.0;
/// Milliseconds of work before an operation is timed: a device that was idle takes as long to run at full speed.
const WAKE_MS: f64 = 30.0;

/// What is timed: a layer, the shape of its input, and the examples of a batch.
fn trials() -> [(Work, Vec<usize>, LayerSpec, usize); 3] {
    let convolution = LayerSpec::Conv2d {
        filters: 32,
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::Same,
    };
    let dense = |units| LayerSpec::Dense { units };
    [
        (Work::Small, vec![784], dense(128), 64),
        (Work::Large, vec![512], dense(1024), 256),
        (Work::Convolution, vec![14, 14, 32], convolution, 16),
    ]
}

impl GpuDevice {
    /// Times the kernels for products of matrices once for the device, and uses the fastest from then on, and sums by subgroups where there
    /// are any; the times, or none for a software adapter, where it is known. `now_ms` is the caller's clock.
    ///
    /// What is timed is a step of training of one layer. It takes some tens of milliseconds beside the time to compile it.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`] and other faults of the device.
    pub async fn choose_kernels(&self, now_ms: &dyn Fn() -> f64) -> Result<Vec<KernelTime>, EngineError> {
        if self.is_software() {
            return Ok(Vec::new());
        }
        let known = self.kernel_times();
        if !known.is_empty() {
            return Ok(known);
        }
        let times = self.time_kernels(now_ms).await?;
        self.use_kernels(Kernels {
            subgroups: self.sums_by_subgroups().await?,
            ..self.kernels().fastest(&times)
        });
        self.keep_times(&times);
        Ok(times)
    }

    /// Times every kernel for every kind of work, whatever the device, and leaves the choice as it is. `now_ms` is the caller's
    /// clock.
    ///
    /// # Errors
    /// As [`GpuDevice::choose_kernels`].
    pub async fn time_kernels(&self, now_ms: &dyn Fn() -> f64) -> Result<Vec<KernelTime>, EngineError> {
        let chosen = self.kernels();
        let times = self.try_kernels(now_ms).await;
        self.use_kernels(chosen);
        times
    }

    async fn try_kernels(&self, now_ms: &dyn Fn() -> f64) -> Result<Vec<KernelTime>, EngineError> {
        let mut times = Vec::new();
        let until = now_ms() + BUDGET_MS;
        for (work, input, layer, rows) in trials() {
            let variants = Kernel::ALL.map(Kernels::all);
            let found = self
                .try_layer((input, layer, rows), &variants, until, now_ms)
                .await?;
            times.extend(Kernel::ALL.into_iter().zip(found).map(|(kernel, ms)| KernelTime {
                work,
                kernel,
                ms,
            }));
        }
        Ok(times)
    }

    /// Milliseconds for a step of training of one layer, given the shape of its input and the examples of a batch, with each of the
    /// `variants`; each of which is timed only once where it is later than `until`. Leaves the last one in use.
    async fn try_layer(
        &self,
        (input, layer, rows): (Vec<usize>, LayerSpec, usize),
        variants: &[Kernels],
        until: f64,
        now_ms: &dyn Fn() -> f64,
    ) -> Result<Vec<f64>, EngineError> {
        let model = Model::new(&ModelSpec {
            input,
            layers: vec![layer],
            loss: LossSpec::MeanSquaredError,
        })?;
        let outputs = model.output_shape().iter().product();
        let examples = Examples::with_values(
            vec![0.0; rows * model.features()],
            &vec![0.0; rows * outputs],
            model.features(),
            outputs,
        )?;
        let settings = Settings::gradient_only(&model, None);
        let parameters = vec![0.0; model.parameter_count()];
        let mut runs = Vec::with_capacity(variants.len());
        for &kernels in variants {
            self.use_kernels(kernels);
            let mut run = GpuRun::new(self, &model, &examples, &settings, &parameters, &[])?;
            run.begin_epoch(&vec![0; rows], 1, &settings, &examples)?;
            self.compiled().await;
            run.repeat(1).await?; // what is left of compiling
            runs.push((run, [f64::INFINITY; 2]));
        }
        // In turns, so that a device that wakes up slowly, or is busy for a moment, is so for all.
        for round in 1.. {
            for (run, best) in &mut runs {
                for (best, count) in best.iter_mut().zip([1, REPEATS]) {
                    let start = now_ms();
                    run.repeat(count).await?;
                    *best = best.min(now_ms() - start);
                }
            }
            // Longer where the device was so busy that more work seemed to take less time.
            let is_seen = runs.iter().all(|(_, best)| once(*best) > 0.0);
            let until = if is_seen { until } else { until + BUDGET_MS };
            if now_ms() > until || (is_seen && round >= ROUNDS) {
                break;
            }
        }
        Ok(runs.iter().map(|(_, best)| once(*best)).collect())
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
        self.compiled().await;
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
                let mut best = [f64::INFINITY; 2];
                for _ in 0..ROUNDS {
                    for (best, count) in best.iter_mut().zip([1, REPEATS]) {
                        let start = now_ms();
                        planned.submit(self, dispatches, count).await?;
                        *best = best.min(now_ms() - start);
                    }
                }
                *part = once(best);
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
        batches.write(self, &mut std::iter::once(batch));
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

/// Milliseconds for something once, from the shortest times of a submission with it and of one with [`REPEATS`] of it: by how
/// much the longer one is longer. Clocks of browsers are coarse: a difference that is too small to be seen is less than one of
/// their ticks.
fn once([one, many]: [f64; 2]) -> f64 {
    (many - one).max(0.0) / (REPEATS - 1) as f64
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
