//! Products whose rows do not depend on each other, natively: each row is one lane of vectors, so that whatever is beside it, it gets
//! the same instructions in the same order. Sums go over the inner dimension in one piece.
//!
//! AVX-512 and AVX2 where the machine has them (a lane is one fused multiply-add a term on both, so both give the same bits); elsewhere
//! the tiles that wasm uses, whose rows are as independent.

use super::{Matrix, MatrixMut, Shared, Start, blocked, lane::Scalars};
use crate::crew;

/// Columns that a thread takes are a multiple of this.
const COLUMNS: usize = 8;

/// `out = start + a·b`, but at least 0 if `relu`. The sizes agree.
pub(super) fn product(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, start: Start<'_>, relu: bool) {
    let (columns, cost) = (out.columns, out.rows * a.columns);
    if out.rows == 0 {
        return;
    }
    let out = Shared(out);
    crew::split(columns, COLUMNS, cost, |columns| {
        let start = match start {
            Start::Row(row) => Start::Row(&row[columns.clone()]),
            start => start,
        };
        let b = b.transposed().some_rows(&columns).transposed();
        let out = out.part(0..a.rows, columns);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the machine has it.
                return unsafe { x86::avx512(&out, a, b, start, relu) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: likewise.
                return unsafe { x86::avx2(&out, a, b, start, relu) };
            }
        }
        blocked::product::<Scalars<false>>(out, a.into(), b.into(), start, relu);
    });
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use core::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{Matrix, MatrixMut, Start};
    /// Columns that are summed up at a time: as many as hide what a multiply-add takes, and few enough for the registers.
    const AT_ONCE: usize = 8;

    /// Numbers of as many rows.
    trait Rows: Copy {
        const COUNT: usize;

        /// # Safety
        /// The machine has the instructions, and so many numbers can be read at `at`.
        unsafe fn load(at: *const f32) -> Self;
        /// # Safety
        /// The machine has the instructions.
        unsafe fn splat(value: f32) -> Self;
        /// `self + a·b`, rounded once.
        ///
        /// # Safety
        /// The machine has the instructions.
        unsafe fn add_product(self, a: Self, b: Self) -> Self;
        /// # Safety
        /// The machine has the instructions, and so many numbers can be written at `at`.
        unsafe fn store(self, at: *mut f32);
    }

    macro_rules! rows {
        ($vector:ty, $count:literal, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
            impl Rows for $vector {
                const COUNT: usize = $count;

                #[inline(always)]
                unsafe fn load(at: *const f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $load(at) }
                }

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $splat(value) }
                }

                #[inline(always)]
                unsafe fn add_product(self, a: Self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $fma(a, b, self) }
                }

                #[inline(always)]
                unsafe fn store(self, at: *mut f32) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(at, self) }
                }
            }
        };
    }
    rows!(
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps
    );
    rows!(
        __m256,
        8,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_storeu_ps
    );

    /// # Safety
    /// The machine has AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn avx512(
        out: &MatrixMut<'_>,
        a: Matrix<'_>,
        b: Matrix<'_>,
        start: Start<'_>,
        relu: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe { product::<__m512>(out, a, b, start, relu) };
    }

    /// # Safety
    /// The machine has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn avx2(
        out: &MatrixMut<'_>,
        a: Matrix<'_>,
        b: Matrix<'_>,
        start: Start<'_>,
        relu: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe { product::<__m256>(out, a, b, start, relu) };
    }

    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    unsafe fn product<V: Rows>(
        out: &MatrixMut<'_>,
        a: Matrix<'_>,
        b: Matrix<'_>,
        start: Start<'_>,
        relu: bool,
    ) {
        let depth = a.columns;
        let mut sums = [0.0f32; AT_ONCE * 16];
        // Not in the thread's workspace: what a closure does is compiled without the instructions of its caller.
        let mut turned = vec![0.0f32; depth * V::COUNT];
        for first in (0..a.rows).step_by(V::COUNT) {
            let rows = V::COUNT.min(a.rows - first);
            for (p, turned) in turned.chunks_exact_mut(V::COUNT).enumerate() {
                for (row, to) in turned[..rows].iter_mut().enumerate() {
                    *to = a.data[(first + row) * a.row_stride + p * a.column_stride];
                }
            }
            let mut column = 0;
            while column < out.columns {
                let count = if column + AT_ONCE <= out.columns {
                    AT_ONCE
                } else {
                    1
                };
                let from = match start {
                    Start::Row(row) => &row[column..column + count],
                    _ => &[0.0; AT_ONCE][..count],
                };
                let at = b.data.as_ptr().wrapping_add(column * b.column_stride);
                // SAFETY: `b` has `depth` rows, and so many columns from here on; the rest is the caller's promise.
                unsafe {
                    if count == AT_ONCE {
                        columns::<V, AT_ONCE>(&turned, at, b, from, &mut sums);
                    } else {
                        columns::<V, 1>(&turned, at, b, from, &mut sums);
                    }
                }
                for row in 0..rows {
                    for (at, sums) in sums.chunks_exact(V::COUNT).take(count).enumerate() {
                        let value = sums[row];
                        let value = if relu && value < 0.0 { 0.0 } else { value };
                        // SAFETY: inside the output, which nothing else borrows.
                        unsafe {
                            let to = out.data.add((first + row) * out.row_stride + column + at);
                            to.write(value);
                        }
                    }
                }
                column += count;
            }
        }
    }

    /// `sums = from + turned·b` for `N` columns of `b`, of which the first begins at `at`.
    ///
    /// # Safety
    /// `b` has a row for each vector of `turned`, and `N` columns from `at` on; the machine has the instructions of `V`.
    #[inline(always)]
    unsafe fn columns<V: Rows, const N: usize>(
        turned: &[f32],
        mut at: *const f32,
        b: Matrix<'_>,
        from: &[f32],
        sums: &mut [f32; AT_ONCE * 16],
    ) {
        // SAFETY: the caller's promise; pointers end behind the last row by `wrapping_add`.
        unsafe {
            let mut totals = [V::splat(0.0); N];
            for (total, from) in totals.iter_mut().zip(from) {
                *total = V::splat(*from);
            }
            for rows in turned.chunks_exact(V::COUNT) {
                let rows = V::load(rows.as_ptr());
                for (column, total) in totals.iter_mut().enumerate() {
                    let weight = at.wrapping_add(column * b.column_stride).read();
                    *total = total.add_product(rows, V::splat(weight));
                }
                at = at.wrapping_add(b.row_stride);
            }
            for (column, total) in totals.iter().enumerate() {
                total.store(sums.as_mut_ptr().add(column * V::COUNT));
            }
        }
    }
}
