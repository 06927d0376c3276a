//! GPU dispatches of `embedding.wgsl`.

use super::Embedding;
use crate::{
    backend::gpu::{Access, Grid, OpBuffers, Planner},
    ops::ghost,
};

const SHADER: (&str, &str) = (
    "embedding",
    include_str!(concat!(env!("OUT_DIR"), "/embedding.wgsl")),
);
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];
/// Invocations of a workgroup.
const GROUP: usize = 64;

impl Embedding {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) {
        let dims = planner.uniform(&[
            self.time as u32,
            self.units as u32,
            self.offset as u32,
            self.vocabulary as u32,
        ]);
        let &OpBuffers {
            x,
            y,
            dy,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let mut dispatch = |entry, bound: [&wgpu::Buffer; 3], grid| {
            planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let positions = Grid::positions(1, self.time, self.units, GROUP);
        let forward = dispatch("forward", [x, parameters, y], positions);
        let clear = (!self.tied).then(|| {
            let grid = Grid::linear(self.vocabulary * self.units, GROUP);
            dispatch("clear", [x, dy, d_parameters], grid)
        });
        let gradient = dispatch("gradient", [x, dy, d_parameters], positions);
        planner.forward.push(forward);
        planner.parameter_gradient.extend(clear);
        planner.parameter_gradient.push(gradient);
        ghost::tokens_gpu(planner, x, dy, [self.time, self.units]);
        planner.scaled.push((dy.clone(), self.time * self.units));
    }
}
