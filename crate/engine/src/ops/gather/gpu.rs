//! GPU dispatch of `gather.wgsl`.

use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = ("gather", include_str!(concat!(env!("OUT_DIR"), "/gather.wgsl")));
const ACCESS: [Access; 5] = [
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Write,
    Access::Write,
];

/// Adds the dispatch that fills `x` and the planner's labels from the data set.
pub(crate) fn plan(
    planner: &mut Planner<'_>,
    data: [&wgpu::Buffer; 3],
    x: &wgpu::Buffer,
    features: usize,
    targets: usize,
) {
    let dims = planner.uniform(&[features as u32, targets as u32]);
    let labels = planner.labels.clone();
    let [data_x, data_y, order] = data;
    let bound = [data_x, data_y, order, x, &labels];
    let grid = Grid::rows(1, features.max(targets), 256);
    let gather = planner.dispatch(SHADER, "gather", &ACCESS, &bound, Some(&dims), grid);
    planner.forward.push(gather);
}
