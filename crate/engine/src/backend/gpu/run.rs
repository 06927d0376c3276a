//! Training on the GPU.

use std::ops::Range;

use super::{
    GpuDevice, OpBuffers, Planner,
    batches::{BatchUniform, Batches},
    device::Pending,
    planner::{Dispatch, NormTerm},
    snapshot::Snapshot,
};
use crate::{
    EngineError, Examples, Model,
    model::Flow,
    ops::{Reduction, accumulate, gather},
    optim::{
        StepNumbers, UpdateBuffers,
        lot::{LotBuffers, LotDispatches},
    },
    train::{Checkpoint, Settings},
};

/// Rows that one dispatch can have: WebGPU's limit of workgroups in one direction.
const MAX_ROWS: usize = 65_535;

/// Examples of a lot that are submitted at a time.
const LOT_PIECE: usize = 256;

/// Submissions that may be under way at a time: while the CPU hears of one, the GPU works on the next.
pub(crate) const SUBMISSIONS: usize = 2;

/// Bytes of a snapshot up to which there is one for every submission; larger ones are as much rarer, so that what they cost
/// stays a small part of a step.
const SNAPSHOT_BYTES: usize = 1 << 20;

/// Training on the GPU: all buffers, and the dispatches of a step.
pub(crate) struct GpuRun {
    gpu: GpuDevice,
    examples: usize,
    rows: usize,
    /// Batches of a step.
    accumulate: usize,
    parameters: wgpu::Buffer,
    state: wgpu::Buffer,
    /// Of losses, parameters and state.
    lens: [usize; 3],
    order: wgpu::Buffer,
    losses: wgpu::Buffer,
    batches: Batches,
    dispatches: Vec<Dispatch>,
    /// What adds the gradient of the first batch of a step, and of the others, to that of the step, where there are others.
    add: Option<[Dispatch; 2]>,
    update: Vec<Dispatch>,
    /// The share of each batch of the epoch in its step's loss.
    shares: Vec<f32>,
    /// The noise of a step, where training is private for each example.
    noise: Option<wgpu::Buffer>,
    /// One for each submission that may be under way; none where there is no room for them.
    snapshots: Vec<Snapshot>,
    /// Submissions from one snapshot to the next.
    snapshot_every: usize,
    submitted: usize,
}

/// Steps that the GPU has been given.
pub(crate) struct Submission {
    /// Steps of the epoch that are done when it is.
    pub steps: usize,
    pending: Pending,
    snapshot: Option<Snapshot>,
}

/// What one operation plans for the way back.
#[derive(Default)]
struct OpPlan {
    input_gradient: Vec<Dispatch>,
    parameter_gradient: Vec<Dispatch>,
    norms: Vec<NormTerm>,
    scaled: Vec<(wgpu::Buffer, usize)>,
}

/// The dispatches of the way back, in the order that `ops` describes.
fn backward(planner: &mut Planner<'_>, planned: Vec<OpPlan>, clip_l2: Option<f32>) -> Vec<Dispatch> {
    let mut first = Vec::new();
    let mut last = Vec::new();
    let (mut norms, mut scaled) = (Vec::new(), Vec::new());
    for op in planned.into_iter().rev() {
        first.extend(op.input_gradient);
        let gradient = if clip_l2.is_some() { &mut last } else { &mut first };
        gradient.extend(op.parameter_gradient);
        norms.extend(op.norms);
        scaled.extend(op.scaled);
    }
    if let Some(clip_l2) = clip_l2 {
        first.extend(planner.clip(clip_l2, &norms, &scaled));
    }
    first.extend(last);
    first
}

