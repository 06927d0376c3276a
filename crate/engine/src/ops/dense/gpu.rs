//! GPU dispatches of `dense.wgsl`, and of `dense_wide.wgsl` where the lengths allow it.

use super::Dense;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};

const SHADER: (&str, &str) = ("dense", include_str!(concat!(env!("OUT_DIR"), "/dense.wgsl")));
/// Elements that one workgroup covers in each direction: 8 invocations of 4.
const TILE: usize = 32;
const WIDE: (&str, &str) = (
    "dense_wide",
    include_str!(concat!(env!("OUT_DIR"), "/dense_wide.wgsl")),
);
/// As above, 8 invocations of 8.
const WIDE_TILE: usize = 64;
/// Numbers in one load of the wide kernels.
const LANES: usize = 4;
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];

impl Dense {
    pub(in crate::ops) fn plan(
        &self,
        planner: &mut Planner<'_>,
        buffers: &OpBuffers<'_>,
    ) -> Result<(), EngineError> {
        let wide = [self.inputs, self.outputs, self.offset]
            .iter()
            .all(|len| len.is_multiple_of(LANES));
        let (shader, tile, unit) = if wide {
            (WIDE, WIDE_TILE, LANES)
        } else {
            (SHADER, TILE, 1)
        };
        let shape = |unit: usize| {
            [
                (self.inputs / unit) as u32,
                (self.outputs / unit) as u32,
                (self.offset / unit) as u32,
                self.positions as u32,
                u32::from(self.relu),
            ]
        };
        let dims = planner.uniform(&shape(unit));
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
            planner.dispatch(shader, entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let forward = dispatch(
            "forward",
            [x, parameters, y],
            Grid::positions(tile, self.positions, self.outputs, tile),
        );
        // The narrow kernel's gradient has the bias as one line more.
        let lines = if wide { self.inputs } else { self.inputs + 1 };
        let gradient = dispatch(
            "gradient",
            [x, dy, d_parameters],
            Grid::fixed(lines, tile, self.outputs, tile),
        );
        let bias_gradient = wide.then(|| {
            let grid = Grid::linear(self.outputs / LANES, 64);
            dispatch("bias_gradient", [x, dy, d_parameters], grid)
        });
        let input_gradient = dx.map(|dx| {
            dispatch(
                "input_gradient",
                [dy, parameters, dx],
                Grid::positions(tile, self.positions, self.inputs, tile),
            )
        });
        let mask = self.relu.then(|| {
            let dims = planner.uniform(&shape(1));
            let grid = Grid::rows(1, self.positions * self.outputs, 64);
            planner.dispatch(SHADER, "mask", &ACCESS, &[y, y, dy], Some(&dims), grid)
        });
        planner.forward.push(forward);
        planner.input_gradient.extend(mask);
        planner.parameter_gradient.push(gradient);
        planner.parameter_gradient.extend(bias_gradient);
        planner.input_gradient.extend(input_gradient);
        Ok(())
    }
}
