//! Stochastic gradient descent with momentum: heavy-ball (Polyak 1964) in the form of Sutskever et al. 2013, equations 1 and 2,
//! `v ← momentum · v + g`, `w ← w − learning_rate · v`; with `nesterov`, `w ← w − learning_rate · (g + momentum · v)` (the form of
//! Bengio et al. 2013, equation 7, in the new variable). Without momentum there is no state.

#[cfg(feature = "gpu")]
mod gpu;

use super::{StepNumbers, in_range, learning_rate};
use crate::{
    SpecError,
    backend::{
        matrix::lane::{Lane, each_lane},
        vector::add_scaled,
    },
};

/// The optimiser: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Step size, above 0.
    pub learning_rate: f32,
    /// Share of the last step that carries on, `0.0 ≤ momentum < 1.0`.
    pub momentum: f32,
    /// Whether the gradient is taken as if the momentum had already moved the parameters.
    pub nesterov: bool,
}

impl Sgd {
    pub(crate) fn new(rate: f32, momentum: f32, nesterov: bool) -> Result<Self, SpecError> {
        let fits = (0.0..1.0).contains(&momentum);
        Ok(Self {
            learning_rate: learning_rate(rate)?,
            momentum: in_range("optimizer.momentum", momentum, fits, "at least 0 and below 1")?,
            nesterov,
        })
    }

    /// Numbers of state per parameter.
    pub(crate) const fn state_per_parameter(&self) -> usize {
        if self.momentum == 0.0 { 0 } else { 1 }
    }

    /// One update without momentum.
    pub(crate) fn update_plain_cpu(&self, numbers: StepNumbers, parameters: &mut [f32], gradient: &[f32]) {
        add_scaled(parameters, gradient, -numbers.learning_rate);
    }

    /// One update of `parameters` by `gradient`; all slices are as long.
    pub(crate) fn update_cpu(
        &self,
        numbers: StepNumbers,
        parameters: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
    ) {
        // Nesterov's step is g + momentum · v, the heavy ball's is v itself.
        let (of_gradient, of_velocity) = if self.nesterov {
            (1.0, self.momentum)
        } else {
            (0.0, 1.0)
        };
        let len = parameters.len();
        assert!(gradient.len() == len && velocity.len() == len, "lengths");
        let (w, g, v) = (parameters.as_mut_ptr(), gradient.as_ptr(), velocity.as_mut_ptr());
        each_lane!(len, |at: L| {
            // SAFETY: all are as long.
            unsafe {
                let g = L::load(g.add(at));
                let velocity = g.add_product(L::load(v.add(at)), L::splat(self.momentum));
                velocity.store(v.add(at));
                let step = g
                    .mul(L::splat(of_gradient))
                    .add_product(velocity, L::splat(of_velocity));
                L::load(w.add(at))
                    .add_product(step, L::splat(-numbers.learning_rate))
                    .store(w.add(at));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_follows_the_recurrence() {
        for (nesterov, expected) in [(false, [0.0, -1.25]), (true, [-0.25, -1.5625])] {
            let sgd = Sgd::new(0.5, 0.25, nesterov).unwrap();
            let (mut w, mut v) = ([1.0], [0.0]);
            let numbers = StepNumbers {
                learning_rate: 0.5,
                ..StepNumbers::default()
            };
            for expected in expected {
                sgd.update_cpu(numbers, &mut w, &[2.0], &mut v);
                assert_eq!(w, [expected]);
            }
            assert_eq!(v, [2.5]);
        }
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for (rate, momentum) in [
            (0.0, 0.0),
            (-1.0, 0.0),
            (f32::NAN, 0.0),
            (f32::INFINITY, 0.0),
            (0.1, 1.0),
            (0.1, -0.1),
            (0.1, f32::NAN),
        ] {
            assert!(
                matches!(Sgd::new(rate, momentum, false), Err(SpecError::Training { .. })),
                "{rate} {momentum}"
            );
        }
    }
}