impl GpuRun {
    /// Moves everything to the device and plans a step. `state` is the optimiser's.
    pub fn new(
        gpu: &GpuDevice,
        model: &Model,
        examples: &Examples,
        settings: &Settings,
        parameters: &[f32],
        state: &[f32],
    ) -> Result<Self, EngineError> {
        gpu.begin_plan()?;
        // Private training has no examples, perhaps, and needs the numbers of only so many batches at a time.
        let len = match settings.private {
            Some(_) => examples.len().clamp(1, LOT_PIECE),
            None => settings.visits(examples.len()),
        };
        let rows = settings.batch.min(len);
        if rows > MAX_ROWS {
            let (needed, limit) = (rows as u64, MAX_ROWS as u64);
            return Err(EngineError::GpuLimit {
                what: "a batch (in rows, not bytes)",
                needed,
                limit,
            });
        }
        let batch_count = len.div_ceil(rows);
        let accumulate = settings.accumulate.min(batch_count);
        let d = model.parameter_count();
        let state_len = state.len();

        let data_x = gpu.upload("local examples", examples.x())?;
        let data_y = gpu.upload("local labels", examples.y())?;
        let order = gpu.upload("order", &vec![0u32; settings.visits(examples.len())])?;
        let losses_len = settings.private.map_or(batch_count, |private| private.steps);
        let losses = gpu.upload("losses", &vec![0f32; losses_len])?;
        let parameters = gpu.upload("parameters", parameters)?;
        let state_buffer = gpu.upload("optimiser state", state)?;
        let d_parameters = gpu.upload("gradient", &vec![0f32; d])?;
        let labels = gpu.upload("batch labels", &vec![0u32; rows * examples.targets_per_example()])?;

        let batches = Batches::new(gpu, batch_count)?;
        let mut planner = Planner::new(gpu, &batches.layout, rows, labels, losses.clone());
        let values: Vec<_> = model
            .value_lens()
            .iter()
            .map(|&len| planner.per_row("values", len))
            .collect();
        let plan = model.gradient_plan(settings);
        let slots: Vec<_> = plan
            .slot_lens
            .iter()
            .map(|&len| planner.per_row("value gradients", len))
            .collect();
        let added = plan.added_lens.map(|len| planner.per_row("added gradients", len));
        let d_value = |value: usize| plan.slot[value].map(|slot| &slots[slot]);
        gather::plan(
            &mut planner,
            [&data_x, &data_y, &order],
            &values[0],
            model.features(),
            model.loss().targets_per_example(),
        );
        let last = model.nodes().len();
        // A model without parameters has nothing to learn, but still a loss.
        let unused = planner.per_row("value gradients", model.value_lens()[last]);
        // For each operation: gradients of inputs, of parameters, and what clipping needs.
        let mut planned = Vec::with_capacity(last);
        for (index, node) in model.nodes().iter().enumerate() {
            let flows = plan.flows[index];
            let target = |which: usize, value: Option<usize>| match flows[which] {
                Flow::Unneeded => None,
                Flow::Written => value.and_then(d_value),
                Flow::Added => Some(&added[which]),
            };
            let kept = planner.per_row("kept", node.op.kept_len());
            let buffers = OpBuffers {
                x: &values[node.input],
                other: node.other.map(|other| &values[other]),
                y: &values[index + 1],
                dy: d_value(index + 1).unwrap_or(&unused),
                dx: target(0, Some(node.input)),
                d_other: target(1, node.other),
                kept: &kept,
                shared: node.shares.and_then(|of| {
                    let input = &values[model.nodes()[of].input];
                    d_value(of + 1).map(|d_output| [input, d_output])
                }),
                parameters: &parameters,
                d_parameters: &d_parameters,
            };
            node.op.plan_gpu(&mut planner, &buffers)?;
            for (which, value) in [Some(node.input), node.other].into_iter().enumerate() {
                if let (Flow::Added, Some(value)) = (flows[which], value)
                    && let Some(sum) = d_value(value)
                {
                    accumulate::plan(&mut planner, &added[which], sum, model.value_lens()[value]);
                }
            }
            let own = OpPlan {
                input_gradient: std::mem::take(&mut planner.input_gradient),
                parameter_gradient: std::mem::take(&mut planner.parameter_gradient),
                norms: std::mem::take(&mut planner.norms),
                scaled: std::mem::take(&mut planner.scaled),
            };
            planned.push(if plan.slot[index + 1].is_none() {
                OpPlan::default()
            } else if plan.learns[index] {
                own
            } else {
                OpPlan {
                    input_gradient: own.input_gradient,
                    ..OpPlan::default()
                }
            });
        }
        let reduction = Reduction::of(settings.clip_examples_l2);
        let d_outputs = d_value(last).unwrap_or(&unused);
        model
            .loss()
            .plan_gpu(&mut planner, &values[last], d_outputs, reduction)?;
        planner.backward = backward(&mut planner, planned, settings.clip_examples_l2);
        let sums = accumulate > 1 || settings.private.is_some();
        let sum = sums.then(|| planner.fixed("gradient of a step", d));
        let add = sum
            .as_ref()
            .filter(|_| accumulate > 1)
            .map(|sum| accumulate::shares(&mut planner, &d_parameters, sum, d));
        let lot = match (&settings.private, &sum) {
            (Some(private), Some(mean)) => {
                let noise = gpu.upload("noise", &vec![0i32; d])?;
                let sums = gpu.upload("sums of losses", &vec![0f32; losses_len])?;
                let buffers = LotBuffers {
                    gradient: &d_parameters,
                    losses: &losses,
                    sums: &sums,
                    noise: &noise,
                    mean,
                };
                let LotDispatches { count, noised } = private.lot.plan(&mut planner, d, &buffers);
                planner.backward.extend(count);
                planner.update.push(noised);
                Some((noise, sums))
            }
            _ => None,
        };
        let update = UpdateBuffers {
            gradient: sum.as_ref().unwrap_or(&d_parameters),
            parameters: &parameters,
            state: &state_buffer,
        };
        settings.adjust.plan(&mut planner, d, &update)?;
        for range in &settings.trainable {
            settings.optimizer.plan(&mut planner, d, range, &update);
        }
        let (dispatches, update) = planner.finish()?;
        // Without room for it a loss of the device costs the epoch, no more.
        let snapshots = (0..SUBMISSIONS).map(|_| Snapshot::new(gpu, losses_len + d + state_len));
        let snapshots = snapshots.collect::<Result<_, _>>().unwrap_or_default();
        gpu.check()?;
        let (gpu, examples, lens) = (
            gpu.clone(),
            settings.visits(examples.len()),
            [losses_len, d, state_len],
        );
        // Of private training the sums of the losses are read.
        let (noise, losses) = lot.map_or((None, losses), |(noise, sums)| (Some(noise), sums));
        Ok(Self {
            gpu,
            examples,
            rows,
            accumulate,
            parameters,
            state: state_buffer,
            lens,
            order,
            losses,
            batches,
            dispatches,
            add,
            update,
            shares: Vec::new(),
            noise,
            snapshots,
            snapshot_every: (4 * (d + state_len)).div_ceil(SNAPSHOT_BYTES).max(1),
            submitted: 0,
        })
    }

