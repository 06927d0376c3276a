//! Adam (Kingma, Ba 2015, algorithm 1), and with decoupled weight decay AdamW (Loshchilov, Hutter 2019, algorithm 2).
//!
//! `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `w ← w − α·m̂ / (√v̂ + ε) − α·λ·w`, where `m̂ = m / (1 − β₁ᵗ)` and
//! `v̂ = v / (1 − β₂ᵗ)`. State: `m`, then `v`.
//!
//! Moments below [`TINY`] become 0: those of units that have died would otherwise decay into denormal numbers, on which wasm and
//! many processors are a hundred times slower. What is dropped moves a weight by less than `α · TINY / ε`, far below rounding.

#[cfg(feature = "gpu")]
mod gpu;

use super::{StepNumbers, in_range, learning_rate};
use crate::{
    SpecError,
    backend::matrix::lane::{Lane, each_lane},
};

/// The smallest moment that is kept.
pub const TINY: f32 = 1e-30;

/// The optimiser: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Step size α, above 0.
    pub learning_rate: f32,
    /// Decays β₁ and β₂, each at least 0 and below 1.
    pub betas: [f32; 2],
    /// ε, above 0.
    pub epsilon: f32,
    /// Decoupled weight decay λ, at least 0.
    pub weight_decay: f32,
}

impl Adam {
    pub(crate) fn new(
        rate: f32,
        betas: [f32; 2],
        epsilon: f32,
        weight_decay: f32,
    ) -> Result<Self, SpecError> {
        let beta =
            |field, beta: f32| in_range(field, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1");
        Ok(Self {
            learning_rate: learning_rate(rate)?,
            betas: [
                beta("optimizer.beta1", betas[0])?,
                beta("optimizer.beta2", betas[1])?,
            ],
            epsilon: in_range(
                "optimizer.epsilon",
                epsilon,
                epsilon > 0.0,
                "a finite number above 0",
            )?,
            weight_decay: in_range(
                "optimizer.weight_decay",
                weight_decay,
                weight_decay >= 0.0,
                "at least 0",
            )?,
        })
    }

    /// `1 / (1 − β₁ᵗ)` and `1 / (1 − β₂ᵗ)` of step `t`, from 1.
    pub(crate) fn corrections(&self, step: u32) -> [f32; 2] {
        self.betas
            .map(|beta| (1.0 / (1.0 - f64::from(beta).powi(step as i32))) as f32)
    }

    /// One update of `parameters` by `gradient`; all slices are as long.
    pub(crate) fn update_cpu(
        &self,
        numbers: StepNumbers,
        parameters: &mut [f32],
        gradient: &[f32],
        m: &mut [f32],
        v: &mut [f32],
    ) {
        let [beta1, beta2] = self.betas;
        let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
        let StepNumbers {
            learning_rate: rate,
            own: [correct1, correct2],
            ..
        } = numbers;
        let keep = 1.0 - rate * self.weight_decay;
        let rate = rate * correct1;
        let len = parameters.len();
        assert!(
            gradient.len() == len && m.len() == len && v.len() == len,
            "lengths"
        );
        let (w, g) = (parameters.as_mut_ptr(), gradient.as_ptr());
        let (m, v) = (m.as_mut_ptr(), v.as_mut_ptr());
        each_lane!(len, |at: L| {
            // SAFETY: all are as long.
            unsafe {
                let g = L::load(g.add(at));
                let mean = moment(L::load(m.add(at)), beta1, g.mul(L::splat(rest1)));
                mean.store(m.add(at));
                let square = moment(L::load(v.add(at)), beta2, g.mul(g).mul(L::splat(rest2)));
                square.store(v.add(at));
                let size = square.mul(L::splat(correct2)).sqrt().add(L::splat(self.epsilon));
                let step = mean.mul(L::splat(rate)).div(size);
                L::load(w.add(at)).mul(L::splat(keep)).sub(step).store(w.add(at));
            }
        });
    }
}

/// `decay · moment + more`, or 0 where that is less than [`TINY`].
#[inline(always)]
fn moment<L: Lane>(moment: L, decay: f32, more: L) -> L {
    let moment = more.add_product(moment, L::splat(decay));
    L::splat(TINY).greater(moment.abs()).select(L::splat(0.0), moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps in f64, straight from the paper.
    #[test]
    fn updates_follow_the_algorithm() {
        for weight_decay in [0.0, 0.1] {
            let adam = Adam::new(0.01, [0.9, 0.999], 1e-8, weight_decay).unwrap();
            let (mut w, mut m, mut v) = ([0.5f32], [0.0], [0.0]);
            let (mut w64, mut m64, mut v64) = (0.5f64, 0.0f64, 0.0f64);
            for (t, g) in [(1, 0.3f64), (2, -0.7), (3, 0.01)] {
                let numbers = StepNumbers {
                    learning_rate: 0.01,
                    own: adam.corrections(t),
                    key: 0,
                };
                adam.update_cpu(numbers, &mut w, &[g as f32], &mut m, &mut v);
                m64 = 0.9 * m64 + 0.1 * g;
                v64 = 0.999 * v64 + 0.001 * g * g;
                let (m_hat, v_hat) = (
                    m64 / (1.0 - 0.9f64.powi(t as i32)),
                    v64 / (1.0 - 0.999f64.powi(t as i32)),
                );
                w64 -= 0.01 * (m_hat / (v_hat.sqrt() + 1e-8) + f64::from(weight_decay) * w64);
                assert!((f64::from(w[0]) - w64).abs() < 1e-6, "step {t}: {} {w64}", w[0]);
            }
        }
    }

    #[test]
    fn moments_of_a_dead_unit_do_not_become_denormal() {
        let adam = Adam::new(0.01, [0.9, 0.999], 1e-7, 0.0).unwrap();
        let (mut w, mut m, mut v) = ([0.5f32], [1.0], [1e-20]);
        for step in 1..2000 {
            let numbers = StepNumbers {
                learning_rate: 0.01,
                own: adam.corrections(step),
                key: 0,
            };
            adam.update_cpu(numbers, &mut w, &[0.0], &mut m, &mut v);
            assert!(m[0] == 0.0 || m[0].is_normal(), "{}", m[0]);
        }
        assert_eq!(m, [0.0]);
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for (rate, betas, epsilon, decay) in [
            (0.0, [0.9, 0.99], 1e-7, 0.0),
            (0.1, [1.0, 0.99], 1e-7, 0.0),
            (0.1, [0.9, -0.1], 1e-7, 0.0),
            (0.1, [0.9, 0.99], 0.0, 0.0),
            (0.1, [0.9, 0.99], 1e-7, -1.0),
        ] {
            assert!(Adam::new(rate, betas, epsilon, decay).is_err());
        }
    }
}
