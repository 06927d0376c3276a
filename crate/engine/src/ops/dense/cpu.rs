//! CPU kernels: products of matrices.

use super::Dense;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::matrix::{Matrix, multiply},
    ops::{CpuBackward, CpuForward, Op},
};

impl Op for Dense {
    fn forward_cpu(&self, pass: CpuForward<'_>) {
        let bias = &pass.parameters[self.bias()];
        for row in pass.y.chunks_exact_mut(self.outputs) {
            row.copy_from_slice(bias);
        }
        let x = Matrix::new(pass.x, pass.rows, self.inputs);
        let kernel = Matrix::new(&pass.parameters[self.kernel()], self.inputs, self.outputs);
        multiply(pass.y, x, kernel, true);
    }

    fn backward_cpu(&self, pass: CpuBackward<'_>) {
        let x = Matrix::new(pass.x, pass.rows, self.inputs);
        let dy = Matrix::new(pass.dy, pass.rows, self.outputs);
        multiply(&mut pass.d_parameters[self.kernel()], x.transposed(), dy, false);
        let d_bias = &mut pass.d_parameters[self.bias()];
        d_bias.fill(0.0);
        for row in pass.dy.chunks_exact(self.outputs) {
            for (sum, value) in d_bias.iter_mut().zip(row) {
                *sum += value;
            }
        }
        if let Some(dx) = pass.dx {
            let kernel = Matrix::new(&pass.parameters[self.kernel()], self.inputs, self.outputs);
            multiply(dx, dy, kernel.transposed(), false);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
