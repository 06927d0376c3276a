//! Products of matrices on the CPU, by the `gemm` crate: AVX natively (chosen when the program runs), SIMD128 in wasm.

/// A matrix inside a slice: element `(i, j)` is at `i × row_stride + j × column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} × {columns}");
        Self {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    pub const fn transposed(self) -> Self {
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
pub(crate) fn multiply(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, add: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    assert_eq!(out.len(), a.rows * b.columns, "output length");
    // SAFETY: `Matrix::new` checked that both operands' slices hold every element that their strides reach, and the asserts
    // above do so for the output, which is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm_f32(
            [a.rows, b.columns, a.columns],
            (out.as_mut_ptr(), b.columns as isize),
            add,
            (a.data.as_ptr(), a.row_stride as isize, a.column_stride as isize),
            (b.data.as_ptr(), b.row_stride as isize, b.column_stride as isize),
        );
    }
}

/// `dst (+)= lhs·rhs`; operands as pointer, row stride, column stride.
///
/// # Safety
/// Every element that the sizes and strides reach is inside its allocation, and `dst` overlaps neither operand.
#[cfg(not(target_arch = "wasm32"))]
unsafe fn gemm_f32(
    [m, n, k]: [usize; 3],
    (dst, dst_rs): (*mut f32, isize),
    add: bool,
    (lhs, lhs_rs, lhs_cs): (*const f32, isize, isize),
    (rhs, rhs_rs, rhs_cs): (*const f32, isize, isize),
) {
    let parallelism = gemm::Parallelism::None;
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_rs,
            add,
            lhs,
            lhs_cs,
            lhs_rs,
            rhs,
            rhs_cs,
            rhs_rs,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// As above. The crate's SIMD128 kernels are called by name: its front door would also carry the scalar kernels, which would
/// never run here, and 35 kB of them.
///
/// # Safety
/// As above.
#[cfg(target_arch = "wasm32")]
unsafe fn gemm_f32(
    [m, n, k]: [usize; 3],
    (dst, dst_rs): (*mut f32, isize),
    add: bool,
    (lhs, lhs_rs, lhs_cs): (*const f32, isize, isize),
    (rhs, rhs_rs, rhs_cs): (*const f32, isize, isize),
) {
    use gemm_common::{Parallelism, gemm::gemm_basic_generic, simd::Scalar};
    use gemm_f32::microkernel::simd128::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
    const LANES: usize = 4;
    // SAFETY: the caller's promise; the kernels are those that the crate itself would choose with SIMD128 on.
    unsafe {
        gemm_basic_generic::<Scalar, f32, LANES, { MR_DIV_N * LANES }, NR, MR_DIV_N, H_M, H_N>(
            Scalar,
            m,
            n,
            k,
            dst,
            1,
            dst_rs,
            add,
            lhs,
            lhs_cs,
            lhs_rs,
            rhs,
            rhs_cs,
            rhs_rs,
            1.0,
            1.0,
            false,
            false,
            false,
            |a, b, c| a * b + c,
            &UKR,
            &H_UKR,
            false,
            Parallelism::None,
        );
    }
}
