//! CPU kernels.

use super::{Activation, Function};
use crate::ops::{Forward, InputGradient, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// √(2/π).
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// `1 / (1 + e⁻ˣ)`; e⁻ˣ may overflow to infinity, which gives the right 0.
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (ROOT * (x + CUBIC * x * x * x)).tanh())
}

fn d_gelu(x: f32) -> f32 {
    let t = (ROOT * (x + CUBIC * x * x * x)).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT * (1.0 + 3.0 * CUBIC * x * x)
}

impl Op for Activation {
    fn forward_cpu(&self, pass: Forward<'_>) {
        let function = match self.function {
            Function::Gelu => gelu,
            Function::Tanh => f32::tanh,
            Function::Sigmoid => sigmoid,
        };
        for (y, &x) in pass.y.iter_mut().zip(pass.x) {
            *y = function(x);
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
