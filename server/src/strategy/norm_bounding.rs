//! Norm bounding: no update counts for more than a norm.
//!
//! Sun, Kairouz, Suresh, McMahan, “Can You Really Backdoor Federated Learning?”, 2019
//! ([arXiv:1911.07963](https://arxiv.org/abs/1911.07963)), section 4: u ← u · min(1, M / ‖u‖), then the mean. Each update is
//! shortened by itself, so that a round still is one exact sum, whatever the order of arrival.

/// Shortens `coordinates` to a norm of at most `bound`, all in grid steps. Fractions of a step are cut off, which keeps the
/// norm below the bound.
pub fn shorten(coordinates: &mut [i32], bound: f64) {
    let squared: u128 = coordinates
        .iter()
        .map(|value| u128::from(value.unsigned_abs()).pow(2))
        .sum();
    let norm = (squared as f64).sqrt();
    if norm <= bound {
        return;
    }
    let share = bound / norm;
    for value in coordinates {
        *value = (f64::from(*value) * share) as i32; // towards zero, and never longer: it fits
    }
}
