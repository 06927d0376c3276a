//! CPU kernels: copies and sums of rows.

use super::Embedding;
use crate::ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

impl Op for Embedding {
    fn forward_cpu(&self, pass: Forward<'_>) {
        let table = &pass.parameters[self.table()];
        for (row, &token) in pass.y.chunks_exact_mut(self.units).zip(pass.x) {
            row.copy_from_slice(&table[token as usize * self.units..][..self.units]);
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let _ = pass; // token ids have no gradient
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let d_table = &mut pass.d_parameters[self.table()];
        if !self.tied {
            d_table.fill(0.0);
        }
        for (row, &token) in pass.dy.chunks_exact(self.units).zip(pass.x) {
            add(&mut d_table[token as usize * self.units..][..self.units], row);
        }
    }

    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let mut sum = vec![0.0; self.units];
        let examples = pass.x.chunks_exact(self.time);
        let gradients = pass.dy.chunks_exact(self.time * self.units);
        for ((tokens, dy), norm) in examples.zip(gradients).zip(pass.norms) {
            for (at, token) in tokens.iter().enumerate() {
                if tokens[..at].contains(token) {
                    continue;
                }
                sum.fill(0.0);
                for (same, row) in tokens[at..]
                    .iter()
                    .zip(dy[at * self.units..].chunks_exact(self.units))
                {
                    if same == token {
                        add(&mut sum, row);
                    }
                }
                *norm += ghost::squared(&sum);
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers);
        Ok(())
    }
}

fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}
