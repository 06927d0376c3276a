//! Products by the kernels of this folder, in SIMD128.

use core::arch::wasm32::v128;

use super::{MatrixMut, Operand, Start, blocked};

pub(super) fn product(out: MatrixMut<'_>, a: Operand<'_>, b: Operand<'_>, start: Start<'_>, relu: bool) {
    blocked::product::<v128>(out, a, b, start, relu);
}
