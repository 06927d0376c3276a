//! GPU dispatches of `activation.wgsl`.

use super::{Activation, Function};
use crate::backend::gpu::{Access, Grid, OpBuffers, Planner};

const SHADER: (&str, &str) = (
    "activation",
    include_str!(concat!(env!("OUT_DIR"), "/activation.wgsl")),
);
const ACCESS: [Access; 4] = [Access::Read, Access::Read, Access::Read, Access::Write];

impl Activation {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) {
        let function = match self.function {
            Function::Gelu => 0,
            Function::Tanh => 1,
            Function::Sigmoid => 2,
        };
        let dims = planner.uniform(&[self.len as u32, function]);
        let grid = Grid::rows(1, self.len, 64);
        let &OpBuffers { x, y, dy, dx, .. } = buffers;
        let bound = [x, x, x, y];
        let forward = planner.dispatch(SHADER, "forward", &ACCESS, &bound, Some(&dims), grid);
        planner.forward.push(forward);
        if let Some(dx) = dx {
            let bound = [x, y, dy, dx];
            let backward = planner.dispatch(SHADER, "backward", &ACCESS, &bound, Some(&dims), grid);
            planner.input_gradient.push(backward);
        }
    }
}
