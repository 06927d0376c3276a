//! Krum and Multi-Krum: trust the updates that have near neighbours.
//!
//! Blanchard, El Mhamdi, Guerraoui, Stainer, “Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent”, NIPS
//! 2017, section 4. Of n updates of which f may be malicious, 2f + 2 < n, the score of one is the sum of its squared
//! distances to its n − f − 2 nearest others. Krum takes the update of the least score; Multi-Krum the mean of the m of the
//! least. Equal scores are decided by the order of the updates.

use super::{mean, squared_distance};

/// 2f + 3.
pub const fn least_updates(byzantine: u32) -> u64 {
    2 * byzantine as u64 + 3
}

/// The mean of the `chosen` rows of the least scores, `[n][d] → [d]`, in grid steps.
pub fn multi_krum(rows: &[&[i32]], byzantine: usize, chosen: usize) -> Vec<f64> {
    let mut by_score: Vec<(f64, usize)> = scores(rows, byzantine).into_iter().zip(0..).collect();
    by_score.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut best: Vec<usize> = by_score.iter().take(chosen.max(1)).map(|&(_, row)| row).collect();
    best.sort_unstable();
    mean(&best.into_iter().map(|row| rows[row]).collect::<Vec<_>>())
}

fn scores(rows: &[&[i32]], byzantine: usize) -> Vec<f64> {
    let n = rows.len();
    let mut distances = vec![vec![0.0; n]; n];
    for a in 0..n {
        for b in a + 1..n {
            let distance = squared_distance(rows[a], rows[b]);
            (distances[a][b], distances[b][a]) = (distance, distance);
        }
    }
    let neighbours = n.saturating_sub(byzantine + 2).max(1);
    let score = |(of, mut distances): (usize, Vec<f64>)| {
        distances.swap_remove(of);
        distances.sort_by(f64::total_cmp);
        distances.iter().take(neighbours).sum()
    };
    distances.into_iter().enumerate().map(score).collect()
}
