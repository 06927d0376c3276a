//! GPU dispatch of `sgd.wgsl`.

use std::ops::Range;

use super::{super::UpdateBuffers, Sgd};
use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = ("sgd", include_str!(concat!(env!("OUT_DIR"), "/sgd.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Write, Access::Write];

impl Sgd {
    /// Adds the update of the parameters in `range` to a plan.
    pub(crate) fn plan(&self, planner: &mut Planner<'_>, range: &Range<usize>, buffers: &UpdateBuffers<'_>) {
        let dims = planner.uniform(&[
            range.start as u32,
            range.end as u32,
            self.momentum.to_bits(),
            u32::from(self.nesterov),
        ]);
        let entry = if self.momentum == 0.0 { "plain" } else { "momentum" };
        let bound = [buffers.gradient, buffers.parameters, buffers.state];
        let grid = Grid::linear(range.len(), 1024);
        let update = planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid);
        planner.update.push(update);
    }
}
