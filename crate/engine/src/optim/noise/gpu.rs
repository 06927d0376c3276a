//! GPU dispatch of `noise.wgsl`.

use super::Noise;
use crate::backend::gpu::{Access, Grid, Planner};

const SHADER: (&str, &str) = ("noise", include_str!(concat!(env!("OUT_DIR"), "/noise.wgsl")));
const ACCESS: [Access; 2] = [Access::Read, Access::Write];

impl Noise {
    /// Adds the noise for `len` parameters to a plan: `noise` holds that of the step, in grid steps.
    pub(crate) fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        noise: &wgpu::Buffer,
        gradient: &wgpu::Buffer,
    ) {
        let dims = planner.uniform(&[len as u32, self.per_unit.to_bits(), self.unit.to_bits()]);
        let grid = Grid::linear(len, 256);
        let add = planner.dispatch(SHADER, "add", &ACCESS, &[noise, gradient], Some(&dims), grid);
        planner.update.push(add);
    }
}
