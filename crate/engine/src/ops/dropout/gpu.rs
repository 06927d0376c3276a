//! GPU dispatches of `dropout.wgsl`.

use super::Dropout;
use crate::backend::gpu::{Access, Grid, OpBuffers, Planner};

const SHADER: (&str, &str) = ("dropout", include_str!(concat!(env!("OUT_DIR"), "/dropout.wgsl")));
const ACCESS: [Access; 2] = [Access::Read, Access::Write];

impl Dropout {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) {
        let dims = planner.uniform(&[self.len as u32, self.threshold, self.scale.to_bits(), self.salt]);
        let grid = Grid::rows(1, self.len, 64);
        let mut apply = |from, to| planner.dispatch(SHADER, "apply", &ACCESS, &[from, to], Some(&dims), grid);
        let forward = apply(buffers.x, buffers.y);
        let backward = buffers.dx.map(|dx| apply(buffers.dy, dx));
        planner.forward.push(forward);
        planner.input_gradient.extend(backward);
    }
}
