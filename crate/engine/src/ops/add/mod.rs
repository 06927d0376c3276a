//! The sum of two values of one shape, where a residual branch ends: `y = x + other`, `dx = dy`, `d_other = dy` (He et al. 2016,
//! section 3.2, equation 1). Shapes, row-major: all of them `[rows, len]`.

#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};
use crate::{
    backend::vector::add_scaled,
    ops::{Forward, InputGradient, Op},
};

#[cfg(feature = "gpu")]
const SHADER: (&str, &str) = ("add", include_str!(concat!(env!("OUT_DIR"), "/add.wgsl")));

/// A sum: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Numbers per example.
    pub len: usize,
}

impl Op for Add {
    fn forward_cpu(&self, pass: Forward<'_>) {
        pass.y.copy_from_slice(pass.x);
        add_scaled(pass.y, pass.other, 1.0);
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        for target in [pass.dx, pass.d_other].into_iter().flatten() {
            target.copy_from_slice(pass.dy);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let dims = planner.uniform(&[self.len as u32]);
        let grid = Grid::rows(1, self.len, 64);
        let access = [Access::Read, Access::Read, Access::Write];
        let other = buffers.other.unwrap_or(buffers.x);
        let bound = [buffers.x, other, buffers.y];
        let forward = planner.dispatch(SHADER, "forward", &access, &bound, Some(&dims), grid);
        planner.forward.push(forward);
        for target in [buffers.dx, buffers.d_other].into_iter().flatten() {
            let bound = [buffers.dy, buffers.dy, target];
            let backward = planner.dispatch(SHADER, "backward", &access, &bound, Some(&dims), grid);
            planner.input_gradient.push(backward);
        }
        Ok(())
    }
}
