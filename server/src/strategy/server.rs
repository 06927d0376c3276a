//! Server optimisers: a round's direction Δₜ is taken for a (negative) gradient.
//!
//! With x the model, η the step size and all operations by coordinate:
//!
//! | | state | step |
//! |---|---|---|
//! | FedAvg (McMahan et al. 2017, algorithm 1) | | x ← x + ηΔ |
//! | FedAvgM (Hsu, Qi, Brown 2019, section 4.3) | m ← βm + Δ | x ← x + ηm |
//! | FedAdagrad | m ← β₁m + (1 − β₁)Δ, v ← v + Δ² | x ← x + ηm / (√v + τ) |
//! | FedAdam | the same m, v ← β₂v + (1 − β₂)Δ² | the same |
//! | FedYogi | the same m, v ← v − (1 − β₂)Δ² sign(v − Δ²) | the same |
//!
//! The last three are algorithm 2 of Reddi et al., “Adaptive Federated Optimization”, ICLR 2021
//! ([arXiv:2003.00295](https://arxiv.org/abs/2003.00295)), without bias correction as there, from m = 0 and v = τ² (which
//! the algorithm allows: v₋₁ ≥ τ²). The defaults are those of its experiments (section 5, appendix D.2): β₁ = 0.9 (0 for
//! FedAdagrad), β₂ = 0.99, τ = 10⁻³.

use serde::{Deserialize, Serialize};

use super::{LEAST_DIVISOR, StrategyError};

/// How a direction moves the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table: { type = \"fed-avg\" }, or another optimiser with what it needs"
)]
#[non_exhaustive]
pub enum ServerOptimizer {
    /// Along the direction.
    FedAvg {
        /// η, above 0; 1 is federated averaging.
        #[serde(default = "one")]
        learning_rate: f64,
    },
    /// Along a decaying sum of directions.
    FedAvgM {
        /// η, above 0.
        #[serde(default = "one")]
        learning_rate: f64,
        /// β, at least 0 and below 1.
        momentum: f64,
    },
    /// Steps that shrink with all squares so far.
    FedAdagrad {
        /// η, above 0.
        learning_rate: f64,
        /// β₁, at least 0 and below 1.
        #[serde(default)]
        beta1: f64,
        /// τ, above 0.
        #[serde(default = "default_tau")]
        tau: f64,
    },
    /// Steps by a decaying mean of squares.
    FedAdam {
        /// η, above 0.
        learning_rate: f64,
        /// β₁, at least 0 and below 1.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// β₂, at least 0 and below 1.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// τ, above 0.
        #[serde(default = "default_tau")]
        tau: f64,
    },
    /// As FedAdam, but what is remembered of squares shrinks no faster than it grows.
    FedYogi {
        /// η, above 0.
        learning_rate: f64,
        /// β₁, at least 0 and below 1.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// β₂, at least 0 and below 1.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// τ, above 0.
        #[serde(default = "default_tau")]
        tau: f64,
    },
}

const fn one() -> f64 {
    1.0
}

const fn default_beta1() -> f64 {
    0.9
}

const fn default_beta2() -> f64 {
    0.99
}

const fn default_tau() -> f64 {
    1e-3
}

impl Default for ServerOptimizer {
    fn default() -> Self {
        Self::FedAvg { learning_rate: one() }
    }
}

