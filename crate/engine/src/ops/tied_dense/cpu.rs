//! CPU kernels: products of matrices.

use super::TiedDense;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::{
        matrix::{Epilogue, Matrix, MatrixMut, multiply, multiply_then},
        vector::{add_rows, add_scaled, dot},
    },
    ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost},
};

impl TiedDense {
    fn table<'a>(&self, parameters: &'a [f32]) -> Matrix<'a> {
        let table = &parameters[self.embedding.table()];
        Matrix::new(table, self.embedding.vocabulary, self.embedding.units)
    }
}

impl Op for TiedDense {
    fn forward_cpu(&self, pass: Forward<'_>) {
        let x = Matrix::new(pass.x, pass.rows * self.positions, self.embedding.units);
        let y = MatrixMut::new(pass.y, pass.rows * self.positions, self.embedding.vocabulary);
        let epilogue = Epilogue::bias(&pass.parameters[self.bias()], false);
        multiply_then(y, x, self.table(pass.parameters).transposed(), epilogue);
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        if let Some(dx) = pass.dx {
            let dy = Matrix::new(pass.dy, pass.rows * self.positions, self.embedding.vocabulary);
            multiply(dx, dy, self.table(pass.parameters), false);
        }
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let rows = pass.rows * self.positions;
        let x = Matrix::new(pass.x, rows, self.embedding.units);
        let dy = Matrix::new(pass.dy, rows, self.embedding.vocabulary);
        let d_table = &mut pass.d_parameters[self.embedding.table()];
        multiply(d_table, dy.transposed(), x, false);
        let d_bias = &mut pass.d_parameters[self.bias()];
        d_bias.fill(0.0);
        add_rows(d_bias, pass.dy);
    }

    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let (units, vocabulary) = (self.embedding.units, self.embedding.vocabulary);
        ghost::product(pass.x, pass.dy, [self.positions, units, vocabulary], pass.norms);
        ghost::sum(pass.dy, self.positions, vocabulary, pass.norms);
        let Some((tokens, d_vectors)) = pass.shared else {
            return;
        };
        let time = self.embedding.time;
        let own = pass
            .x
            .chunks_exact(self.positions * units)
            .zip(pass.dy.chunks_exact(self.positions * vocabulary));
        let theirs = tokens
            .chunks_exact(time)
            .zip(d_vectors.chunks_exact(time * units));
        let mut sum = vec![0.0f32; units];
        for (((x, dy), (tokens, d_vectors)), norm) in own.zip(theirs).zip(pass.norms) {
            for (&token, d_vector) in tokens.iter().zip(d_vectors.chunks_exact(units)) {
                sum.fill(0.0);
                for (x, dy) in x.chunks_exact(units).zip(dy.chunks_exact(vocabulary)) {
                    add_scaled(&mut sum, x, dy[token as usize]);
                }
                *norm += 2.0 * dot(&sum, d_vector);
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers);
        Ok(())
    }
}
