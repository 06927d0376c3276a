//! CPU kernels.

use super::{Activation, Function};
use crate::ops::{
    Forward, InputGradient, Op,
    exponential::{logistic, tanh},
};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// √(2/π).
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(ROOT * (x + CUBIC * x * x * x)))
}

fn d_gelu(x: f32) -> f32 {
    let t = tanh(ROOT * (x + CUBIC * x * x * x));
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT * (1.0 + 3.0 * CUBIC * x * x)
}

#[inline(always)]
fn map(x: &[f32], y: &mut [f32], function: impl Fn(f32) -> f32) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = function(x);
    }
}

impl Op for Activation {
    fn forward_cpu(&self, pass: Forward<'_>) {
        match self.function {
            Function::Gelu => map(pass.x, pass.y, gelu),
            Function::Tanh => map(pass.x, pass.y, tanh),
            Function::Sigmoid => map(pass.x, pass.y, logistic),
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let Some(dx) = pass.dx else { return };
        let slopes = pass.x.iter().zip(pass.y);
        for ((dx, dy), (&x, &y)) in dx.iter_mut().zip(pass.dy.iter()).zip(slopes) {
            *dx = dy
                * match self.function {
                    Function::Gelu => d_gelu(x),
                    Function::Tanh => 1.0 - y * y,
                    Function::Sigmoid => y * (1.0 - y),
                };
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers);
        Ok(())
    }
}
