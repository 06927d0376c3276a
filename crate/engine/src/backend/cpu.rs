//! The CPU back end: SIMD (AVX natively, SIMD128 in wasm), deterministic.

mod private;

use std::ops::Range;

pub(crate) use private::ROWS as PRIVATE_ROWS;

use super::vector;
use crate::{
    EngineError, Examples, Model,
    model::{Flow, GradientPlan, Node},
    ops::{
        Forward, InputGradient, LossInput, ParameterGradient, Reduction, SquaredNorms, gather::gather_cpu,
    },
    optim::{StepNumbers, lot::Totals},
    train::Settings,
};

/// The values of a forward pass: one buffer for the output of each node, `[rows, value length]`, and one for what it keeps.
pub(crate) struct CpuPass {
    outputs: Vec<Vec<f32>>,
    kept: Vec<Vec<f32>>,
    /// Whether no bit of an example may depend on the others of its batch.
    apart: bool,
}

impl CpuPass {
    /// Room for batches of up to `rows` examples.
    pub fn new(model: &Model, rows: usize) -> Self {
        let nodes = model.nodes().iter();
        Self {
            outputs: model.value_lens()[1..]
                .iter()
                .map(|len| vec![0.0; len * rows])
                .collect(),
            kept: nodes.map(|node| vec![0.0; node.op.kept_len() * rows]).collect(),
            apart: false,
        }
    }

    /// Runs the model on `x`, `[rows, features]`; the last value, `[rows, outputs]`.
    pub fn forward<'a>(
        &'a mut self,
        model: &Model,
        parameters: &[f32],
        x: &'a [f32],
        rows: usize,
        step_key: Option<u32>,
    ) -> &'a [f32] {
        let lens = model.value_lens();
        for (index, node) in model.nodes().iter().enumerate() {
            let mut y = std::mem::take(&mut self.outputs[index]);
            let mut kept = std::mem::take(&mut self.kept[index]);
            let (step, mut row) = (self.step(node, rows), 0);
            while row < rows {
                let rows = row..row + step;
                row += step;
                node.op.forward_cpu(Forward {
                    rows: rows.len(),
                    x: self.value(model, x, node.input, &rows),
                    other: node.other.map_or(&[], |other| self.value(model, x, other, &rows)),
                    parameters,
                    y: &mut y[of(&rows, lens[index + 1])],
                    kept: &mut kept[of(&rows, node.op.kept_len())],
                    step_key,
                    apart: self.apart,
                });
            }
            self.outputs[index] = y;
            self.kept[index] = kept;
        }
        self.value(model, x, self.outputs.len(), &(0..rows))
    }

    /// Value `index` of the last forward pass on `x`, of these examples.
    fn value<'a>(&'a self, model: &Model, x: &'a [f32], index: usize, rows: &Range<usize>) -> &'a [f32] {
        let value = index.checked_sub(1).map_or(x, |output| &self.outputs[output]);
        &value[of(rows, model.value_lens()[index])]
    }

    /// How many of the examples of a batch of `rows` the operation of `node` is asked for at once.
    fn step(&self, node: &Node, rows: usize) -> usize {
        if self.apart && node.op.outer().is_none() {
            1
        } else {
            rows
        }
    }
}

/// The place of these rows, each of `len` numbers.
const fn of(rows: &Range<usize>, len: usize) -> Range<usize> {
    rows.start * len..rows.end * len
}

/// The buffers of a backward pass.
struct CpuGradients {
    plan: GradientPlan,
    slots: Vec<Vec<f32>>,
    added: [Vec<f32>; 2],
}

impl CpuGradients {
    fn new(model: &Model, rows: usize, settings: &Settings) -> Self {
        let plan = model.gradient_plan(settings);
        Self {
            slots: plan.slot_lens.iter().map(|len| vec![0.0; len * rows]).collect(),
            added: plan.added_lens.map(|len| vec![0.0; len * rows]),
            plan,
        }
    }

    /// Takes the gradient of `value` out, so that others can be borrowed beside it; empty where there is none.
    fn take(&mut self, value: usize) -> Vec<f32> {
        self.plan.slot[value].map_or_else(Vec::new, |slot| std::mem::take(&mut self.slots[slot]))
    }

    /// The gradient of `value`, which has one.
    fn of(&self, value: usize) -> &[f32] {
        self.plan.slot[value].map_or(&[], |slot| &self.slots[slot])
    }

    fn of_mut(&mut self, value: usize) -> &mut [f32] {
        self.plan.slot[value].map_or(&mut [], |slot| &mut self.slots[slot])
    }

