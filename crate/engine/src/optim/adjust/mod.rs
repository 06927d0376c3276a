//! What is added to the gradient before the optimiser sees it: `g ← g + λ·w + μ·(w − w₀) + c`.
//!
//! λ is L2 regularisation, μ the proximal term of FedProx (Li et al. 2020, equation 2) with `w₀` the parameters that training began
//! with, and `c` the correction of SCAFFOLD, the shared minus the client's own control variate (Karimireddy et al. 2020,
//! algorithm 1, line 10).

#[cfg(feature = "gpu")]
mod gpu;

use super::in_range;
use crate::{SpecError, TrainSpec, backend::vector::add_scaled};

/// The terms: see the module.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Adjust {
    pub weight_decay: f32,
    pub proximal: f32,
    /// `w₀`, `[d]`; empty where μ is 0.
    pub start: Vec<f32>,
    /// `c`, `[d]`; empty where there is none.
    pub correction: Vec<f32>,
}

impl Adjust {
    pub fn new(spec: &TrainSpec, start: &[f32], correction: &[f32]) -> Result<Self, SpecError> {
        let TrainSpec {
            weight_decay,
            proximal,
            ..
        } = *spec;
        let at_least_0 = |field, value: f32| in_range(field, value, value >= 0.0, "at least 0");
        Ok(Self {
            weight_decay: at_least_0("weight_decay", weight_decay)?,
            proximal: at_least_0("proximal", proximal)?,
            start: if proximal == 0.0 {
                Vec::new()
            } else {
                start.to_vec()
            },
            correction: correction.to_vec(),
        })
    }

    /// Whether there is anything to add.
    #[cfg(any(feature = "gpu", test))]
    pub fn is_nothing(&self) -> bool {
        self.weight_decay == 0.0 && self.proximal == 0.0 && self.correction.is_empty()
    }

    /// Adds the terms to `gradient`, `[d]`.
    pub fn add_cpu(&self, parameters: &[f32], gradient: &mut [f32]) {
        let of_weight = self.weight_decay + self.proximal;
        if of_weight != 0.0 {
            add_scaled(gradient, parameters, of_weight);
        }
        for (term, factor) in [(&self.start, -self.proximal), (&self.correction, 1.0)] {
            if !term.is_empty() {
                add_scaled(gradient, term, factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_are_those_of_the_papers() {
        let adjust = Adjust {
            weight_decay: 0.5,
            proximal: 2.0,
            start: vec![1.0, -1.0],
            correction: vec![0.25, 0.0],
        };
        let mut gradient = [1.0, 1.0];
        adjust.add_cpu(&[3.0, 0.0], &mut gradient);
        assert_eq!(gradient, [1.0 + 1.5 + 4.0 + 0.25, 1.0 + 2.0]);
        assert!(!adjust.is_nothing() && Adjust::default().is_nothing());
    }
}
