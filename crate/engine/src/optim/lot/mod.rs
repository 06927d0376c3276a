//! The sum of a lot's clipped gradients, and the noise on it, in whole numbers (Abadi et al. 2016, algorithm 1):
//! `v = round(g/γ · min(1, C/‖g‖))` for each example, and `(Σ v + n)·γ/L` for the optimiser, with whole numbers `n` that the caller drew,
//! a grid step `γ`, a clip norm `C`, and the number `L` of examples that a lot is expected to have.
//!
//! # Why an example counts for no more than its bound
//! What an example adds is a function of that example and the weights (`backend/cpu/private.rs`), and the sum of the squares of its whole
//! numbers `v` is shown to be within the bound that the noise was made for, or it adds nothing. So neither what floats do to a norm, nor a
//! gradient that has no norm (a number of it is infinite or none), can make an example count for more, whatever the weights are. There are
//! two kinds of `v`:
//!
//! - *Written* ones, of gradients that are computed: their squares are added up, in `f64`, which holds whole numbers below 2⁵³ exactly and
//!   rounds none from above the bound to within.
//! - *Outer* ones, of layers whose gradient is `[x | 1]ᵀ·δ` (`outer.rs`). With `e = δ·f`, as it is after rounding, they are
//!   `v = round(xᵣ·e_c)`, rounded twice: the product, to one part in 2²⁴ or by 2⁻¹⁵⁰, and what it is rounded to, by ½. Of `n` such
//!   numbers, therefore, `‖v‖ ≤ (1 + 2⁻²⁴)·√Σ‖[x | 1]‖²‖e‖² + √n·(½ + 2⁻¹⁵⁰)`, where the sum is over layers. The norms are
//!   computed (`vector::dot`) to 68 parts in 2²⁴ of their squares, so that the root is off by less than one part in 2¹⁷: with
//!   [`ALLOWANCE`] on both terms, which has room for that and the few roundings in `f64` besides, the bound is proven without a look at
//!   `v`. It is the bound that an honest example keeps by design (`unsaid-privacy`, `example.rs`: `C/γ·(1 + 2⁻¹⁴) + √d/2`).
//!
//! An example counts where the squares of the one and the proven bound of the other, rounded up to a whole number, add up to no more than
//! the bound: sums of whole numbers below 2⁵³. No outer number is above √bound then, which must be at most 2²¹ ([`Lot::takes_outer`]).
//!
//! # Why the sum is no less exact
//! Whole numbers are added to whole numbers, so that an example more or less moves the sum by that example's `v` and by nothing else. A
//! sum that leaves ±(2³⁰ − 1) is cut off there, once, at the end, which brings no two sums further apart: see [`Totals`]. (On a GPU after each
//! example; `t ↦ clamp(t + v)` moves no two numbers away from each other either.)
//!
//! Noise is added to the whole numbers, too: of a sum that noise were added to in floats, the lowest bits would tell what the noise was
//! (Mironov, CCS 2012).

#[cfg(feature = "gpu")]
mod gpu;
pub(crate) mod outer;
mod totals;

#[cfg(feature = "gpu")]
pub(crate) use gpu::{LotBuffers, LotDispatches};
pub(crate) use totals::Totals;

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

/// What a coordinate of a sum stays within: with noise of 2³⁰ at most, 32 bits hold it.
const LIMIT: i32 = (1 << 30) - 1;

/// 1.5·2⁵²: what is added to it and taken off again is rounded to the nearest whole number, ties to even, where it is below 2⁵¹.
const TO_WHOLE: f64 = 6_755_399_441_055_744.0;

/// How much longer outer numbers are taken to be than computed: see the module.
const ALLOWANCE: f64 = 1.0 / 65_536.0;

/// The square of the norm of an example's outer products, and how many numbers they have.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Outer {
    pub squared: f64,
    pub count: usize,
}

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

    /// Whether 32-bit floats can round outer products that are within the bound to whole numbers.
    pub const fn takes_outer(&self) -> bool {
        self.bound_squared <= 1 << 42
    }

    /// No whole number that may count is larger.
    pub fn largest(&self) -> u64 {
        (self.bound_squared as f64).sqrt() as u64 + 1
    }

    /// From a gradient of this squared norm to whole numbers before they are rounded: `min(1, C/‖g‖)/γ`. None where it has no norm.
    pub fn factor(&self, squared: f64) -> Option<f64> {
        let (norm, clip) = (squared.sqrt(), f64::from(self.clip_l2));
        norm.is_finite()
            .then(|| clip / norm.max(clip) / f64::from(self.grid_step))
    }

    /// Rounds a gradient times `factor` to whole numbers; the sum of their squares, where it is within the bound, and else one that is not.
    /// Those of such a sum are below 2²⁴, which 32 bits hold.
    pub fn round(&self, gradient: &mut [f32], factor: f64) -> f64 {
        let round = |g: &mut f32| {
            let whole = (f64::from(*g) * factor + TO_WHOLE) - TO_WHOLE;
            *g = whole as f32;
            whole * whole
        };
        let (fours, rest) = gradient.as_chunks_mut::<4>();
        let mut squares = [0.0; 4];
        for four in fours {
            for (square, g) in squares.iter_mut().zip(four) {
                *square += round(g);
            }
        }
        squares.iter().sum::<f64>() + rest.iter_mut().map(round).sum::<f64>()
    }

    /// Whether an example may count: the sum of the squares of its written numbers is `written`, and of the others this is known.
    pub fn admits(&self, written: f64, outer: Outer) -> bool {
        let longest = (outer.squared.sqrt() + (outer.count as f64).sqrt() / 2.0) * (1.0 + ALLOWANCE);
        written + (longest * longest).ceil() <= self.bound_squared as f64
    }

    /// Makes the noised mean, `[d]`, out of the totals, which begin again at 0.
    pub fn noised_cpu(&self, totals: &mut Totals, noise: &[i32], mean: &mut [f32]) {
        totals.noised(noise, self.unit, mean);
    }
}

/// Adds whole numbers to sums.
pub(crate) fn add(sums: &mut [i32], whole: &[f32]) {
    for (sum, whole) in sums.iter_mut().zip(whole) {
        *sum += *whole as i32;
    }
}

#[cfg(test)]
mod tests;
