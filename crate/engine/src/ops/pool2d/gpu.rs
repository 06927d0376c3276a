//! GPU dispatches of `pool2d.wgsl`.

use super::{Pool2d, Pooling};
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};

const SHADER: (&str, &str) = ("pool2d", include_str!(concat!(env!("OUT_DIR"), "/pool2d.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Write, Access::Write];

impl Pool2d {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let (forward, gradient) = match self.pooling {
            Pooling::Max => ("maximum", "max_gradient"),
            Pooling::Average => ("average", "average_gradient"),
        };
        let dims = planner.uniform(&self.window.numbers());
        let &OpBuffers {
            x, y, dy, dx, kept, ..
        } = buffers;
        let mut dispatch = |entry, from, to, len| {
            let grid = Grid::rows(1, len, 64);
            planner.dispatch(SHADER, entry, &ACCESS, &[from, kept, to], Some(&dims), grid)
        };
        let forward = dispatch(forward, x, y, self.output_len());
        let gradient = dx.map(|dx| dispatch(gradient, dy, dx, self.window.image_len()));
        planner.forward.push(forward);
        planner.input_gradient.extend(gradient);
        Ok(())
    }
}