    /// Sends the order of `epoch`, from 1, and the numbers of its batches.
    pub fn begin_epoch(
        &mut self,
        order: &[u32],
        epoch: u32,
        settings: &Settings,
        examples: &Examples,
    ) -> Result<(), EngineError> {
        self.gpu.check()?;
        self.gpu
            .queue
            .write_buffer(&self.order, 0, bytemuck::cast_slice(order));
        let steps = order.chunks(settings.step_len());
        self.shares = if self.accumulate > 1 {
            steps
                .clone()
                .flat_map(|step| settings.shares(examples, step))
                .collect()
        } else {
            vec![1.0; self.batch_count()]
        };
        let mut uniforms = (0..self.batch_count()).map(|index| {
            let numbers = settings.numbers(epoch, steps.len(), index / self.accumulate);
            BatchUniform {
                rows: self.rows_of(index) as u32,
                first: (index * self.rows) as u32,
                index: index as u32,
                key: Settings::batch_key(numbers.key, index % self.accumulate),
                learning_rate: numbers.learning_rate,
                own: numbers.own,
                share: self.shares[index],
            }
        });
        self.batches.write(&self.gpu, &mut uniforms);
        Ok(())
    }

    fn batch_count(&self) -> usize {
        self.examples.div_ceil(self.rows)
    }

    /// Examples in batch `index` of the epoch.
    fn rows_of(&self, index: usize) -> usize {
        self.rows.min(self.examples - index * self.rows)
    }

    /// The batches of `step`.
    fn batches_of(&self, step: usize) -> Range<usize> {
        let first = step * self.accumulate;
        first..(first + self.accumulate).min(self.batch_count())
    }

    /// Records a step of the epoch.
    fn record(&self, pass: &mut wgpu::ComputePass<'_>, step: usize) {
        for (at, batch) in self.batches_of(step).enumerate() {
            let rows = self.rows_of(batch);
            let mut record = |dispatches: &[Dispatch]| self.batches.record(pass, batch, rows, dispatches);
            record(&self.dispatches);
            if let Some(add) = &self.add {
                record(std::slice::from_ref(&add[at.min(1)]));
            }
            if batch + 1 == self.batches_of(step).end {
                record(&self.update);
            }
        }
    }

