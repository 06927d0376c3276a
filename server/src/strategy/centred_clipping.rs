//! Centred clipping: what is far from the last direction is drawn towards it.
//!
//! Karimireddy, He, Jaggi, “Learning from History for Byzantine Robust Optimization”, ICML 2021
//! ([arXiv:2012.10333](https://arxiv.org/abs/2012.10333)), algorithm 2: from the last round's direction v on,
//! v ← v + (1/n) Σ (uᵢ − v) · min(1, τ / ‖uᵢ − v‖). (The clients' momentum of the paper is not used: a client of a round keeps
//! nothing for the next.)

use super::squared_distance;

/// Times that the centre is moved unless a task says otherwise: one, as in most of the paper's experiments.
pub(super) const fn default_iterations() -> u32 {
    1
}

/// The direction, `[n][d] → [d]`, from `last`, `[d]`; `radius` is τ. All in grid steps.
pub fn clip_around(rows: &[&[i32]], last: &[f64], iterations: u32, radius: f64) -> Vec<f64> {
    let mut centre = last.to_vec();
    let mut moves = vec![0.0; last.len()];
    for _ in 0..iterations {
        moves.fill(0.0);
        for row in rows {
            let distance = squared_distance(row, &centre).sqrt();
            let share = if distance > radius { radius / distance } else { 1.0 };
            for ((sum, &value), &centre) in moves.iter_mut().zip(*row).zip(&centre) {
                *sum += share * (f64::from(value) - centre);
            }
        }
        for (centre, sum) in centre.iter_mut().zip(&moves) {
            *centre += sum / rows.len() as f64;
        }
    }
    centre
}
