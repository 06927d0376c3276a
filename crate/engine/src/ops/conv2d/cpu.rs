//! CPU kernels: products with the matrix of patches, a few lines of it at a time.

use std::ops::Range;

use super::{
    Conv2d,
    patches::{Padded, SLACK},
};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::{
        matrix::{Epilogue, Matrix, MatrixMut, multiply, multiply_then},
        vector::{add_rows, add_scaled},
    },
    crew::{self, Parts},
    ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost, relu},
};

/// Numbers of the matrix of patches that are made at a time: half a MiB, so that they are still in a second-level cache when the
/// product reads them.
const SCRATCH: usize = 1 << 17;
/// The tiles of a product may read so many numbers beyond a patch.
const BEYOND: usize = 5;
/// The gradient of the parameters is the sum of those of so many parts of the batch, however many threads there are.
const GROUPS: usize = 4;

impl Conv2d {
    /// Cuts the lines of windows of `images` images into pieces whose patches fit the scratch memory, and hands each piece over, with
    /// room for its patches.
    fn pieces(&self, images: usize, mut visit: impl FnMut(Range<usize>, &mut [f32])) {
        let line = self.window.output[1] * self.window.patch_len();
        let lines = images * self.window.output[0];
        let most = (SCRATCH / line).clamp(1, lines.max(1));
        let mut scratch = vec![0.0; most * line + SLACK + BEYOND];
        for first in (0..lines).step_by(most) {
            visit(first..lines.min(first + most), &mut scratch);
        }
    }

    /// Numbers of an image of the output, and of a line of it.
    fn output_lens(&self) -> [usize; 2] {
        [
            self.window.positions() * self.filters,
            self.window.output[1] * self.filters,
        ]
    }

    /// What an image costs in multiply-adds.
    fn cost(&self) -> usize {
        self.window.patch_len() * self.output_lens()[0]
    }

    /// `[Pᵀ·dy | Σ dy]` over the windows of the images `x`, to `gradient`: that of the kernel and that of the bias.
    fn gradient(&self, x: &[f32], dy: &[f32], gradient: &mut [f32]) {
        let (len, filters, [image, line]) = (self.window.patch_len(), self.filters, self.output_lens());
        let (d_kernel, d_bias) = gradient.split_at_mut(len * filters);
        let mut padded = Padded::new(&self.window);
        self.pieces(dy.len() / image, |lines, scratch| {
            let dy = &dy[lines.start * line..lines.end * line];
            let windows = dy.len() / filters;
            padded.extract(x, lines.clone(), scratch);
            let patches = Matrix::strided(scratch, windows, len, len, 1);
            let dy = Matrix::new(dy, windows, filters);
            multiply(d_kernel, patches.transposed(), dy, lines.start > 0);
        });
        d_bias.fill(0.0);
        add_rows(d_bias, dy);
    }
}

impl Op for Conv2d {
    fn fuse_relu(&mut self) -> bool {
        !std::mem::replace(&mut self.relu, true)
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let (len, filters, [image, line]) = (self.window.patch_len(), self.filters, self.output_lens());
        let kernel = Matrix::new(&pass.parameters[self.kernel()], len, filters);
        let epilogue = Epilogue::bias(&pass.parameters[self.bias()], self.relu);
        let y = Parts::of(pass.y);
        crew::split(pass.rows, 1, self.cost(), |images| {
            let x = &pass.x[images.start * self.window.image_len()..];
            // SAFETY: every thread has other images.
            let y = unsafe { y.part(images.start * image..images.end * image) };
            let mut padded = Padded::new(&self.window);
            self.pieces(images.len(), |lines, scratch| {
                let y = &mut y[lines.start * line..lines.end * line];
                let windows = y.len() / filters;
                padded.extract(x, lines, scratch);
                let patches = Matrix::strided(scratch, windows, len, len, 1);
                multiply_then(MatrixMut::new(y, windows, filters), patches, kernel, epilogue);
            });
        });
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let (len, filters, [image, line]) = (self.window.patch_len(), self.filters, self.output_lens());
        if self.relu {
            relu::mask(pass.dy, pass.y);
        }
        let Some(dx) = pass.dx else { return };
        let (dx, dy) = (Parts::of(dx), &*pass.dy);
        let kernel = Matrix::new(&pass.parameters[self.kernel()], len, filters);
        crew::split(pass.rows, 1, self.cost(), |images| {
            let of = self.window.image_len();
            // SAFETY: every thread has other images.
            let dx = unsafe { dx.part(images.start * of..images.end * of) };
            // What no window reaches.
            dx.fill(0.0);
            let dy = &dy[images.start * image..images.end * image];
            let mut padded = Padded::new(&self.window);
            self.pieces(images.len(), |lines, scratch| {
                let dy = &dy[lines.start * line..lines.end * line];
                let windows = dy.len() / filters;
                let patches = &mut scratch[..windows * len];
                multiply(
                    patches,
                    Matrix::new(dy, windows, filters),
                    kernel.transposed(),
                    false,
                );
                padded.add_back(patches, lines, dx);
            });
        });
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let gradient = &mut pass.d_parameters[self.offset..self.bias().end];
        let (len, per) = (gradient.len(), pass.rows.div_ceil(GROUPS).max(1));
        let groups = pass.rows.div_ceil(per).max(1);
        let mut others = vec![0.0; (groups - 1) * len];
        let images = [self.window.image_len(), self.output_lens()[0]].map(|len| len * per);
        {
            let (first, others) = (Parts::of(gradient), Parts::of(&mut others));
            crew::each(groups, |group| {
                let [x, dy] = [pass.x, pass.dy];
                let x = x.chunks(images[0]).nth(group).unwrap_or_default();
                let dy = dy.chunks(images[1]).nth(group).unwrap_or_default();
                // SAFETY: every group has its own.
                let gradient = unsafe {
                    match group {
                        0 => first.part(0..len),
                        _ => others.part((group - 1) * len..group * len),
                    }
                };
                self.gradient(x, dy, gradient);
            });
        }
        for other in others.chunks_exact(len) {
            add_scaled(gradient, other, 1.0);
        }
    }

    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let (len, positions) = (self.window.patch_len(), self.window.positions());
        let shape = [positions, len, self.filters];
        let [image, dy_len] = [self.window.image_len(), positions * self.filters];
        let norms = Parts::of(pass.norms);
        crew::split(pass.rows, 1, self.cost(), |rows| {
            // SAFETY: every thread has other rows.
            let norms = unsafe { norms.part(rows.clone()) };
            let (x, dy) = (
                &pass.x[rows.start * image..],
                &pass.dy[rows.start * dy_len..rows.end * dy_len],
            );
            let examples = x.chunks_exact(image).zip(dy.chunks_exact(dy_len));
            if ghost::by_gram(shape) {
                // All patches of an example are needed at once. There are fewer than filters, so they are fewer numbers than
                // the kernel has.
                ghost::sum(dy, positions, self.filters, norms);
                let mut patches = vec![0.0; positions * len + SLACK];
                let mut padded = Padded::new(&self.window);
                for (row, ((_, dy), norm)) in examples.zip(norms.chunks_exact_mut(1)).enumerate() {
                    let lines = self.window.output[0];
                    padded.extract(x, row * lines..(row + 1) * lines, &mut patches);
                    ghost::product(&patches[..positions * len], dy, shape, norm);
                }
            } else {
                let mut gradient = vec![0.0; (len + 1) * self.filters];
                for ((image, dy), norm) in examples.zip(norms) {
                    self.gradient(image, dy, &mut gradient);
                    *norm += ghost::squared(&gradient);
                }
            }
        });
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
