//! Training on the GPU.

use std::ops::Range;

use super::{
    GpuDevice, OpBuffers, Planner,
    batches::{BatchUniform, Batches},
    planner::{Dispatch, NormTerm},
};
use crate::{
    EngineError, Examples, Model,
    model::Flow,
    ops::{Reduction, accumulate, gather},
    optim::{StepNumbers, UpdateBuffers},
    train::Settings,
};

/// Rows that one dispatch can have: WebGPU's limit of workgroups in one direction.
const MAX_ROWS: usize = 65_535;

/// Training on the GPU: all buffers, and the dispatches of a step.
pub(crate) struct GpuRun {
    gpu: GpuDevice,
    examples: usize,
    rows: usize,
    parameters: wgpu::Buffer,
    state: wgpu::Buffer,
    lens: [usize; 2],
    order: wgpu::Buffer,
    losses: wgpu::Buffer,
    batches: Batches,
    dispatches: Vec<Dispatch>,
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
        let rows = settings.batch.min(examples.len());
        if rows > MAX_ROWS {
            let (needed, limit) = (rows as u64, MAX_ROWS as u64);
            return Err(EngineError::GpuLimit {
                what: "a batch (in rows, not bytes)",
                needed,
                limit,
            });
        }
        let steps = examples.len().div_ceil(rows);
        let d = model.parameter_count();
        let state_len = state.len();

        let data_x = gpu.upload("local examples", examples.x())?;
        let data_y = gpu.upload("local labels", examples.y())?;
        let order = gpu.upload("order", &vec![0u32; examples.len()])?;
        let losses = gpu.upload("losses", &vec![0f32; steps])?;
        let parameters = gpu.upload("parameters", parameters)?;
        let state_buffer = gpu.upload("optimiser state", state)?;
        let d_parameters = gpu.upload("gradient", &vec![0f32; d])?;
        let labels = gpu.upload("batch labels", &vec![0u32; rows * examples.targets_per_example()])?;

        let batches = Batches::new(gpu, steps)?;
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
        let update = UpdateBuffers {
            gradient: &d_parameters,
            parameters: &parameters,
            state: &state_buffer,
        };
        settings.adjust.plan(&mut planner, d, &update)?;
        for range in &settings.trainable {
            settings.optimizer.plan(&mut planner, d, range, &update);
        }
        let dispatches = planner.finish()?;
        gpu.check()?;
        let (gpu, examples, lens) = (gpu.clone(), examples.len(), [d, state_len]);
        Ok(Self {
            gpu,
            examples,
            rows,
            parameters,
            state: state_buffer,
            lens,
            order,
            losses,
            batches,
            dispatches,
        })
    }

    /// Sends an epoch's order, and the numbers of its steps, which `numbers` gives for each step from 0.
    pub fn begin_epoch(
        &self,
        order: &[u32],
        numbers: impl Fn(usize) -> StepNumbers,
    ) -> Result<(), EngineError> {
        self.gpu.check()?;
        self.gpu
            .queue
            .write_buffer(&self.order, 0, bytemuck::cast_slice(order));
        let steps = self.examples.div_ceil(self.rows);
        let uniforms = (0..steps).map(|index| {
            let numbers = numbers(index);
            BatchUniform {
                rows: self.rows_of(index) as u32,
                first: (index * self.rows) as u32,
                index: index as u32,
                key: numbers.key,
                learning_rate: numbers.learning_rate,
                own: numbers.own,
                padding: 0,
            }
        });
        self.batches.write(&self.gpu, uniforms);
        Ok(())
    }

    /// Examples in the batch of `step`.
    fn rows_of(&self, step: usize) -> usize {
        self.rows.min(self.examples - step * self.rows)
    }

    /// Records and submits `steps` of the epoch, and waits until they are done.
    pub async fn steps(&self, steps: Range<usize>) -> Result<(), EngineError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for step in steps {
                self.batches
                    .record(&mut pass, step, self.rows_of(step), &self.dispatches);
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.finished().await
    }

    /// The loss of each step of the epoch, the parameters, and the optimiser's state: the epoch's one read-back.
    pub async fn end_epoch(&self) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>), EngineError> {
        let steps = self.examples.div_ceil(self.rows);
        let [d, state] = self.lens;
        let sources = [(&self.losses, steps), (&self.parameters, d), (&self.state, state)];
        let mut read = self.gpu.read(&sources).await?.into_iter();
        let mut next = || read.next().unwrap_or_default();
        Ok((next(), next(), next()))
    }
}
