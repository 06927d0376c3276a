//! CPU kernels.

use super::{Dropout, hash};
use crate::ops::{Forward, InputGradient, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

impl Dropout {
    /// `out = values`, less what is dropped.
    fn apply(&self, step_key: Option<u32>, values: &[f32], out: &mut [f32]) {
        let Some(step_key) = step_key else {
            out.copy_from_slice(values);
            return;
        };
        let key = hash(step_key ^ self.salt);
        for (index, (out, value)) in out.iter_mut().zip(values).enumerate() {
            let dropped = hash(index as u32 ^ key) < self.threshold;
            *out = if dropped { 0.0 } else { value * self.scale };
        }
    }
}

impl Op for Dropout {
    fn forward_cpu(&self, pass: Forward<'_>) {
        self.apply(pass.step_key, pass.x, pass.y);
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        if let Some(dx) = pass.dx {
            self.apply(pass.step_key, pass.dy, dx);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 100,000 numbers at rate 0.3 the kept ones are binomial with deviation 145; 5 deviations are missed once in two million
    /// draws, and the keys are fixed.
    #[test]
    fn the_rate_is_kept_and_keys_draw_anew() {
        let dropout = Dropout {
            len: 100_000,
            threshold: (0.3 * 4_294_967_296.0) as u32,
            scale: 1.0 / 0.7,
            salt: 7,
        };
        let ones = vec![1.0; dropout.len];
        let mut masks = Vec::new();
        for key in [1, 2] {
            let mut out = vec![0.0; dropout.len];
            dropout.apply(Some(key), &ones, &mut out);
            let kept = out.iter().filter(|&&v| v > 0.0).count();
            assert!(kept.abs_diff(70_000) < 725, "{kept}");
            masks.push(out);
        }
        assert_ne!(masks[0], masks[1]);
        let mut out = vec![0.0; dropout.len];
        dropout.apply(None, &ones, &mut out);
        assert_eq!(out, ones);
    }
}