    /// Does the first step of the epoch `count` times, for the time that it takes.
    pub async fn repeat(&self, count: usize) -> Result<(), EngineError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..count).for_each(|_| self.record(&mut pass, 0));
        }
        let pending = self.gpu.submit(encoder).done(&self.gpu);
        self.gpu.wait(pending).await
    }

    /// Records and submits `steps` of the epoch.
    pub fn submit(&mut self, steps: Range<usize>) -> Submission {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            steps.clone().for_each(|step| self.record(&mut pass, step));
        }
        self.submitted += 1;
        let is_last = self.batches_of(steps.end - 1).end == self.batch_count();
        // That of the submission before the last, which has been waited for.
        let snapshot = self
            .snapshots
            .get(self.submitted % SUBMISSIONS)
            .filter(|_| is_last || self.submitted.is_multiple_of(self.snapshot_every))
            .cloned();
        if let Some(snapshot) = &snapshot {
            snapshot.record(&mut encoder, &self.sources());
        }
        let submitted = self.gpu.submit(encoder);
        let pending = match &snapshot {
            Some(snapshot) => submitted.mapped(snapshot.map()),
            None => submitted.done(&self.gpu),
        };
        Submission {
            steps: steps.end,
            pending,
            snapshot,
        }
    }

    /// Waits until a submission is done. Moves `checkpoint` to the newest state that is known by then.
    pub async fn wait(&self, submission: Submission, checkpoint: &mut Checkpoint) -> Result<(), EngineError> {
        self.gpu.wait(submission.pending).await?;
        match submission.snapshot {
            Some(snapshot) => snapshot.take(|bytes| self.keep(bytes, submission.steps, checkpoint)),
            None => Ok(()),
        }
    }

    /// The losses of the batches, the parameters and the optimiser's state, with their lengths.
    fn sources(&self) -> [(&wgpu::Buffer, usize); 3] {
        let [losses, d, state] = self.lens;
        [
            (&self.losses, losses),
            (&self.parameters, d),
            (&self.state, state),
        ]
    }

    /// Moves the parameters and the state of `checkpoint` to what the sources were; the losses among them.
    fn keep_state(&self, bytes: &[u8], checkpoint: &mut Checkpoint) -> Vec<f32> {
        let (losses, rest) = bytes.split_at(4 * self.lens[0]);
        let (parameters, state) = rest.split_at(4 * self.lens[1]);
        bytemuck::cast_slice_mut(&mut checkpoint.parameters).copy_from_slice(parameters);
        bytemuck::cast_slice_mut(&mut checkpoint.state).copy_from_slice(&state[..4 * self.lens[2]]);
        bytemuck::pod_collect_to_vec(losses)
    }

    /// Moves `checkpoint` to what the sources were after `steps` of the epoch.
    fn keep(&self, bytes: &[u8], steps: usize, checkpoint: &mut Checkpoint) {
        let losses = self.keep_state(bytes, checkpoint);
        let loss = |step| {
            let batches = self.batches_of(step);
            batches
                .map(|batch| self.shares[batch] * losses[batch])
                .sum::<f32>()
        };
        checkpoint.losses = (0..steps).map(loss).collect();
    }

    /// Moves `checkpoint` to the end of the epoch of so many steps: where the newest snapshot is not from there, by a read-back.
    pub async fn end_epoch(&self, steps: usize, checkpoint: &mut Checkpoint) -> Result<(), EngineError> {
        if checkpoint.losses.len() < steps {
            let read = self.gpu.read(&self.sources()).await?;
            self.keep(bytemuck::cast_slice(&read), steps, checkpoint);
        }
        Ok(())
    }

    /// Records and submits step `step` of an epoch of private training, from 0, on the examples of `lot`, of which there may be none,
    /// with `noise` on what they add up to. Each is computed alone, so that nothing of it can depend on who else is in the lot.
    pub fn submit_private(
        &mut self,
        step: usize,
        lot: &[u32],
        noise: &[i32],
        numbers: StepNumbers,
    ) -> Result<Submission, EngineError> {
        self.gpu.check()?;
        // What is written here is there for what is submitted next, and no earlier submission sees it.
        let queue = &self.gpu.queue;
        queue.write_buffer(&self.order, 0, bytemuck::cast_slice(lot));
        if let Some(buffer) = &self.noise {
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(noise));
        }
        if step == 0 {
            let none = vec![0f32; self.lens[0]];
            queue.write_buffer(&self.losses, 0, bytemuck::cast_slice(&none));
        }
        let share = 1.0 / lot.len().max(1) as f32;
        // An empty lot is one piece without examples.
        let mut first = 0;
        let submitted = loop {
            let count = (lot.len() - first).min(LOT_PIECE);
            let is_last = first + count == lot.len();
            let mut uniforms = (0..count.max(1)).map(|at| BatchUniform {
                rows: 1,
                first: (first + at) as u32,
                index: step as u32,
                key: numbers.key,
                learning_rate: numbers.learning_rate,
                own: numbers.own,
                share,
            });
            self.batches.write(&self.gpu, &mut uniforms);
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                (0..count).for_each(|at| self.batches.record(&mut pass, at, 1, &self.dispatches));
                if is_last {
                    self.batches.record(&mut pass, 0, 1, &self.update);
                }
            }
            let submitted = self.gpu.submit(encoder);
            if is_last {
                break submitted;
            }
            first += count;
        };
        Ok(Submission {
            steps: step + 1,
            pending: submitted.done(&self.gpu),
            snapshot: None,
        })
    }

    /// Moves the parameters and the state of `checkpoint` to the end of an epoch of private training; the losses of its steps.
    pub async fn end_private_epoch(&self, checkpoint: &mut Checkpoint) -> Result<Vec<f32>, EngineError> {
        let read = self.gpu.read(&self.sources()).await?;
        Ok(self.keep_state(bytemuck::cast_slice(&read), checkpoint))
    }
}
