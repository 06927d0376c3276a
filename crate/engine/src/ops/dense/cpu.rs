//! CPU kernels: products of matrices.

use super::Dense;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::{
        matrix::{Epilogue, Matrix, MatrixMut, multiply, multiply_apart, multiply_then},
        vector::add_rows,
    },
    ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost, relu},
};

impl Dense {
    /// Whether its products must be asked for their rows apart: where there are several, and products are not like that anyway, as in wasm.
    const fn apart(&self, asked: bool) -> bool {
        cfg!(not(target_arch = "wasm32")) && asked && self.positions == 1
    }
}

impl Op for Dense {
    fn fuse_relu(&mut self) -> bool {
        !std::mem::replace(&mut self.relu, true)
    }

    fn outer(&self) -> Option<&Dense> {
        (self.positions == 1).then_some(self)
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let x = Matrix::new(pass.x, pass.rows * self.positions, self.inputs);
        let kernel = Matrix::new(&pass.parameters[self.kernel()], self.inputs, self.outputs);
        let y = MatrixMut::new(pass.y, pass.rows * self.positions, self.outputs);
        let epilogue = Epilogue::bias(&pass.parameters[self.bias()], self.relu);
        if self.apart(pass.apart) {
            multiply_apart(y, x, kernel, epilogue);
        } else {
            multiply_then(y, x, kernel, epilogue);
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        if self.relu {
            relu::mask(pass.dy, pass.y);
        }
        if let Some(dx) = pass.dx {
            let dy = Matrix::new(pass.dy, pass.rows * self.positions, self.outputs);
            let kernel = Matrix::new(&pass.parameters[self.kernel()], self.inputs, self.outputs);
            if self.apart(pass.apart) {
                let dx = MatrixMut::new(dx, pass.rows, self.inputs);
                multiply_apart(dx, dy, kernel.transposed(), Epilogue::None);
            } else {
                multiply(dx, dy, kernel.transposed(), false);
            }
        }
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let x = Matrix::new(pass.x, pass.rows * self.positions, self.inputs);
        let dy = Matrix::new(pass.dy, pass.rows * self.positions, self.outputs);
        multiply(&mut pass.d_parameters[self.kernel()], x.transposed(), dy, false);
        let d_bias = &mut pass.d_parameters[self.bias()];
        d_bias.fill(0.0);
        add_rows(d_bias, pass.dy);
    }

    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let shape = [self.positions, self.inputs, self.outputs];
        ghost::product(pass.x, pass.dy, shape, pass.norms);
        ghost::sum(pass.dy, self.positions, self.outputs, pass.norms);
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
