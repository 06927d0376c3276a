//! GPU dispatch of `adam.wgsl`.

use std::ops::Range;

use super::{super::UpdateBuffers, Adam};
use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = ("adam", include_str!(concat!(env!("OUT_DIR"), "/adam.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Write, Access::Write];

impl Adam {
    /// Adds the update of the parameters in `range` of `len` to a plan.
    pub(crate) fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        range: &Range<usize>,
        buffers: &UpdateBuffers<'_>,
    ) {
        let dims = planner.uniform(&[
            range.start as u32,
            range.end as u32,
            len as u32,
            self.betas[0].to_bits(),
            self.betas[1].to_bits(),
            self.epsilon.to_bits(),
            self.weight_decay.to_bits(),
        ]);
        let bound = [buffers.gradient, buffers.parameters, buffers.state];
        let grid = Grid::linear(range.len(), 256);
        let update = planner.dispatch(SHADER, "update", &ACCESS, &bound, Some(&dims), grid);
        planner.update.push(update);
    }
}