impl ServerOptimizer {
    /// The optimiser's name, as in a task file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::FedAvg { .. } => "fed-avg",
            Self::FedAvgM { .. } => "fed-avg-m",
            Self::FedAdagrad { .. } => "fed-adagrad",
            Self::FedAdam { .. } => "fed-adam",
            Self::FedYogi { .. } => "fed-yogi",
        }
    }

    pub(super) fn check(&self) -> Result<(), StrategyError> {
        let require = |ok: bool, field, value: f64, expected: &str| {
            let wrong = || StrategyError::new(field, format!("{value} is not {expected}"));
            ok.then_some(()).ok_or_else(wrong)
        };
        let positive = |field, value: f64| {
            let ok = value > 0.0 && value <= 1e6;
            require(ok, field, value, "a number above 0 and at most 1e6")
        };
        let divisor = |field, value: f64| {
            let ok = (LEAST_DIVISOR..=1e6).contains(&value);
            require(ok, field, value, "a number from 1e-12 to 1e6")
        };
        let decay = |field, value: f64| {
            let ok = (0.0..1.0).contains(&value);
            require(ok, field, value, "a number of at least 0 and below 1")
        };
        match *self {
            Self::FedAvg { learning_rate } => positive("server.learning_rate", learning_rate),
            Self::FedAvgM {
                learning_rate,
                momentum,
            } => {
                positive("server.learning_rate", learning_rate)?;
                decay("server.momentum", momentum)
            }
            Self::FedAdagrad {
                learning_rate,
                beta1,
                tau,
            } => {
                positive("server.learning_rate", learning_rate)?;
                decay("server.beta1", beta1)?;
                divisor("server.tau", tau)
            }
            Self::FedAdam {
                learning_rate,
                beta1,
                beta2,
                tau,
            }
            | Self::FedYogi {
                learning_rate,
                beta1,
                beta2,
                tau,
            } => {
                positive("server.learning_rate", learning_rate)?;
                decay("server.beta1", beta1)?;
                decay("server.beta2", beta2)?;
                divisor("server.tau", tau)
            }
        }
    }

    /// The state before the first round: m, then v, each `[d]` where the optimiser has it.
    pub(super) fn fresh(&self, d: usize) -> Vec<f32> {
        match *self {
            Self::FedAvg { .. } => Vec::new(),
            Self::FedAvgM { .. } => vec![0.0; d],
            Self::FedAdagrad { tau, .. } | Self::FedAdam { tau, .. } | Self::FedYogi { tau, .. } => {
                let mut state = vec![0.0; d];
                state.resize(2 * d, (tau * tau) as f32);
                state
            }
        }
    }

    /// One step from `parameters` along `direction`, both `[d]`.
    pub(super) fn step(&self, parameters: &[f32], direction: &[f64], state: &mut [f32]) -> Vec<f32> {
        let moved = |(&x, step): (&f32, f64)| (f64::from(x) + step) as f32;
        let adaptive =
            |state: &mut [f32], rate: f64, beta1: f64, tau: f64, square: &dyn Fn(f64, f64) -> f64| {
                let (m, v) = state.split_at_mut(parameters.len());
                let steps = direction.iter().zip(m.iter_mut().zip(v)).map(|(&delta, (m, v))| {
                    let mean = beta1 * f64::from(*m) + (1.0 - beta1) * delta;
                    let squares = square(f64::from(*v), delta * delta);
                    (*m, *v) = (mean as f32, squares as f32);
                    rate * mean / (squares.sqrt() + tau)
                });
                parameters.iter().zip(steps).map(moved).collect()
            };
        match *self {
            Self::FedAvg { learning_rate } => {
                let steps = direction.iter().map(|delta| learning_rate * delta);
                parameters.iter().zip(steps).map(moved).collect()
            }
            Self::FedAvgM {
                learning_rate,
                momentum,
            } => {
                let steps = direction.iter().zip(state).map(|(delta, m)| {
                    let sum = momentum * f64::from(*m) + delta;
                    *m = sum as f32;
                    learning_rate * sum
                });
                parameters.iter().zip(steps).map(moved).collect()
            }
            Self::FedAdagrad {
                learning_rate,
                beta1,
                tau,
            } => adaptive(state, learning_rate, beta1, tau, &|v, square| v + square),
            Self::FedAdam {
                learning_rate,
                beta1,
                beta2,
                tau,
            } => adaptive(state, learning_rate, beta1, tau, &|v, square| {
                beta2 * v + (1.0 - beta2) * square
            }),
            Self::FedYogi {
                learning_rate,
                beta1,
                beta2,
                tau,
            } => adaptive(state, learning_rate, beta1, tau, &|v, square| {
                let side = if v == square { 0.0 } else { (v - square).signum() };
                v - (1.0 - beta2) * square * side
            }),
        }
    }
}
