//! GPU dispatches of `elementwise_loss.wgsl`.

use super::{ElementwiseLoss, Measure};
use crate::{
    backend::gpu::{Access, Grid, Planner},
    ops::Reduction,
};

const SHADER: (&str, &str) = (
    "elementwise_loss",
    include_str!(concat!(env!("OUT_DIR"), "/elementwise_loss.wgsl")),
);
const ACCESS: [Access; 5] = [
    Access::Read,
    Access::Read,
    Access::Write,
    Access::Write,
    Access::Write,
];

impl ElementwiseLoss {
    pub(super) fn plan(
        &self,
        planner: &mut Planner<'_>,
        outputs: &wgpu::Buffer,
        d_outputs: &wgpu::Buffer,
        reduction: Reduction,
    ) {
        let measure = u32::from(self.measure == Measure::SigmoidCrossEntropy);
        let per_example = u32::from(reduction == Reduction::Example);
        let dims = planner.uniform(&[self.len as u32, measure, per_example]);
        let row_losses = planner.per_row("row losses", 1);
        let (targets, losses) = (planner.labels.clone(), planner.losses.clone());
        let bound = [outputs, &targets, d_outputs, &row_losses, &losses];
        for (entry, grid) in [("gradient", Grid::rows(1, 1, 1)), ("reduce", Grid::one())] {
            let dispatch = planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid);
            planner.forward.push(dispatch);
        }
    }
}