    fn put_back(&mut self, value: usize, gradient: Vec<f32>) {
        if let Some(slot) = self.plan.slot[value] {
            self.slots[slot] = gradient;
        }
    }
}

/// Training on the CPU: parameters, gradient, optimiser state and the buffers of a step.
pub(crate) struct CpuRun<'m> {
    model: &'m Model,
    examples: &'m Examples,
    settings: &'m Settings,
    parameters: Vec<f32>,
    state: Vec<f32>,
    gradient: Vec<f32>,
    /// The sum over the batches of a step, where it has more than one.
    accumulated: Vec<f32>,
    /// What the examples of a lot add up to, where training is private for each of them.
    totals: Totals,
    pass: CpuPass,
    gradients: CpuGradients,
    /// The squared norm of each example's gradient, where they are clipped.
    norms: Vec<f64>,
    x: Vec<f32>,
    y: Vec<u32>,
}

impl<'m> CpuRun<'m> {
    /// Starts from `parameters`; `state` is the optimiser's.
    pub fn new(
        model: &'m Model,
        examples: &'m Examples,
        settings: &'m Settings,
        parameters: Vec<f32>,
        state: Vec<f32>,
    ) -> Self {
        let rows = settings.rows(examples.len());
        Self {
            gradient: vec![0.0; parameters.len()],
            accumulated: Vec::new(),
            totals: Totals::default(),
            pass: CpuPass {
                apart: settings.private.is_some(),
                ..CpuPass::new(model, rows)
            },
            gradients: CpuGradients::new(model, rows, settings),
            norms: Vec::new(),
            x: Vec::with_capacity(rows * model.features()),
            y: Vec::with_capacity(rows * examples.targets_per_example()),
            model,
            examples,
            settings,
            parameters,
            state,
        }
    }

    /// One step on the examples at `indices`, a batch at a time; the mean loss before it.
    pub fn step(&mut self, indices: &[u32], numbers: StepNumbers) -> f32 {
        let settings = self.settings;
        let loss = if indices.len() <= settings.batch {
            self.gradient(indices, numbers.key)
        } else {
            self.accumulated_gradient(indices, numbers.key)
        };
        self.update(numbers);
        loss
    }

    /// Moves the parameters by the gradient.
    fn update(&mut self, numbers: StepNumbers) {
        let settings = self.settings;
        settings.adjust.add_cpu(&self.parameters, &mut self.gradient);
        for range in &settings.trainable {
            let (parameters, state) = (&mut self.parameters, &mut self.state);
            settings
                .optimizer
                .update_cpu(numbers, range.clone(), parameters, &self.gradient, state);
        }
    }

    /// As [`CpuRun::gradient`], a batch at a time; `key` is that of the first.
    fn accumulated_gradient(&mut self, indices: &[u32], key: u32) -> f32 {
        let settings = self.settings;
        let mut sum = std::mem::take(&mut self.accumulated);
        sum.clear();
        sum.resize(self.gradient.len(), 0.0);
        let mut loss = 0.0;
        let shares = settings.shares(self.examples, indices);
        for (at, (batch, share)) in indices.chunks(settings.batch).zip(shares).enumerate() {
            loss += share * self.gradient(batch, Settings::batch_key(key, at));
            vector::add_scaled(&mut sum, &self.gradient, share);
        }
        self.accumulated = std::mem::replace(&mut self.gradient, sum);
        loss
    }

    /// Runs the model on the examples at `indices`, and gives `each` the mean loss of all of them, or, where their bits are apart, of each;
    /// with the gradients of their outputs.
    fn loss(&mut self, indices: &[u32], step_key: u32, each: &mut dyn FnMut(f32)) {
        gather_cpu(self.examples, indices, &mut self.x, &mut self.y);
        let rows = indices.len();
        let step = if self.pass.apart { 1 } else { rows };
        let outputs = self
            .pass
            .forward(self.model, &self.parameters, &self.x, rows, Some(step_key));
        let reduction = Reduction::of(self.settings.clip_examples_l2);
        let last = self.model.nodes().len();
        let mut d_outputs = self.gradients.take(last);
        // A model without parameters has nothing to learn, but still a loss.
        d_outputs.resize(d_outputs.len().max(outputs.len()), 0.0);
        let output_len = self.model.value_lens()[last];
        let target_len = self.examples.targets_per_example();
        let mut row = 0;
        while row < rows {
            let rows = row..row + step;
            row += step;
            let batch = LossInput {
                rows: step,
                outputs: &outputs[of(&rows, output_len)],
                targets: &self.y[of(&rows, target_len)],
            };
            let d_outputs = &mut d_outputs[of(&rows, output_len)];
            each(self.model.loss().loss_cpu(batch, reduction, d_outputs));
        }
        self.gradients.put_back(last, d_outputs);
    }

