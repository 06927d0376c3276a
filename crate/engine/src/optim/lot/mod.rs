//! The sum of a lot's clipped gradients, and the noise on it, in whole numbers (Abadi et al. 2016, algorithm 1):
//! `v = round(g/γ · min(1, C/‖g‖))` for each example, and `(Σ v + n)·γ/L` for the optimiser, with whole numbers `n` that the caller drew,
//! a grid step `γ`, a clip norm `C`, and the number `L` of examples that a lot is expected to have.
//!
//! What an example adds is checked where it is exact: the sum of the squares of the whole numbers `v` must be within the bound that the
//! noise was made for, or the example adds nothing. So neither what floats do to a norm, nor a gradient that has no norm (a number of it
//! is infinite or none), can make an example count for more, whatever the weights are. The sum of whole numbers is exact as well, so that
//! an example more or less moves it by that example's `v` and by nothing else. A coordinate that would leave ±2³⁰ stays there, which brings
//! no two sums further apart: `t ↦ clamp(t + v)` moves no two numbers away from each other.
//!
//! Noise is added to the whole numbers, too: of a sum that noise were added to in floats, the lowest bits would tell what the noise was
//! (Mironov, CCS 2012).

#[cfg(feature = "gpu")]
mod gpu;

#[cfg(feature = "gpu")]
pub(crate) use gpu::{LotBuffers, LotDispatches};

/// What a lot's gradients are counted with: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lot {
    /// C.
    clip_l2: f32,
    /// γ.
    grid_step: f32,
    /// γ/L.
    unit: f32,
    /// The most that the squares of an example's whole numbers may add up to.
    bound_squared: u64,
}

/// What a coordinate of a sum stays within: with noise of as much at most, 32 bits hold it.
const LIMIT: i32 = 1 << 30;

/// 1.5·2⁵²: what is added to it and taken off again is rounded to the nearest whole number, ties to even, where it is below 2⁵¹.
const TO_WHOLE: f64 = 6_755_399_441_055_744.0;

impl Lot {
    /// The largest bound that the whole numbers are checked against without a rounding: their squares add up to less than 2⁵³.
    pub const MAX_BOUND_SQUARED: u64 = 1 << 48;

    /// For lots of `expected` examples.
    pub fn new(clip_l2: f32, grid_step: f32, bound_squared: u64, expected: u32) -> Self {
        Self {
            clip_l2,
            grid_step,
            unit: grid_step / expected as f32,
            bound_squared,
        }
    }

    /// Adds one example to `totals`, `[d]`, if it may count; its `gradient`, `[d]`, is used up.
    pub fn count_cpu(&self, gradient: &mut [f32], totals: &mut [i32]) {
        // In f64 the square of a 32-bit float neither overflows nor vanishes: the sum is no number where one of them is none.
        let norm = sum(gradient, |g| f64::from(*g) * f64::from(*g)).sqrt();
        if !norm.is_finite() {
            return;
        }
        let clip = f64::from(self.clip_l2);
        let factor = clip / norm.max(clip) / f64::from(self.grid_step);
        // Squares of whole numbers add up without rounding as long as they are within the bound, and stay above it beyond.
        let squared = sum(gradient, |g| {
            let whole = (f64::from(*g) * factor + TO_WHOLE) - TO_WHOLE;
            *g = whole as f32;
            whole * whole
        });
        if squared <= self.bound_squared as f64 {
            for (total, whole) in totals.iter_mut().zip(gradient) {
                // Within the bound each is below 2²⁴.
                *total = (*total + *whole as i32).clamp(-LIMIT, LIMIT);
            }
        }
    }

    /// Makes the noised mean, `[d]`, out of the totals, which begin again at 0.
    pub fn noised_cpu(&self, totals: &mut [i32], noise: &[i32], mean: &mut [f32]) {
        for ((total, noise), mean) in totals.iter_mut().zip(noise).zip(mean) {
            *mean = std::mem::take(total).wrapping_add(*noise) as f32 * self.unit;
        }
    }
}

