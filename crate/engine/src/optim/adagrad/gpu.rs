//! GPU dispatch of `adagrad.wgsl`.

use std::ops::Range;

use super::{super::UpdateBuffers, Adagrad};
use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = ("adagrad", include_str!(concat!(env!("OUT_DIR"), "/adagrad.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Write, Access::Write];

impl Adagrad {
    /// Adds the update of the parameters in `range` to a plan.
    pub(crate) fn plan(&self, planner: &mut Planner<'_>, range: &Range<usize>, buffers: &UpdateBuffers<'_>) {
        let dims = planner.uniform(&[range.start as u32, range.end as u32, self.epsilon.to_bits()]);
        let bound = [buffers.gradient, buffers.parameters, buffers.state];
        let grid = Grid::linear(range.len(), 256);
        let update = planner.dispatch(SHADER, "update", &ACCESS, &bound, Some(&dims), grid);
        planner.update.push(update);
    }
}
