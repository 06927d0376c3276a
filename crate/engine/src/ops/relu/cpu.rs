//! CPU kernels.

use super::Relu;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::matrix::lane::{Lane, each_lane},
    ops::{Forward, InputGradient, Op},
};

/// Rectifies in place.
fn rectify(values: &mut [f32]) {
    let (values, len) = (values.as_mut_ptr(), values.len());
    each_lane!(len, |at: L| {
        // SAFETY: inside.
        unsafe {
            let to = values.add(at);
            L::load(to).at_least(L::splat(0.0)).store(to);
        }
    });
}

/// Takes the gradient back through a rectifier whose output was `y`, in place.
pub(crate) fn mask(dy: &mut [f32], y: &[f32]) {
    assert!(dy.len() == y.len(), "lengths");
    let (dy, y, len) = (dy.as_mut_ptr(), y.as_ptr(), y.len());
    each_lane!(len, |at: L| {
        // SAFETY: both are as long.
        unsafe {
            let (to, zero) = (dy.add(at), L::splat(0.0));
            let passes = L::load(y.add(at)).greater(zero);
            passes.select(L::load(to), zero).store(to);
        }
    });
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
