//! Adding one gradient to another. On the CPU loops of the back end.
//!
//! - Where a value is read more than once, its gradient is the sum of those of its readers, `dx = Σ dxₖ`, each `[rows, len]`: the chain
//!   rule of several variables (Goodfellow, Bengio, Courville 2016, section 6.5.2).
//! - Over the batches of a step, whose mean gradient is that of one large batch, `g = Σₖ (nₖ / n)·gₖ` with `nₖ` of the step's `n` targets
//!   in batch `k`, each `[len]`: the gradient of a mean is the mean of gradients (the same, section 5.9).

use crate::backend::gpu::{Access, Dispatch, Grid, Planner};

const SHADER: (&str, &str) = (
    "accumulate",
    include_str!(concat!(env!("OUT_DIR"), "/accumulate.wgsl")),
);

const ACCESS: [Access; 2] = [Access::Read, Access::Write];

/// For the batches of a step: `sum = share·more` for the first, `sum += share·more` for the others, both `[len]`.
pub(crate) fn shares(
    planner: &mut Planner<'_>,
    more: &wgpu::Buffer,
    sum: &wgpu::Buffer,
    len: usize,
) -> [Dispatch; 2] {
    let dims = planner.uniform(&[len as u32]);
    let grid = Grid::linear(len, 64);
    ["set_share", "add_share"]
        .map(|entry| planner.dispatch(SHADER, entry, &ACCESS, &[more, sum], Some(&dims), grid))
}

/// Adds the dispatch `sum += more`, both `[rows, len]`, to the backward pass of the operation being planned.
pub(crate) fn plan(planner: &mut Planner<'_>, more: &wgpu::Buffer, sum: &wgpu::Buffer, len: usize) {
    let dims = planner.uniform(&[len as u32]);
    let grid = Grid::rows(1, len, 64);
    let dispatch = planner.dispatch(SHADER, "accumulate", &ACCESS, &[more, sum], Some(&dims), grid);
    planner.input_gradient.push(dispatch);
}
