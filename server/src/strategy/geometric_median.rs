//! The geometric median by the smoothed Weiszfeld algorithm.
//!
//! Pillutla, Kakade, Harchaoui, “Robust Aggregation for Federated Learning” (RFA), IEEE Transactions on Signal Processing
//! 2022 ([arXiv:1912.13445](https://arxiv.org/abs/1912.13445)), algorithm 2 with equal weights: from the mean on,
//! v ← Σ βᵢuᵢ / Σ βᵢ with βᵢ = 1 / max(ν, ‖v − uᵢ‖).

use super::{mean, squared_distance};

/// Steps unless a task says otherwise. The paper finds three enough where a tenth of the updates is corrupted; from a mean
/// that a few updates of a thousand times the length drew away, each step comes several times nearer.
pub(super) const fn default_iterations() -> u32 {
    16
}

/// ν unless a task says otherwise, as in the paper's experiments.
pub(super) const fn default_smoothing() -> f64 {
    1e-6
}

/// The smoothed geometric median of `rows`, `[n][d] → [d]`, after `iterations` steps; `smoothing` is in grid steps, too.
pub fn smoothed_weiszfeld(rows: &[&[i32]], iterations: u32, smoothing: f64) -> Vec<f64> {
    let mut centre = mean(rows);
    for _ in 0..iterations {
        let weights: Vec<f64> = rows
            .iter()
            .map(|row| 1.0 / squared_distance(row, &centre).sqrt().max(smoothing))
            .collect();
        let total: f64 = weights.iter().sum();
        centre.fill(0.0);
        for (row, weight) in rows.iter().zip(weights) {
            let share = weight / total;
            for (centre, &value) in centre.iter_mut().zip(*row) {
                *centre += share * f64::from(value);
            }
        }
    }
    centre
}