    /// Computes the mean loss of the examples at `indices` and its gradient.
    fn gradient(&mut self, indices: &[u32], step_key: u32) -> f32 {
        let (rows, last, mut loss) = (indices.len(), self.model.nodes().len(), 0.0);
        self.loss(indices, step_key, &mut |all| loss = all);
        match self.settings.clip_examples_l2 {
            None => {
                for index in (0..last).rev() {
                    self.input_gradient(index, rows, step_key);
                    self.parameter_gradient(index, &(0..rows));
                }
            }
            Some(clip_l2) => {
                for index in (0..last).rev() {
                    self.input_gradient(index, rows, step_key);
                }
                self.clip(rows, clip_l2);
                for index in (0..last).rev() {
                    self.parameter_gradient(index, &(0..rows));
                }
                vector::scale(&mut self.gradient, 1.0 / rows as f32);
            }
        }
        loss
    }

    /// The gradients of node `index`'s inputs.
    fn input_gradient(&mut self, index: usize, rows: usize, step_key: u32) {
        let (model, node) = (self.model, &self.model.nodes()[index]);
        let lens = model.value_lens();
        let flows = self.gradients.plan.flows[index];
        let mut dy = self.gradients.take(index + 1);
        if dy.is_empty() {
            return;
        }
        let mut kept = std::mem::take(&mut self.pass.kept[index]);
        let inputs = [Some(node.input), node.other];
        let mut targets = [Vec::new(), Vec::new()];
        for (which, value) in inputs.into_iter().enumerate() {
            targets[which] = match (flows[which], value) {
                (Flow::Written, Some(value)) => self.gradients.take(value),
                (Flow::Added, _) => std::mem::take(&mut self.gradients.added[which]),
                _ => continue,
            };
        }
        let [dx, d_other] = &mut targets;
        let (step, mut row) = (self.pass.step(node, rows), 0);
        while row < rows {
            let rows = row..row + step;
            row += step;
            node.op.input_gradient_cpu(InputGradient {
                rows: rows.len(),
                x: self.pass.value(model, &self.x, node.input, &rows),
                y: self.pass.value(model, &self.x, index + 1, &rows),
                dy: &mut dy[of(&rows, lens[index + 1])],
                kept: &mut kept[of(&rows, node.op.kept_len())],
                parameters: &self.parameters,
                dx: (flows[0] != Flow::Unneeded).then(|| &mut dx[of(&rows, lens[node.input])]),
                d_other: node
                    .other
                    .filter(|_| flows[1] != Flow::Unneeded)
                    .map(|other| &mut d_other[of(&rows, lens[other])]),
                step_key: Some(step_key),
                apart: self.pass.apart,
            });
        }
        for (which, (value, gradient)) in inputs.into_iter().zip(targets).enumerate() {
            match (flows[which], value) {
                (Flow::Written, Some(value)) => self.gradients.put_back(value, gradient),
                (Flow::Added, Some(value)) => {
                    let mut target = self.gradients.take(value);
                    let len = rows * lens[value];
                    vector::add_scaled(&mut target[..len], &gradient[..len], 1.0);
                    self.gradients.put_back(value, target);
                    self.gradients.added[which] = gradient;
                }
                _ => {}
            }
        }
        self.pass.kept[index] = kept;
        self.gradients.put_back(index + 1, dy);
    }

    /// The gradient of node `index`'s parameters by these examples.
    fn parameter_gradient(&mut self, index: usize, rows: &Range<usize>) {
        let (model, node) = (self.model, &self.model.nodes()[index]);
        let Some(slot) = self.gradients.plan.slot[index + 1].filter(|_| self.gradients.plan.learns[index])
        else {
            return;
        };
        node.op.parameter_gradient_cpu(ParameterGradient {
            rows: rows.len(),
            x: self.pass.value(model, &self.x, node.input, rows),
            dy: &self.gradients.slots[slot][of(rows, model.value_lens()[index + 1])],
            kept: &self.pass.kept[index][of(rows, node.op.kept_len())],
            d_parameters: &mut self.gradient,
        });
    }

