//! Buffered asynchronous aggregation: clients train from whatever model is the newest when they come, and the server takes a step
//! once its buffer has K updates, from whichever models those started.
//!
//! J. Nguyen, K. Malik, H. Zhan, A. Yousefpour, M. Rabbat, M. Malek, D. Huba, “Federated Learning with Buffered Asynchronous
//! Aggregation”, AISTATS 2022 ([arXiv:2106.06639](https://arxiv.org/abs/2106.06639)), algorithm 1: Δ̄ = Σ s(τᵢ)Δᵢ / K, then one
//! step of the server's optimiser along Δ̄. τᵢ is an update's staleness: the steps that the server took since the model that it
//! started from. It is weighed by s(τ) = 1/√(1 + τ) as there, or by another power. As there the sum is divided by the number of
//! updates, not by that of their weights: old updates make a step shorter.
//!
//! A weight is no whole number, and a sum of weighed updates would not be exact. So there is one exact sum for each staleness, and
//! the weights come in when the buffer is full: the order of arrival cannot change a bit of the model.

use super::StrategyError;
use crate::aggregate::PartialSum;

/// The greatest `max_staleness`: as many exact sums are kept, and one more. Less than the rounds whose ids are remembered.
pub const MOST_STALE: u32 = 32;

/// 1/√(1 + τ), as in the paper.
pub(super) const fn default_exponent() -> f64 {
    0.5
}

pub(super) fn check(max_staleness: u32, exponent: f64) -> Result<(), StrategyError> {
    if max_staleness > MOST_STALE {
        let message = format!("{max_staleness} is not a whole number from 0 to {MOST_STALE}");
        return Err(StrategyError::new("aggregation.max_staleness", message));
    }
    if !(0.0..=10.0).contains(&exponent) {
        let message = format!("{exponent} is not a number from 0 to 10");
        return Err(StrategyError::new("aggregation.exponent", message));
    }
    Ok(())
}

/// s(τ) = (1 + τ)^−exponent.
pub fn weight(staleness: u32, exponent: f64) -> f64 {
    (1.0 + f64::from(staleness)).powf(-exponent)
}

/// Σ s(τ)·Sτ · grid_step / count, with Sτ the `d` entries of `sums` that begin at τ·d. In f64, from the least staleness to the
/// greatest.
///
/// # Panics
/// If `count` or `d` is 0.
pub fn direction(sums: &PartialSum, d: usize, count: u32, exponent: f64, grid_step: f64) -> Vec<f64> {
    assert_ne!(count, 0, "a mean is of at least one update");
    let mut direction = vec![0.0; d];
    for (staleness, steps) in (0..).zip(sums.steps().chunks(d)) {
        let weight = weight(staleness, exponent);
        for (entry, &steps) in direction.iter_mut().zip(steps) {
            *entry += weight * steps as f64;
        }
    }
    let scale = |entry: f64| entry * grid_step / f64::from(count);
    direction.into_iter().map(scale).collect()
}
