//! GPU dispatches of `softmax_cross_entropy.wgsl`.

use super::SoftmaxCrossEntropy;
use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = (
    "softmax_cross_entropy",
    include_str!(concat!(env!("OUT_DIR"), "/softmax_cross_entropy.wgsl")),
);
const ACCESS: [Access; 5] = [
    Access::Read,
    Access::Read,
    Access::Write,
    Access::Write,
    Access::Write,
];

impl SoftmaxCrossEntropy {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, outputs: &wgpu::Buffer, d_outputs: &wgpu::Buffer) {
        let dims = planner.uniform(&[self.classes as u32]);
        let row_losses = planner.per_row("row losses", 1);
        let (labels, losses) = (planner.labels.clone(), planner.losses.clone());
        let bound = [outputs, &labels, d_outputs, &row_losses, &losses];
        for (entry, grid) in [("gradient", Grid::per_row(64)), ("reduce", Grid::one())] {
            let dispatch = planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid);
            planner.forward.push(dispatch);
        }
    }
}
