//! The CPU back end: one thread, SIMD (AVX natively, SIMD128 in wasm), deterministic.

use crate::{
    EngineError, Examples, Model,
    ops::{CpuBackward, CpuForward, gather::gather_cpu},
    optim::sgd::Sgd,
};

/// The values of a forward pass: one buffer for the output of each operation, `[rows, value length]`.
pub(crate) struct CpuPass {
    outputs: Vec<Vec<f32>>,
}

impl CpuPass {
    /// Room for batches of up to `rows` examples.
    pub fn new(model: &Model, rows: usize) -> Self {
        Self {
            outputs: model.value_lens()[1..]
                .iter()
                .map(|len| vec![0.0; len * rows])
                .collect(),
        }
    }

    /// Runs the model on `x`, `[rows, features]`; the last value, `[rows, classes]`.
    pub fn forward<'a>(
        &'a mut self,
        model: &Model,
        parameters: &[f32],
        x: &'a [f32],
        rows: usize,
    ) -> &'a [f32] {
        let lens = model.value_lens();
        for (index, op) in model.ops().iter().enumerate() {
            let (before, after) = self.outputs.split_at_mut(index);
            let x = before.last().map_or(x, |value| &value[..rows * lens[index]]);
            let y = &mut after[0][..rows * lens[index + 1]];
            op.forward_cpu(CpuForward {
                rows,
                x,
                parameters,
                y,
            });
        }
        self.value(model, x, self.outputs.len(), rows)
    }

    /// Value `index` of the last forward pass on `x`.
    fn value<'a>(&'a self, model: &Model, x: &'a [f32], index: usize, rows: usize) -> &'a [f32] {
        match index.checked_sub(1) {
            None => x,
            Some(output) => &self.outputs[output][..rows * model.value_lens()[index]],
        }
    }
}

/// Training on the CPU: parameters, gradient, optimiser state and the buffers of a step.
pub(crate) struct CpuRun<'m> {
    model: &'m Model,
    examples: &'m Examples,
    optimizer: Sgd,
    parameters: Vec<f32>,
    velocity: Vec<f32>,
    gradient: Vec<f32>,
    pass: CpuPass,
    /// Gradients of the values 1, 2, …; those of the data are not needed.
    d_outputs: Vec<Vec<f32>>,
    x: Vec<f32>,
    y: Vec<u32>,
}

impl<'m> CpuRun<'m> {
    /// Starts from `parameters`; `velocity` is the optimiser's state, empty for a fresh one.
    pub fn new(
        model: &'m Model,
        examples: &'m Examples,
        optimizer: Sgd,
        batch: usize,
        parameters: Vec<f32>,
        velocity: Vec<f32>,
    ) -> Self {
        let rows = batch.min(examples.len());
        let state = optimizer.state_len(parameters.len());
        let velocity = if velocity.len() == state {
            velocity
        } else {
            vec![0.0; state]
        };
        Self {
            gradient: vec![0.0; parameters.len()],
            pass: CpuPass::new(model, rows),
            d_outputs: model.value_lens()[1..]
                .iter()
                .map(|len| vec![0.0; len * rows])
                .collect(),
            x: Vec::with_capacity(rows * model.features()),
            y: Vec::with_capacity(rows),
            model,
            examples,
            optimizer,
            parameters,
            velocity,
        }
    }

    /// One step on the examples at `indices`; the mean loss before it.
    pub fn step(&mut self, indices: &[u32]) -> f32 {
        let loss = self.gradient(indices);
        self.optimizer
            .update_cpu(&mut self.parameters, &self.gradient, &mut self.velocity);
        loss
    }

    /// Computes the mean loss of the examples at `indices` and its gradient.
    fn gradient(&mut self, indices: &[u32]) -> f32 {
        let (model, rows, lens) = (self.model, indices.len(), self.model.value_lens());
        gather_cpu(self.examples, indices, &mut self.x, &mut self.y);
        let outputs = self.pass.forward(model, &self.parameters, &self.x, rows);
        let Some(last) = self.d_outputs.last_mut() else {
            return model.loss().mean_loss_cpu(rows, outputs, &self.y); // a model without layers has nothing to learn
        };
        let loss = model
            .loss()
            .loss_cpu(rows, outputs, &self.y, &mut last[..rows * lens[lens.len() - 1]]);
        for (index, op) in model.ops().iter().enumerate().rev() {
            let (before, after) = self.d_outputs.split_at_mut(index);
            op.backward_cpu(CpuBackward {
                rows,
                x: self.pass.value(model, &self.x, index, rows),
                dy: &after[0][..rows * lens[index + 1]],
                parameters: &self.parameters,
                d_parameters: &mut self.gradient,
                dx: before.last_mut().map(|dx| &mut dx[..rows * lens[index]]),
            });
        }
        loss
    }

    /// The parameters and the optimiser's state.
    pub fn into_state(self) -> (Vec<f32>, Vec<f32>) {
        (self.parameters, self.velocity)
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
        self.check_count(parameters)?;
        self.check_examples(examples)?;
        let unused = Sgd {
            learning_rate: 1.0,
            momentum: 0.0,
        };
        let mut run = CpuRun::new(
            self,
            examples,
            unused,
            examples.len(),
            parameters.to_vec(),
            Vec::new(),
        );
        let all: Vec<u32> = (0..examples.len() as u32).collect();
        let loss = run.gradient(&all);
        Ok((loss, run.gradient))
    }
}
