//! Norm bounding: no update counts for more than a norm.
//!
//! Sun, Kairouz, Suresh, McMahan, “Can You Really Backdoor Federated Learning?”, 2019
//! ([arXiv:1911.07963](https://arxiv.org/abs/1911.07963)), section 4: u ← u · min(1, M / ‖u‖), then the mean. Each update is
//! shortened by itself, so that a round still is one exact sum, whatever the order of arrival.
//!
//! Most coordinates of an update are a few grid steps, and would be 0 if they were shortened to whole steps: what is added up
//! is in [`PARTS`] of a step. A coordinate is at most 2³¹ steps, and a round has at most 2¹⁶ updates
//! ([`crate::round::MAX_CHECK_INS`]): the sum is at most 2³¹ · 2¹⁶ · 2¹⁶ = 2⁶³, which only the negative one reaches, and fits
//! an `i64`.

/// Parts of a grid step that a shortened coordinate is counted in.
pub const PARTS: u32 = 1 << 16;

/// `coordinates` at a norm of at most `bound`, both in grid steps; the result is in [`PARTS`] of one. What is less than such
/// a part is cut off, so that the norm is above the bound by no more than an f64 is rounded.
pub fn shorten(coordinates: &[i32], bound: f64) -> Vec<i64> {
    let squared: u128 = coordinates
        .iter()
        .map(|value| u128::from(value.unsigned_abs()).pow(2))
        .sum();
    let norm = (squared as f64).sqrt();
    if norm <= bound {
        let exact = |&value: &i32| i64::from(value) * i64::from(PARTS);
        return coordinates.iter().map(exact).collect();
    }
    let share = bound / norm * f64::from(PARTS);
    let shortened = |&value: &i32| (f64::from(value) * share) as i64; // towards zero, and never longer: it fits
    coordinates.iter().map(shortened).collect()
}
