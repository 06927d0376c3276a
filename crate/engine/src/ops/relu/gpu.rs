//! GPU dispatches of `relu.wgsl`.

use super::Relu;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};

const SHADER: &str = include_str!(concat!(env!("OUT_DIR"), "/relu.wgsl"));
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];

impl Relu {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let dims = planner.uniform(&[self.len as u32]);
        let &OpBuffers { x, y, dy, dx, .. } = buffers;
        let grid = Grid::rows(1, self.len, 64);
        let shader = ("relu", SHADER);
        let forward = planner.dispatch(shader, "forward", &ACCESS, &[x, x, y], Some(&dims), grid);
        planner.forward.push(forward);
        if let Some(dx) = dx {
            let backward = planner.dispatch(shader, "backward", &ACCESS, &[y, dy, dx], Some(&dims), grid);
            planner.input_gradient.push(backward);
        }
        Ok(())
    }
}
