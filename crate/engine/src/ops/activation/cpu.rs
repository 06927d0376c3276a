//! CPU kernels.

use super::{Activation, Function};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::{
        matrix::lane::{Lane, each_lane},
        vector::{logistic, tanh},
    },
    ops::{Forward, InputGradient, Op, exponential},
};

/// √(2/π).
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// `tanh(√(2/π)·(x + 0.044715·x³))`.
#[inline(always)]
fn squashed<L: Lane>(x: L) -> L {
    let cubic = x.mul(x).mul(x).mul(L::splat(CUBIC));
    exponential::tanh(x.add(cubic).mul(L::splat(ROOT)))
}

fn gelu(values: &mut [f32]) {
    let (values, len) = (values.as_mut_ptr(), values.len());
    each_lane!(len, |at: L| {
        // SAFETY: inside.
        unsafe {
            let x = L::load(values.add(at));
            let half = L::splat(0.5).mul(x);
            half.add_product(half, squashed(x)).store(values.add(at));
        }
    });
}

#[inline(always)]
fn d_gelu<L: Lane>(x: L) -> L {
    let (one, half, t) = (L::splat(1.0), L::splat(0.5), squashed(x));
    let steepness = one
        .add_product(x.mul(x), L::splat(3.0 * CUBIC))
        .mul(L::splat(ROOT));
    let slope = one.sub(t.mul(t)).mul(steepness);
    half.mul(one.add(t)).add_product(half.mul(x), slope)
}

impl Op for Activation {
    fn forward_cpu(&self, pass: Forward<'_>) {
        pass.y.copy_from_slice(pass.x);
        match self.function {
            Function::Gelu => gelu(pass.y),
            Function::Tanh => tanh(pass.y),
            Function::Sigmoid => logistic(pass.y),
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let Some(dx) = pass.dx else { return };
        let len = dx.len();
        assert!(
            pass.x.len() == len && pass.y.len() == len && pass.dy.len() == len,
            "lengths"
        );
        let (x, y, dy, dx) = (
            pass.x.as_ptr(),
            pass.y.as_ptr(),
            pass.dy.as_ptr(),
            dx.as_mut_ptr(),
        );
        each_lane!(len, |at: L| {
            // SAFETY: all are as long.
            unsafe {
                let y = L::load(y.add(at));
                let slope = match self.function {
                    Function::Gelu => d_gelu(L::load(x.add(at))),
                    Function::Tanh => L::splat(1.0).sub(y.mul(y)),
                    Function::Sigmoid => y.mul(L::splat(1.0).sub(y)),
                };
                L::load(dy.add(at)).mul(slope).store(dx.add(at));
            }
        });
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers);
        Ok(())
    }
}
