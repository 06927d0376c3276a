//! Collecting a batch from the data set, in the epoch's order, which is what makes a gradient stochastic: of the examples drawn
//! (Robbins, Monro 1951; Bottou 2012, section 2).
//!
//! `x[r] = data_x[order[first + r]]`, `y[r] = data_y[order[first + r]]`; shapes, row-major: `data_x [examples, features]`,
//! `data_y [examples, targets]`, `order [examples]` of indices below `examples`, `x [rows, features]`, `y [rows, targets]`. Data have
//! no gradient.
//!
//! On the CPU a copy; on the GPU, where the whole local data set and the order stay in device memory, `gather.wgsl`.

#[cfg(feature = "gpu")]
mod gpu;

use crate::{
    Examples,
    backend::matrix::ROWS_AT_ONCE,
    crew::{self, Parts},
};

/// What a number costs that is copied, in the crew's measure: it comes from the third cache.
const COST: usize = 2;

/// Copies the examples at `indices` to `x` (`[indices, features]`) and `y`. Each thread copies the rows that are its own in products
/// which are cut by rows, so that they lie in its cache.
pub(crate) fn gather_cpu(examples: &Examples, indices: &[u32], x: &mut Vec<f32>, y: &mut Vec<u32>) {
    let features = examples.features();
    x.resize(indices.len() * features, 0.0);
    let all = Parts::of(x);
    crew::split(indices.len(), ROWS_AT_ONCE, COST * features, |rows| {
        // SAFETY: every thread has other rows.
        let x = unsafe { all.part(rows.start * features..rows.end * features) };
        for (row, &index) in x.chunks_exact_mut(features.max(1)).zip(&indices[rows]) {
            let start = index as usize * features;
            row.copy_from_slice(&examples.x()[start..start + features]);
        }
    });
    y.clear();
    let targets = examples.targets_per_example();
    for &index in indices {
        let start = index as usize * targets;
        y.extend_from_slice(&examples.y()[start..start + targets]);
    }
}

#[cfg(feature = "gpu")]
pub(crate) use gpu::plan;
