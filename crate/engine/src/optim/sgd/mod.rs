//! Stochastic gradient descent with heavy-ball momentum (Polyak 1964), in the form of Sutskever et al. 2013, equations 1 and 2:
//! `v ← momentum · v + g`, `w ← w − learning_rate · v`. Without momentum there is no state.

#[cfg(feature = "gpu")]
mod gpu;

use super::StepNumbers;
use crate::SpecError;

/// The optimiser: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Step size, above 0.
    pub learning_rate: f32,
    /// Share of the last step that carries on, `0.0 ≤ momentum < 1.0`.
    pub momentum: f32,
}

impl Sgd {
    pub(crate) fn new(learning_rate: f32, momentum: f32) -> Result<Self, SpecError> {
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            let (field, found) = ("learning_rate", learning_rate.into());
            return Err(SpecError::Training {
                field,
                found,
                expected: "a finite number above 0",
            });
        }
        if !(0.0..1.0).contains(&momentum) {
            let (field, found) = ("momentum", momentum.into());
            return Err(SpecError::Training {
                field,
                found,
                expected: "at least 0 and below 1",
            });
        }
        Ok(Self {
            learning_rate,
            momentum,
        })
    }

    /// Numbers of state per parameter.
    pub(crate) const fn state_len(&self, parameters: usize) -> usize {
        if self.momentum == 0.0 { 0 } else { parameters }
    }

    /// One update of `parameters` by `gradient`, both `[d]`; `velocity` is `[state_len(d)]`.
    pub(crate) fn update_cpu(
        &self,
        numbers: StepNumbers,
        parameters: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
    ) {
        let rate = numbers.learning_rate;
        if velocity.is_empty() {
            for (w, g) in parameters.iter_mut().zip(gradient) {
                *w -= rate * g;
            }
            return;
        }
        for ((w, g), v) in parameters.iter_mut().zip(gradient).zip(velocity) {
            *v = self.momentum * *v + g;
            *w -= rate * *v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_follows_the_recurrence() {
        let sgd = Sgd::new(0.5, 0.25).unwrap();
        let (mut w, mut v) = ([1.0], [0.0]);
        let numbers = StepNumbers {
            step: 1,
            key: 0,
            learning_rate: 0.5,
        };
        sgd.update_cpu(numbers, &mut w, &[2.0], &mut v);
        assert_eq!((w, v), ([0.0], [2.0]));
        sgd.update_cpu(numbers, &mut w, &[2.0], &mut v);
        assert_eq!((w, v), ([-1.25], [2.5]));
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
                matches!(Sgd::new(rate, momentum), Err(SpecError::Training { .. })),
                "{rate} {momentum}"
            );
        }
    }
}
