//! GPU dispatch of `sgd.wgsl`.

use super::Sgd;
use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = ("sgd", include_str!(concat!(env!("OUT_DIR"), "/sgd.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Write, Access::Write];

impl Sgd {
    /// Adds the update of `parameters` (`[len]`) by `gradient` to a plan.
    pub(crate) fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        gradient: &wgpu::Buffer,
        parameters: &wgpu::Buffer,
        velocity: &wgpu::Buffer,
    ) {
        let dims = [len as u32, self.momentum.to_bits()];
        let dims = planner.uniform(&dims);
        let entry = if self.momentum == 0.0 { "plain" } else { "momentum" };
        let bound = [gradient, parameters, velocity];
        let update = planner.dispatch(
            SHADER,
            entry,
            &ACCESS,
            &bound,
            Some(&dims),
            Grid::linear(len, 256),
        );
        planner.update.push(update);
    }
}
