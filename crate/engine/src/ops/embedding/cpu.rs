//! CPU kernels: copies and sums of rows.

use super::Embedding;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::vector::add_scaled,
    ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost},
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
            add_scaled(
                &mut d_table[token as usize * self.units..][..self.units],
                row,
                1.0,
            );
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
                        add_scaled(&mut sum, row, 1.0);
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
