//! CPU kernels: plain loops that the compiler turns into SIMD.

use super::Relu;
use crate::ops::{CpuBackward, CpuForward, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

impl Op for Relu {
    fn forward_cpu(&self, pass: CpuForward<'_>) {
        for (y, &x) in pass.y.iter_mut().zip(pass.x) {
            *y = if x < 0.0 { 0.0 } else { x };
        }
    }

    fn backward_cpu(&self, pass: CpuBackward<'_>) {
        if let Some(dx) = pass.dx {
            for ((dx, &dy), &x) in dx.iter_mut().zip(pass.dy).zip(pass.x) {
                *dx = if x > 0.0 { dy } else { 0.0 };
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
