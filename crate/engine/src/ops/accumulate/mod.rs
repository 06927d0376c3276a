//! Adding one gradient to another, where a value is read more than once. On the CPU a loop of the back end.

use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = (
    "accumulate",
    include_str!(concat!(env!("OUT_DIR"), "/accumulate.wgsl")),
);

/// Adds the dispatch `sum += more`, both `[rows, len]`, to the backward pass of the operation being planned.
pub(crate) fn plan(planner: &mut Planner<'_>, more: &wgpu::Buffer, sum: &wgpu::Buffer, len: usize) {
    let dims = planner.uniform(&[len as u32]);
    let access = [Access::Read, Access::Write];
    let grid = Grid::rows(1, len, 64);
    let dispatch = planner.dispatch(SHADER, "accumulate", &access, &[more, sum], Some(&dims), grid);
    planner.input_gradient.push(dispatch);
}
