//! CPU kernels: the products run on the `gemm` crate (AVX natively, SIMD128 in wasm).

use super::Dense;
use crate::ops::{CpuBackward, CpuForward, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// A matrix inside a slice: element `(i, j)` is at `i × row_stride + j × column_stride`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} × {columns}");
        Self {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    const fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `out = a·b`, or `out += a·b`. `out` is row-major.
fn multiply(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, add: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    assert_eq!(out.len(), a.rows * b.columns, "output length");
    // SAFETY: `Matrix::new` checked that both operands' slices hold every element that their strides reach, and the asserts
    // above do so for the output, which is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

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
