//! From a float update to integers of bounded norm: clip, grid, conditional randomised rounding.
//!
//! The steps are those of the client in Kairouz, Liu, Steinke, “The Distributed Discrete Gaussian Mechanism for
//! Federated Learning with Secure Aggregation”, ICML 2021, [arXiv:2102.06387](https://arxiv.org/abs/2102.06387),
//! Algorithm 1, without its rotation (which spreads large coordinates out to save bits, and is no part of the privacy
//! argument).
//!
//! # Why the sensitivity is the integer bound and not the clip norm
//! Rounding to a grid moves a vector, and so can lengthen it: by up to √d steps, far more than the clip norm when d is
//! large. Floats add their own error. So the clip norm bounds nothing that is sent. What is sent is a vector of
//! integers, and its norm is compared with Δ² in exact integer arithmetic, after everything else has been done; whatever
//! went before, a vector that comes out of [`Encoding::encode`] obeys the bound. Privacy is computed from that bound
//! alone.

use rand_core::CryptoRng;
use unsaid_document::Decimal;

/// Tries of randomised rounding before the vector is rounded towards zero instead. Each fails with probability at most
/// β = exp(−1/2), so that all do with probability at most exp(−32).
const MAX_TRIES: usize = 64;

/// Why an update cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// The clip norm is not a finite number above 0.
    #[error("the clip norm is {}, but must be a finite number above 0", Decimal(*.0))]
    ClipNorm(f64),
    /// The grid step is not a finite number above 0, or the clip norm is not 1 to 2²⁴ of it.
    #[error("the grid step is {found}, but must be between clip_l2 / 16,777,216 and clip_l2 = {clip_l2}", found = Decimal(*found), clip_l2 = Decimal(*clip_l2))]
    GridStep {
        /// The grid step.
        found: f64,
        /// The clip norm.
        clip_l2: f64,
    },
    /// No coordinates, or more than 2³² − 1.
    #[error("an update of {0} coordinates cannot be encoded")]
    Dimension(usize),
    /// An update of another length.
    #[error("the update has {found} coordinates, but the encoding is for {expected}")]
    Length {
        /// Coordinates given.
        found: usize,
        /// Coordinates expected.
        expected: usize,
    },
    /// A coordinate is NaN or infinite. Its value is not told.
    #[error("coordinate {index} of the update is not a finite number")]
    NonFinite {
        /// The first such coordinate.
        index: usize,
    },
    /// The vector broke the bound even when rounded towards zero. That would be a defect of this crate.
    #[error("the encoded update is longer than its bound")]
    Bound,
}

/// How updates of one task are bounded and put on the grid.
///
/// ```
/// use unsaid_privacy::{Encoding, EncodingError};
/// let encoding = Encoding::new(1.0, 1.0 / 1024.0, 3)?;
/// // (1024 steps)² + 3/4 + 1024 + √3/2, rounded up
/// assert_eq!(encoding.bound_squared(), 1_049_602);
/// assert!(matches!(Encoding::new(f64::NAN, 1.0, 3), Err(EncodingError::ClipNorm(_))));
/// # Ok::<(), EncodingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoding {
    clip_l2: f64,
    grid_step: f64,
    dimension: usize,
    bound_squared: u64,
}

/// An update on the grid, before any noise. It must not leave the device like this in a task with noise.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// Whole grid steps; the sum of their squares is at most [`Encoding::bound_squared`].
    pub coordinates: Vec<i32>,
    /// The L2 norm of the update as it was given. For the person's own eyes: it is not protected by noise.
    pub norm_before_clip: f64,
    /// Whether that norm was above the clip norm. Not protected either.
    pub clipped: bool,
}

impl Encoding {
    /// The longest clip norm, in grid steps.
    pub const MAX_CLIP_STEPS: f64 = 16_777_216.0;

    /// Updates of `dimension` coordinates, clipped to `clip_l2`, on a grid of `grid_step` (both in the model's own units).
    ///
    /// # Errors
    /// [`EncodingError`] naming the parameter that makes no sense.
    pub fn new(clip_l2: f64, grid_step: f64, dimension: usize) -> Result<Self, EncodingError> {
        if !(clip_l2.is_finite() && clip_l2 > 0.0) {
            return Err(EncodingError::ClipNorm(clip_l2));
        }
        let steps = clip_l2 / grid_step;
        if !(grid_step.is_finite() && grid_step > 0.0 && (1.0..=Self::MAX_CLIP_STEPS).contains(&steps)) {
            return Err(EncodingError::GridStep {
                found: grid_step,
                clip_l2,
            });
        }
        if dimension == 0 || u32::try_from(dimension).is_err() {
            return Err(EncodingError::Dimension(dimension));
        }
        Ok(Self {
            clip_l2,
            grid_step,
            dimension,
            bound_squared: bound_squared(steps, dimension),
        })
    }

    /// Δ²: the squared L2 norm, in grid steps², that no encoded update exceeds.
    ///
    /// The bound of Kairouz, Liu, Steinke 2021, Algorithm 1, at β = exp(−1/2), with c/γ the clip norm in steps:
    /// min{(c/γ + √d)², (c/γ)² + d/4 + c/γ + √d/2}, rounded up to an integer.
    pub const fn bound_squared(&self) -> u64 {
        self.bound_squared
    }

