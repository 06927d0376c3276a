//! GPU dispatches of `dense.wgsl`.

use super::Dense;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};

const SHADER: &str = include_str!(concat!(env!("OUT_DIR"), "/dense.wgsl"));
/// Elements that one workgroup covers in each direction: 8 invocations of 4.
const TILE: usize = 32;
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];

impl Dense {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let dims = planner.uniform(&[self.inputs as u32, self.outputs as u32, self.offset as u32]);
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            parameters,
            d_parameters,
        } = buffers;
        let mut dispatch = |entry, bound: [&wgpu::Buffer; 3], grid| {
            planner.dispatch(("dense", SHADER), entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let forward = dispatch(
            "forward",
            [x, parameters, y],
            Grid::rows(TILE, self.outputs, TILE),
        );
        let gradient = dispatch(
            "gradient",
            [x, dy, d_parameters],
            Grid::fixed(self.inputs + 1, TILE, self.outputs, TILE),
        );
        let input_gradient = dx.map(|dx| {
            dispatch(
                "input_gradient",
                [dy, parameters, dx],
                Grid::rows(TILE, self.inputs, TILE),
            )
        });
        planner.forward.push(forward);
        planner.backward.push(gradient);
        planner.backward.extend(input_gradient);
        Ok(())
    }
}
