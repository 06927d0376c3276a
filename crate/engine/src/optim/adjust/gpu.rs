//! GPU dispatch of `adjust.wgsl`.

use super::{super::UpdateBuffers, Adjust};
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, Planner},
};

const SHADER: (&str, &str) = ("adjust", include_str!(concat!(env!("OUT_DIR"), "/adjust.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];

impl Adjust {
    /// Adds the terms for `len` parameters to a plan, where there are any.
    pub(crate) fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        buffers: &UpdateBuffers<'_>,
    ) -> Result<(), EngineError> {
        if self.is_nothing() {
            return Ok(());
        }
        // Everything but the parameters' share is the same in every step: −μ·w₀ + c.
        let constant: Vec<f32> = (0..len)
            .map(|at| {
                let start = self.start.get(at).map_or(0.0, |start| -self.proximal * start);
                start + self.correction.get(at).copied().unwrap_or(0.0)
            })
            .collect();
        let constant = planner.upload("gradient terms", &constant)?;
        let dims = planner.uniform(&[len as u32, (self.weight_decay + self.proximal).to_bits()]);
        let bound = [buffers.parameters, &constant, buffers.gradient];
        let grid = Grid::linear(len, 256);
        let adjust = planner.dispatch(SHADER, "adjust", &ACCESS, &bound, Some(&dims), grid);
        planner.update.push(adjust);
        Ok(())
    }
}
