//! GPU dispatches of `upsample2d.wgsl`.

use super::Upsample2d;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};

const SHADER: (&str, &str) = (
    "upsample2d",
    include_str!(concat!(env!("OUT_DIR"), "/upsample2d.wgsl")),
);
const ACCESS: [Access; 2] = [Access::Read, Access::Write];

impl Upsample2d {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let numbers = [self.height, self.width, self.channels, self.factor].map(|n| n as u32);
        let dims = planner.uniform(&numbers);
        let &OpBuffers { x, y, dy, dx, .. } = buffers;
        let mut dispatch = |entry, from, to, len| {
            let grid = Grid::rows(1, len, 64);
            planner.dispatch(SHADER, entry, &ACCESS, &[from, to], Some(&dims), grid)
        };
        let len = self.height * self.width * self.channels;
        let forward = dispatch("forward", x, y, len * self.factor * self.factor);
        let backward = dx.map(|dx| dispatch("backward", dy, dx, len));
        planner.forward.push(forward);
        planner.input_gradient.extend(backward);
        Ok(())
    }
}