    /// Δ in grid steps, rounded up.
    pub fn bound_steps(&self) -> f64 {
        // Δ² is below 2⁵³, so that its conversion is exact, and a square root is off by at most half a unit.
        (self.bound_squared as f64).sqrt().next_up()
    }

    /// The clip norm, in the model's own units.
    pub const fn clip_l2(&self) -> f64 {
        self.clip_l2
    }

    /// One grid step, in the model's own units.
    pub const fn grid_step(&self) -> f64 {
        self.grid_step
    }

    /// Coordinates of an update.
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// Clips `delta` and rounds it to the grid at random, so that on average a coordinate is rounded to itself.
    ///
    /// Rounding is repeated until the integer vector obeys the bound, which takes 1/(1 − β) = 2.5 tries on average at the
    /// most. After 64 tries it is rounded towards zero, which obeys the bound because it shortens every coordinate. Both the
    /// number of tries and that last resort depend on the data. The sensitivity does not: it is that of *any* two vectors
    /// within the bound. Each coordinate's chance of rounding up is its fraction to within 2⁻⁶⁴.
    ///
    /// # Errors
    /// [`EncodingError::Length`], [`EncodingError::NonFinite`].
    pub fn encode<R: CryptoRng + ?Sized>(
        &self,
        delta: &[f32],
        rng: &mut R,
    ) -> Result<Encoded, EncodingError> {
        if delta.len() != self.dimension {
            return Err(EncodingError::Length {
                found: delta.len(),
                expected: self.dimension,
            });
        }
        // The square of an f32 is far inside an f64: the sum is finite if and only if every coordinate is.
        let norm_before_clip = delta
            .iter()
            .map(|x| f64::from(*x) * f64::from(*x))
            .sum::<f64>()
            .sqrt();
        if !norm_before_clip.is_finite() {
            let index = delta.iter().position(|x| !x.is_finite()).unwrap_or(0);
            return Err(EncodingError::NonFinite { index });
        }
        let clipped = norm_before_clip > self.clip_l2;
        let to_steps = if clipped {
            self.clip_l2 / norm_before_clip
        } else {
            1.0
        } / self.grid_step;

        let mut coordinates = vec![0; delta.len()];
        for _ in 0..MAX_TRIES {
            let norm_squared = fill(&mut coordinates, delta, to_steps, |fraction| {
                round_up(fraction, rng)
            });
            if norm_squared <= self.bound_squared {
                return Ok(Encoded {
                    coordinates,
                    norm_before_clip,
                    clipped,
                });
            }
        }
        if fill(&mut coordinates, delta, to_steps, |_| false) <= self.bound_squared {
            return Ok(Encoded {
                coordinates,
                norm_before_clip,
                clipped,
            });
        }
        Err(EncodingError::Bound)
    }

    /// Grid steps back into the model's own units.
    pub fn decode(&self, coordinates: &[i32]) -> Vec<f32> {
        coordinates
            .iter()
            .map(|steps| (f64::from(*steps) * self.grid_step) as f32)
            .collect()
    }
}

/// Kairouz, Liu, Steinke 2021, Algorithm 1, the condition of its loop, at β = exp(−1/2), where √(2·ln(1/β)) = 1.
fn bound_squared(steps: f64, dimension: usize) -> u64 {
    let d = dimension as f64;
    let always = (steps + d.sqrt()).powi(2);
    let likely = steps * steps + d / 4.0 + steps + d.sqrt() / 2.0;
    // At most 2⁴⁸ + 2³⁰ + 2²⁴ + 2¹⁵: exact as a float and as an integer.
    always.min(likely).ceil() as u64
}

/// Rounds every coordinate and returns the exact squared norm. Magnitudes are rounded, so that fractions are exact.
fn fill(coordinates: &mut [i32], delta: &[f32], to_steps: f64, mut up: impl FnMut(f64) -> bool) -> u64 {
    let mut norm_squared = 0_u64;
    for (coordinate, x) in coordinates.iter_mut().zip(delta) {
        let steps = f64::from(*x) * to_steps;
        let magnitude = steps.abs();
        let whole = magnitude.floor();
        // At most 2²⁴ + 1, because the norm was clipped.
        let rounded = whole as i32 + i32::from(up(magnitude - whole));
        norm_squared += u64::from(rounded.unsigned_abs()).pow(2);
        *coordinate = if steps < 0.0 { -rounded } else { rounded };
    }
    norm_squared
}

/// `true` with probability `fraction`, to within 2⁻⁶⁴: its first 32 binary places are compared with a random word, and the next
/// 32 only where those are equal.
#[inline]
fn round_up<R: CryptoRng + ?Sized>(fraction: f64, rng: &mut R) -> bool {
    const WORD: f64 = 4_294_967_296.0;
    let scaled = fraction * WORD;
    let (first, word) = (scaled as u32, rng.next_u32());
    if word != first {
        return word < first;
    }
    rng.next_u32() < ((scaled - f64::from(first)) * WORD) as u32
}

#[cfg(test)]
mod tests;
