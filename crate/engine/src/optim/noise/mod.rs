//! Noise on the sum of a lot's clipped gradients, before the optimiser sees it (Abadi et al. 2016, algorithm 1):
//! `g ← (round(g/γ) + n)·γ/L`, with whole numbers `n` that the caller drew, a grid step `γ`, and the number `L` of examples that a
//! lot is expected to have.
//!
//! The sum is rounded first, to the nearest whole number of grid steps, and the noise is added to that in integers: of a sum
//! that noise were added to in floats, the lowest bits would tell what the noise was (Mironov, CCS 2012). Two sums that are at
//! most `c` apart (in the L2 norm) are at most `c/γ + √d` grid steps apart when they are rounded, since each coordinate moves by
//! half a step at most. What would leave ±2³⁰ is cut off there, which brings no two sums further apart.

#[cfg(feature = "gpu")]
mod gpu;

/// The noise: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Noise {
    /// 1/γ.
    pub per_unit: f32,
    /// γ/L.
    pub unit: f32,
}

/// Grid steps to which a coordinate of a sum is cut off.
const LIMIT: f32 = 1_073_741_824.0;

impl Noise {
    /// A grid of step `grid_step` for lots of `expected` examples.
    pub fn new(grid_step: f32, expected: u32) -> Self {
        Self {
            per_unit: 1.0 / grid_step,
            unit: grid_step / expected as f32,
        }
    }

    /// Turns the sum of a lot's gradients, `[d]`, into the noised mean. What is not a finite number stays none, so that the training
    /// fails.
    pub fn add_cpu(&self, gradient: &mut [f32], noise: &[i32]) {
        for (sum, noise) in gradient.iter_mut().zip(noise) {
            if sum.is_finite() {
                let steps = (*sum * self.per_unit).round_ties_even().clamp(-LIMIT, LIMIT);
                *sum = (steps as i32).wrapping_add(*noise) as f32 * self.unit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_rounded_noised_in_integers_and_divided_by_what_was_expected() {
        let noise = Noise::new(0.25, 8);
        let mut sums = [1.0, 0.124, -0.376, 1e30, f32::NEG_INFINITY, 3.0];
        noise.add_cpu(&mut sums, &[0, 3, -1, -7, 5, i32::MIN]);
        let unit = 0.25 / 8.0;
        assert_eq!(sums[..3], [4.0 * unit, 3.0 * unit, -3.0 * unit]);
        assert_eq!(sums[3], (LIMIT - 7.0) * unit, "cut off, then noised");
        assert_eq!(sums[4], f32::NEG_INFINITY);
        assert_eq!(sums[5], (12.0 - 2_147_483_648.0) * unit);
    }

    #[test]
    fn rounded_sums_are_no_further_apart_than_their_sensitivity() {
        const D: usize = 64;
        let noise = Noise::new(1.0, 1);
        // Two sums 1 grid step apart, from many places: each coordinate may cross a half.
        let mut most = 0.0_f64;
        for place in 0..1_000 {
            let at = |i: usize| ((place * D + i) as f32 * 1.618).sin() * 10.0;
            let mut here: Vec<f32> = (0..D).map(at).collect();
            let mut there: Vec<f32> = here.iter().map(|x| x + 0.125).collect(); // ‖0.125‖·√64 = 1
            noise.add_cpu(&mut here, &[0; D]);
            noise.add_cpu(&mut there, &[0; D]);
            let squares = here.iter().zip(&there).map(|(a, b)| f64::from(a - b).powi(2));
            most = most.max(squares.sum::<f64>().sqrt());
        }
        assert!(most <= 1.0 + (D as f64).sqrt(), "{most}");
        assert!(
            most > 1.0,
            "rounding alone can move them further apart than they were: {most}"
        );
    }
}
