//! CPU kernels: plain loops that the compiler turns into SIMD.

use super::Relu;
use crate::ops::{Forward, InputGradient, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// Rectifies in place.
pub(crate) fn rectify(values: &mut [f32]) {
    for y in values {
        *y = if *y < 0.0 { 0.0 } else { *y };
    }
}

/// Takes the gradient back through a rectifier whose output was `y`, in place.
pub(crate) fn mask(dy: &mut [f32], y: &[f32]) {
    for (dy, &y) in dy.iter_mut().zip(y) {
        *dy = if y > 0.0 { *dy } else { 0.0 };
    }
}

impl Op for Relu {
    fn forward_cpu(&self, pass: Forward<'_>) {
        pass.y.copy_from_slice(pass.x);
        rectify(pass.y);
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        if let Some(dx) = pass.dx {
            dx.copy_from_slice(pass.dy);
            mask(dx, pass.y);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
