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

use crate::Examples;

/// Copies the examples at `indices` to `x` (`[indices, features]`) and `y`.
pub(crate) fn gather_cpu(examples: &Examples, indices: &[u32], x: &mut Vec<f32>, y: &mut Vec<u32>) {
    x.clear();
    y.clear();
    for &index in indices {
        let start = index as usize * examples.features();
        x.extend_from_slice(&examples.x()[start..start + examples.features()]);
        let targets = examples.targets_per_example();
        let start = index as usize * targets;
        y.extend_from_slice(&examples.y()[start..start + targets]);
    }
}

#[cfg(feature = "gpu")]
pub(crate) use gpu::plan;
