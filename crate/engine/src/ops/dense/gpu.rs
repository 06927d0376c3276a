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
    pub(in crate::ops) fn plan(
        &self,
        planner: &mut Planner<'_>,
        buffers: &OpBuffers<'_>,
    ) -> Result<(), EngineError> {
        let dims = planner.uniform(&[
            self.inputs as u32,
            self.outputs as u32,
            self.offset as u32,
            self.positions as u32,
            u32::from(self.relu),
        ]);
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let mut dispatch = |entry, bound: [&wgpu::Buffer; 3], grid| {
            planner.dispatch(("dense", SHADER), entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let forward = dispatch(
            "forward",
            [x, parameters, y],
            Grid::positions(TILE, self.positions, self.outputs, TILE),
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
                Grid::positions(TILE, self.positions, self.inputs, TILE),
            )
        });
        let mask = self.relu.then(|| {
            let grid = Grid::rows(1, self.positions * self.outputs, 64);
            planner.dispatch(("dense", SHADER), "mask", &ACCESS, &[y, y, dy], Some(&dims), grid)
        });
        planner.forward.push(forward);
        if let Some(mask) = mask {
            planner.input_gradient.push(mask);
        }
        planner.parameter_gradient.push(gradient);
        planner.input_gradient.extend(input_gradient);
        Ok(())
    }
}
