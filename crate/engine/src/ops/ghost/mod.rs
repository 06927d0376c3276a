//! Norms of per-example gradients that are products or sums, without the gradients ("ghost norms", Li et al. 2022, section 4).

#[cfg(feature = "gpu")]
mod gpu;

#[cfg(feature = "gpu")]
pub(crate) use gpu::{ProductTerm, cross_gpu, product_gpu, tokens_gpu};

use crate::backend::{
    matrix::{Matrix, multiply},
    vector::{add_rows, dot},
};

/// Adds `‖aᵀ·b‖²` for each example to `norms`: `a [rows, positions, m]`, `b [rows, positions, n]`.
///
/// With one position it is `‖a‖²·‖b‖²` (Goodfellow 2015). With more, the cheaper of two ways that give the same number: the
/// product itself (`m·n` numbers an example), or `Σₜ,ₛ ⟨aₜ, aₛ⟩⟨bₜ, bₛ⟩` (`positions²` numbers, Li et al. 2022, equation 2).
pub(crate) fn product(a: &[f32], b: &[f32], [positions, m, n]: [usize; 3], norms: &mut [f64]) {
    let examples = a.chunks_exact(positions * m).zip(b.chunks_exact(positions * n));
    if positions == 1 {
        for ((a, b), norm) in examples.zip(norms) {
            *norm += squared(a) * squared(b);
        }
        return;
    }
    let by_gram = by_gram([positions, m, n]);
    let mut first = vec![0.0; if by_gram { positions * positions } else { m * n }];
    let mut second = vec![0.0; if by_gram { positions * positions } else { 0 }];
    for ((a, b), norm) in examples.zip(norms) {
        let (a, b) = (Matrix::new(a, positions, m), Matrix::new(b, positions, n));
        if by_gram {
            multiply(&mut first, a, a.transposed(), false);
            multiply(&mut second, b, b.transposed(), false);
            // A sum of squares; rounding can make it a little less than nothing. What is not a number stays none.
            let sum = dot(&first, &second);
            *norm += if sum < 0.0 { 0.0 } else { sum };
        } else {
            multiply(&mut first, a.transposed(), b, false);
            *norm += squared(&first);
        }
    }
}

/// Whether the second way is the cheaper one in multiply-adds; it computes symmetric matrices in full.
pub(crate) const fn by_gram([positions, m, n]: [usize; 3]) -> bool {
    positions * (m + n) < m * n
}

/// Adds `‖Σₜ bₜ‖²` for each example to `norms`: `b [rows, positions, n]`.
pub(crate) fn sum(b: &[f32], positions: usize, n: usize, norms: &mut [f64]) {
    let mut total = vec![0.0; n];
    for (b, norm) in b.chunks_exact(positions * n).zip(norms) {
        total.fill(0.0);
        add_rows(&mut total, b);
        *norm += squared(&total);
    }
}

/// `‖v‖²`.
pub(crate) fn squared(values: &[f32]) -> f64 {
    dot(values, values)
}