/// The sum of what `square` makes of each number, four at a time.
fn sum(numbers: &mut [f32], square: impl Fn(&mut f32) -> f64) -> f64 {
    let (fours, rest) = numbers.as_chunks_mut::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        for (sum, number) in sums.iter_mut().zip(four) {
            *sum += square(number);
        }
    }
    let rest = rest.iter_mut().map(square).sum::<f64>();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one example adds.
    fn counted(lot: &Lot, gradient: &[f32]) -> Vec<i32> {
        let mut totals = vec![0; gradient.len()];
        lot.count_cpu(&mut gradient.to_vec(), &mut totals);
        totals
    }

    fn squared(whole: &[i32]) -> u64 {
        whole.iter().map(|v| u64::from(v.unsigned_abs()).pow(2)).sum()
    }

    #[test]
    fn an_example_adds_its_clipped_gradient_rounded_to_the_grid() {
        let lot = Lot::new(1.0, 0.25, 25, 8);
        assert_eq!(
            counted(&lot, &[0.5, -0.25, 0.124, -0.126, 0.375]),
            [2, -1, 0, -1, 2]
        );
        // A norm of 5 is clipped to 1, four steps: 0.6 and 0.8 of it.
        assert_eq!(counted(&lot, &[3.0, -4.0, 0.0]), [2, -3, 0]);
        // As long as can be, and as short.
        assert_eq!(counted(&lot, &[f32::MAX, 0.0]), [4, 0]);
        assert_eq!(counted(&lot, &[-f32::MAX; 4]), [-2; 4]);
        assert_eq!(counted(&lot, &[f32::from_bits(1), 1e-30]), [0, 0]);
        let fine = Lot::new(1e-30, 1e-36, 1 << 48, 8);
        assert_eq!(counted(&fine, &[1e30, 0.0]), [1_000_000, 0]);
    }

    #[test]
    fn an_example_that_has_no_norm_or_is_above_the_bound_adds_nothing() {
        let lot = Lot::new(1.0, 0.25, 16, 8);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(counted(&lot, &[1.0, bad, 0.0, 0.0, 0.0]), [0; 5]);
        }
        // 2² + 2² + 2² + 2² is at the bound; rounded up to as much again, 3² + 2² + 2² is above it.
        assert_eq!(counted(&lot, &[0.5; 4]), [2; 4]);
        assert_eq!(counted(&lot, &[0.63, 0.54, 0.55]), [0; 3]);
    }

    /// Whatever is counted is within the bound, and what a clip norm with room for rounding allows is counted.
    #[test]
    fn what_is_counted_is_within_the_bound_for_gradients_of_all_sizes() {
        const D: usize = 300;
        let steps = 1000.0_f64;
        let bound = steps * (1.0 + 1e-6) + (D as f64).sqrt() / 2.0;
        let lot = Lot::new(1.0, 0.001, (bound * bound) as u64, 1);
        for place in 0..1_000_i32 {
            let at = |i: usize| ((place as usize * D + i) as f32 * 1.618).sin();
            let gradient: Vec<f32> = (0..D).map(|i| at(i) * 10f32.powi(place % 61 - 30)).collect();
            let whole = counted(&lot, &gradient);
            assert!(squared(&whole) <= (bound * bound) as u64);
            assert_eq!(squared(&whole) == 0, place % 61 < 27, "{place}");
        }
    }

    #[test]
    fn totals_are_noised_in_integers_divided_by_what_was_expected_and_begin_again() {
        let lot = Lot::new(1.0, 0.25, 1 << 48, 8);
        let mut totals = [4, 0, LIMIT - 1, -LIMIT, 12];
        lot.count_cpu(&mut [0.0, 0.0, 0.5, -0.5, 0.0], &mut totals);
        assert_eq!(totals, [4, 0, LIMIT, -LIMIT, 12], "cut off at ±2³⁰");
        let mut mean = [9.0; 5];
        lot.noised_cpu(&mut totals, &[0, 3, -7, 5, i32::MIN], &mut mean);
        let unit = 0.25 / 8.0;
        assert_eq!(mean[..2], [4.0 * unit, 3.0 * unit]);
        assert_eq!(mean[2], (LIMIT - 7) as f32 * unit);
        assert_eq!(mean[3], (5 - LIMIT) as f32 * unit);
        assert_eq!(mean[4], (12.0 - 2_147_483_648.0) * unit);
        assert_eq!(totals, [0; 5]);
    }
}