    /// Finds the norm of each example's gradient, and scales the example's rows down where it is above `clip_l2`.
    fn clip(&mut self, rows: usize, clip_l2: f32) {
        let lens = self.model.value_lens();
        self.norms.clear();
        self.norms.resize(rows, 0.0);
        for (index, node) in self.model.nodes().iter().enumerate() {
            let Some(slot) =
                self.gradients.plan.slot[index + 1].filter(|_| self.gradients.plan.learns[index])
            else {
                continue;
            };
            let shared = node
                .shares
                .and_then(|of| Some((of, self.gradients.plan.slot[of + 1]?)));
            node.op.squared_norms_cpu(SquaredNorms {
                rows,
                shared: shared.map(|(of, slot)| {
                    let input = self.model.nodes()[of].input;
                    (
                        self.pass.value(self.model, &self.x, input, &(0..rows)),
                        &self.gradients.slots[slot][..rows * lens[of + 1]],
                    )
                }),
                x: self.pass.value(self.model, &self.x, node.input, &(0..rows)),
                dy: &self.gradients.slots[slot][..rows * lens[index + 1]],
                kept: &self.pass.kept[index][..rows * node.op.kept_len()],
                norms: &mut self.norms,
            });
        }
        let clip = f64::from(clip_l2);
        let factor = |&squared: &f64| {
            // Sums of products can round to a little less than nothing. A norm that is not a number stays one, as on the GPU.
            let norm = if squared < 0.0 { 0.0 } else { squared.sqrt() };
            if norm < clip { 1.0 } else { (clip / norm) as f32 }
        };
        let factors: Vec<f32> = self.norms.iter().map(factor).collect();
        for (index, node) in self.model.nodes().iter().enumerate() {
            let Some(slot) =
                self.gradients.plan.slot[index + 1].filter(|_| self.gradients.plan.learns[index])
            else {
                continue;
            };
            node.op.scale_rows_cpu(
                &factors,
                &mut self.gradients.slots[slot][..rows * lens[index + 1]],
                &mut self.pass.kept[index][..rows * node.op.kept_len()],
            );
        }
    }

    /// Bytes of everything that it holds.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        let own = [
            &self.parameters,
            &self.state,
            &self.gradient,
            &self.accumulated,
            &self.x,
        ];
        let pass = self.pass.outputs.iter().chain(&self.pass.kept);
        let gradients = self.gradients.slots.iter().chain(&self.gradients.added);
        let floats: usize = own.into_iter().chain(pass).chain(gradients).map(Vec::len).sum();
        let adjust = self.settings.adjust.start.len() + self.settings.adjust.correction.len();
        4 * (floats + adjust + self.y.len()) as u64 + self.totals.bytes() + 8 * self.norms.len() as u64
    }

    /// The parameters and the optimiser's state.
    pub fn into_state(self) -> (Vec<f32>, Vec<f32>) {
        (self.parameters, self.state)
    }
}

impl Model {
    /// The mean loss of all `examples` and its gradient with respect to the parameters, `[d]`, on the CPU.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Data`] where the parameters or the examples are not this model's.
    pub fn loss_and_gradient(
        &self,
        parameters: &[f32],
        examples: &Examples,
    ) -> Result<(f32, Vec<f32>), EngineError> {
        let (loss, gradient, _) = self.gradient_of(parameters, examples, None)?;
        Ok((loss, gradient))
    }

    /// As [`Model::loss_and_gradient`], with the gradient of each example's own loss clipped to the L2 norm `clip_l2` before
    /// the mean over the examples is taken; and the norms before clipping, `[examples]`. The norms are found without
    /// computing the examples' gradients one by one.
    ///
    /// # Errors
    /// As [`Model::loss_and_gradient`].
    pub fn loss_and_clipped_gradient(
        &self,
        parameters: &[f32],
        examples: &Examples,
        clip_l2: f32,
    ) -> Result<(f32, Vec<f32>, Vec<f64>), EngineError> {
        self.gradient_of(parameters, examples, Some(clip_l2))
    }

    fn gradient_of(
        &self,
        parameters: &[f32],
        examples: &Examples,
        clip_l2: Option<f32>,
    ) -> Result<(f32, Vec<f32>, Vec<f64>), EngineError> {
        self.check_runs(parameters)?;
        self.check_examples(examples)?;
        let settings = Settings::gradient_only(self, clip_l2);
        let mut run = CpuRun::new(self, examples, &settings, parameters.to_vec(), Vec::new());
        let all: Vec<u32> = (0..examples.len() as u32).collect();
        let loss = run.gradient(&all, 0);
        let norms = run.norms.iter().map(|squared| squared.sqrt()).collect();
        Ok((loss, run.gradient, norms))
    }
}
