//! Adagrad (Duchi, Hazan, Singer 2011, figure 1 with a diagonal matrix): `s ← s + g²`, `w ← w − learning_rate · g / (√s + ε)`. State: `s`.

#[cfg(feature = "gpu")]
mod gpu;

use super::{StepNumbers, in_range, learning_rate};
use crate::{
    SpecError,
    backend::matrix::lane::{Lane, each_lane},
};

/// The optimiser: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adagrad {
    /// Step size, above 0.
    pub learning_rate: f32,
    /// What the sums of squares begin with, at least 0.
    pub initial_accumulator: f32,
    /// ε, above 0.
    pub epsilon: f32,
}

impl Adagrad {
    pub(crate) fn new(rate: f32, initial: f32, epsilon: f32) -> Result<Self, SpecError> {
        Ok(Self {
            learning_rate: learning_rate(rate)?,
            initial_accumulator: in_range(
                "optimizer.initial_accumulator",
                initial,
                initial >= 0.0,
                "at least 0",
            )?,
            epsilon: in_range(
                "optimizer.epsilon",
                epsilon,
                epsilon > 0.0,
                "a finite number above 0",
            )?,
        })
    }

    /// One update of `parameters` by `gradient`; all slices are as long.
    pub(crate) fn update_cpu(
        &self,
        numbers: StepNumbers,
        parameters: &mut [f32],
        gradient: &[f32],
        sums: &mut [f32],
    ) {
        let len = parameters.len();
        assert!(gradient.len() == len && sums.len() == len, "lengths");
        let (w, g, s) = (parameters.as_mut_ptr(), gradient.as_ptr(), sums.as_mut_ptr());
        each_lane!(len, |at: L| {
            // SAFETY: all are as long.
            unsafe {
                let g = L::load(g.add(at));
                let sum = L::load(s.add(at)).add_product(g, g);
                sum.store(s.add(at));
                let step = g.mul(L::splat(numbers.learning_rate));
                let step = step.div(sum.sqrt().add(L::splat(self.epsilon)));
                L::load(w.add(at)).sub(step).store(w.add(at));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_follow_the_algorithm() {
        let adagrad = Adagrad::new(0.5, 0.0, 1e-7).unwrap();
        let (mut w, mut s) = ([1.0f32], [0.0]);
        let numbers = StepNumbers {
            learning_rate: 0.5,
            ..StepNumbers::default()
        };
        adagrad.update_cpu(numbers, &mut w, &[3.0], &mut s);
        assert!(
            (w[0] - 0.5).abs() < 1e-6,
            "the first step is the learning rate: {w:?}"
        );
        adagrad.update_cpu(numbers, &mut w, &[4.0], &mut s);
        assert!((w[0] - 0.1).abs() < 1e-6, "0.5 · 4 / √25: {w:?}");
        assert!(Adagrad::new(0.5, -1.0, 1e-7).is_err() && Adagrad::new(0.5, 0.0, 0.0).is_err());
    }
}
