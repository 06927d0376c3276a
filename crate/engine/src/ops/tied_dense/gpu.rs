//! GPU dispatches of `tied_dense.wgsl`.

use super::TiedDense;
use crate::backend::gpu::{Access, Grid, OpBuffers, Planner};

const SHADER: (&str, &str) = (
    "tied_dense",
    include_str!(concat!(env!("OUT_DIR"), "/tied_dense.wgsl")),
);
/// Elements that one workgroup covers in each direction: 8 invocations of 4.
const TILE: usize = 32;
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];

impl TiedDense {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) {
        let (units, vocabulary) = (self.embedding.units, self.embedding.vocabulary);
        let dims = planner.uniform(&[
            units as u32,
            vocabulary as u32,
            self.embedding.offset as u32,
            self.bias as u32,
            self.positions as u32,
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
            planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let forward = dispatch(
            "forward",
            [x, parameters, y],
            Grid::positions(TILE, self.positions, vocabulary, TILE),
        );
        let gradient = dispatch(
            "gradient",
            [x, dy, d_parameters],
            Grid::fixed(vocabulary, TILE, units + 1, TILE),
        );
        let input_gradient = dx.map(|dx| {
            let grid = Grid::positions(TILE, self.positions, units, TILE);
            dispatch("input_gradient", [dy, parameters, dx], grid)
        });
        planner.forward.push(forward);
        planner.parameter_gradient.push(gradient);
        planner.input_gradient.extend(input_gradient);
    }
}
