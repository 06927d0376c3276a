//! GPU dispatches of `softmax_cross_entropy.wgsl`.

use super::SoftmaxCrossEntropy;
use crate::{
    backend::gpu::{Access, Grid, Planner},
    ops::Reduction,
};

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
/// Up to so many positions of a batch, one workgroup does all of them: fewer dispatches, and fewer kernels to compile.
const FEW_POSITIONS: usize = 256;
/// Up to so many classes, one invocation looks at all of a position's.
const FEW_CLASSES: usize = 64;

impl SoftmaxCrossEntropy {
    pub(super) fn plan(
        &self,
        planner: &mut Planner<'_>,
        outputs: &wgpu::Buffer,
        d_outputs: &wgpu::Buffer,
        reduction: Reduction,
    ) {
        let positions = planner.max_rows() * self.positions;
        let per_example = u32::from(reduction == Reduction::Example);
        let dims = planner.uniform(&[
            self.classes as u32,
            self.positions as u32,
            positions as u32,
            per_example,
        ]);
        let shares = planner.max_rows();
        let position_losses = planner.fixed("position losses", positions + shares);
        let wide = self.classes > FEW_CLASSES;
        let entries = if reduction == Reduction::Batch && !wide && positions <= FEW_POSITIONS {
            vec![("small", Grid::one())]
        } else {
            let count = match reduction {
                Reduction::Batch => ("count", Grid::one()),
                Reduction::Example => ("count_each", Grid::fixed(1, 1, shares, 64)),
            };
            let gradient = if wide {
                ("gradient_wide", Grid::rows(1, self.positions, 1))
            } else {
                ("gradient", Grid::rows(1, self.positions, 64))
            };
            vec![count, gradient, ("reduce", Grid::one())]
        };
        let (labels, losses) = (planner.labels.clone(), planner.losses.clone());
        let bound = [outputs, &labels, d_outputs, &position_losses, &losses];
        for (entry, grid) in entries {
            let dispatch = planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid);
            planner.forward.push(dispatch);
        }
    }
}
