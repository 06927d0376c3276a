//! CPU kernels: products with the matrix of patches, a few lines of it at a time.

use super::{
    Conv2d,
    patches::{add_back, extract},
};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::matrix::{Matrix, multiply},
    ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost, relu},
};

/// Numbers of the matrix of patches that are made at a time: 1 MiB, so that they are still in a second-level cache when the
/// product reads them.
const SCRATCH: usize = 1 << 18;

impl Conv2d {
    /// Cuts windows `0..count` into pieces whose patches fit the scratch memory, and hands each piece over: the first window, how
    /// many, and room for their patches.
    fn pieces(&self, count: usize, mut visit: impl FnMut(usize, usize, &mut [f32])) {
        let len = self.window.patch_len();
        let most = (SCRATCH / len).clamp(1, count.max(1));
        let mut scratch = vec![0.0; most * len];
        for first in (0..count).step_by(most) {
            let windows = most.min(count - first);
            visit(first, windows, &mut scratch[..windows * len]);
        }
    }

    /// `d_kernel (+)= Pᵀ·dy` over the windows of the images `x`.
    fn kernel_gradient(&self, x: &[f32], dy: &[f32], d_kernel: &mut [f32]) {
        let (len, filters) = (self.window.patch_len(), self.filters);
        self.pieces(dy.len() / filters, |first, windows, scratch| {
            extract(&self.window, x, first, scratch);
            let patches = Matrix::new(scratch, windows, len);
            let dy = &dy[first * filters..(first + windows) * filters];
            let dy = Matrix::new(dy, windows, filters);
            multiply(d_kernel, patches.transposed(), dy, first > 0);
        });
    }
}

impl Op for Conv2d {
    fn fuse_relu(&mut self) -> bool {
        !std::mem::replace(&mut self.relu, true)
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let (len, filters) = (self.window.patch_len(), self.filters);
        let bias = &pass.parameters[self.bias()];
        let kernel = Matrix::new(&pass.parameters[self.kernel()], len, filters);
        let count = pass.rows * self.window.positions();
        self.pieces(count, |first, windows, scratch| {
            extract(&self.window, pass.x, first, scratch);
            let y = &mut pass.y[first * filters..(first + windows) * filters];
            for pixel in y.chunks_exact_mut(filters) {
                pixel.copy_from_slice(bias);
            }
            multiply(y, Matrix::new(scratch, windows, len), kernel, true);
            if self.relu {
                relu::rectify(y);
            }
        });
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        if self.relu {
            relu::mask(pass.dy, pass.y);
        }
        let Some(dx) = pass.dx else { return };
        let (len, filters) = (self.window.patch_len(), self.filters);
        let kernel = Matrix::new(&pass.parameters[self.kernel()], len, filters);
        dx.fill(0.0);
        let count = pass.rows * self.window.positions();
        self.pieces(count, |first, windows, scratch| {
            let dy = &pass.dy[first * filters..(first + windows) * filters];
            let dy = Matrix::new(dy, windows, filters);
            multiply(scratch, dy, kernel.transposed(), false);
            add_back(&self.window, scratch, first, dx);
        });
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        self.kernel_gradient(pass.x, pass.dy, &mut pass.d_parameters[self.kernel()]);
        let d_bias = &mut pass.d_parameters[self.bias()];
        d_bias.fill(0.0);
        for pixel in pass.dy.chunks_exact(self.filters) {
            for (sum, value) in d_bias.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
    }

    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let (len, positions) = (self.window.patch_len(), self.window.positions());
        let shape = [positions, len, self.filters];
        ghost::sum(pass.dy, positions, self.filters, pass.norms);
        let images = pass.x.chunks_exact(self.window.image_len());
        let dys = pass.dy.chunks_exact(positions * self.filters);
        let examples = images.zip(dys).zip(pass.norms.chunks_exact_mut(1));
        if ghost::by_gram(shape) {
            // All patches of an example are needed at once. There are fewer than filters, so they are fewer numbers than the
            // kernel has.
            let mut patches = vec![0.0; positions * len];
            for ((image, dy), norm) in examples {
                extract(&self.window, image, 0, &mut patches);
                ghost::product(&patches, dy, shape, norm);
            }
        } else {
            let mut gradient = vec![0.0; len * self.filters];
            for ((image, dy), norm) in examples {
                self.kernel_gradient(image, dy, &mut gradient);
                norm[0] += ghost::squared(&gradient);
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
