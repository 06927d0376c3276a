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
        let positions = planner.max_rows() * self.positions;
        let dims = planner.uniform(&[self.classes as u32, self.positions as u32, positions as u32]);
        let position_losses = planner.fixed("position losses", positions + 1);
        let (labels, losses) = (planner.labels.clone(), planner.losses.clone());
        let bound = [outputs, &labels, d_outputs, &position_losses, &losses];
        for (entry, grid) in [
            ("count", Grid::one()),
            ("gradient", Grid::rows(1, self.positions, 64)),
            ("reduce", Grid::one()),
        ] {
            let dispatch = planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid);
            planner.forward.push(dispatch);
        }
    }
}
