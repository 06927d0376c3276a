//! The discrete Laplace distribution: CKS Algorithm 2.

use rand_core::CryptoRng;

use super::NoiseError;
use super::exponential::{exp, exp_minus_one};
use super::uniform::{below, below_32};

/// The discrete Laplace distribution of scale `t/s`: P(x) ∝ exp(−|x|·s/t) on the integers (CKS Algorithm 2).
///
/// ```
/// use unsaid_privacy::{DiscreteLaplace, NoiseError};
/// let laplace = DiscreteLaplace::with_scale(5, 2)?; // scale 2.5
/// assert_eq!(laplace.scale(), (5, 2));
/// assert_eq!(DiscreteLaplace::with_scale(0, 1), Err(NoiseError::ZeroScale));
/// # Ok::<(), NoiseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscreteLaplace {
    t: u64,
    s: u64,
}

impl DiscreteLaplace {
    /// The largest numerator of a scale.
    pub const MAX_SCALE: u64 = 1 << 42;

    /// Multiples of `t` beyond which a draw is rejected, so that every sum fits in 64 bits: the distribution is that of Algorithm 2
    /// given an event of probability 1 − exp(−2²⁰).
    const MAX_V: u64 = 1 << 20;

    /// Scale `num / den`.
    ///
    /// # Errors
    /// [`NoiseError::ZeroDenominator`], [`NoiseError::ZeroScale`], and [`NoiseError::OutOfRange`] where, in lowest terms,
    /// the numerator is above [`Self::MAX_SCALE`] or the denominator beyond 64 bits.
    pub fn with_scale(num: u128, den: u128) -> Result<Self, NoiseError> {
        let (num, den) = lowest_terms(num, den)?;
        match (u64::try_from(num), u64::try_from(den)) {
            (Ok(t), Ok(s)) if t <= Self::MAX_SCALE => Ok(Self { t, s }),
            _ => Err(NoiseError::OutOfRange {
                reason: "a Laplace scale has a numerator of at most 2^42 and a denominator below 2^64",
            }),
        }
    }

    /// Numerator and denominator of the scale, in lowest terms.
    pub const fn scale(&self) -> (u64, u64) {
        (self.t, self.s)
    }

    /// One sample.
    pub fn sample<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> i64 {
        loop {
            let (u, negative, v) = propose(self.t, rng);
            if v >= Self::MAX_V {
                continue;
            }
            // Algorithm 2: X ← U + t·V, Y ← ⌊X/s⌋
            let y = (u + self.t * v) / self.s;
            // “if B = 1 and Y = 0 then restart; return (1 − 2B)·Y”
            if negative && y == 0 {
                continue;
            }
            let y = y as i64;
            return if negative { -y } else { y };
        }
    }
}

/// The first half of CKS Algorithm 2: (U, B, V), with X = U + t·V geometric.
#[inline]
pub(super) fn propose<R: CryptoRng + ?Sized>(t: u64, rng: &mut R) -> (u64, bool, u64) {
    loop {
        // “Sample U uniformly from {0, …, t − 1}” and, from the same word, “Sample B ← Bernoulli(1/2)”: a uniform number
        // below 2t is the pair of them, and B may be drawn before it is needed, for it is independent of all else.
        let pair = if t <= u64::from(u32::MAX / 2) {
            u64::from(below_32(2 * t as u32, rng))
        } else {
            below(2 * t, rng)
        };
        let (u, b) = (pair >> 1, pair & 1 == 1);
        // “Sample D ← Bernoulli(exp(−U/t)); if D = 0 then restart”
        if !exp(u, t, rng) {
            continue;
        }
        // “V ← 0; loop: A ← Bernoulli(exp(−1)); if A = 0 then leave the loop; V ← V + 1”
        let mut v = 0;
        while exp_minus_one(rng) {
            v += 1;
        }
        return (u, b, v);
    }
}

/// A positive fraction in lowest terms.
pub(super) fn lowest_terms(num: u128, den: u128) -> Result<(u128, u128), NoiseError> {
    if den == 0 {
        return Err(NoiseError::ZeroDenominator);
    }
    if num == 0 {
        return Err(NoiseError::ZeroScale);
    }
    let (mut a, mut b) = (num, den);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Ok((num / a, den / a))
}
