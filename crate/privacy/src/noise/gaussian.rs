//! The discrete Gaussian distribution: CKS Algorithm 3.

use rand_core::CryptoRng;

use super::NoiseError;
use super::exponential::{exp, exp_wide};
use super::laplace::{lowest_terms, propose};

/// The discrete Gaussian of parameter σ²: P(x) ∝ exp(−x²/2σ²) on the integers, centred at 0 (CKS Algorithm 3).
///
/// σ² is a fraction. The variance is at most σ², and from σ ≈ 1 on the two cannot be told apart (CKS, the section on utility).
///
/// Exact but for one event: a proposal of magnitude 256·(⌊σ⌋ + 1) or more is rejected outright, so that the arithmetic fits in
/// 128 bits. Algorithm 3 would make and accept such a proposal with probability below exp(−256 − 255²/2) < 2⁻⁴⁷⁰⁰⁰.
///
/// ```
/// use unsaid_privacy::{DiscreteGaussian, NoiseError};
/// let gaussian = DiscreteGaussian::with_variance(25, 4)?; // σ = 2.5
/// assert_eq!(gaussian.variance(), (25, 4));
/// assert_eq!(DiscreteGaussian::with_variance(1, 0), Err(NoiseError::ZeroDenominator));
/// # Ok::<(), NoiseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscreteGaussian {
    /// σ² = num/den, in lowest terms.
    num: u64,
    den: u64,
    /// ⌊σ⌋ + 1
    t: u64,
    /// t·den
    step: u64,
    /// 2·num·den·t²: the denominator of γ.
    gamma_den: u128,
    /// Whether γ of every proposal below `NARROW_V`·t fits in 64 bits.
    narrow: bool,
}

impl DiscreteGaussian {
    /// Multiples of t below which γ is computed in 64 bits where σ allows it.
    const NARROW_V: u64 = 8;
    /// Multiples of t from which a proposal is rejected.
    const MAX_V: u64 = 256;
    /// t²·den may be at most this: (MAX_V·t²·den)² < 2¹²⁸.
    const MAX_SIZE: u128 = 1 << 55;
    /// The same for 64 bits: (NARROW_V·t²·den)² < 2⁶⁴.
    const MAX_NARROW: u128 = 1 << 28;

    /// σ² = `num / den`.
    ///
    /// # Errors
    /// [`NoiseError::ZeroDenominator`], [`NoiseError::ZeroScale`], and [`NoiseError::OutOfRange`] where, in lowest terms,
    /// (⌊σ⌋ + 1)² · `den` is above 2⁵⁵: integer variances reach to σ ≈ 1.9 × 10⁸, and σ = 10⁶ leaves denominators to 36,000.
    pub fn with_variance(num: u128, den: u128) -> Result<Self, NoiseError> {
        const OUT_OF_RANGE: NoiseError = NoiseError::OutOfRange {
            reason: "for a variance n/d in lowest terms, (floor(sqrt(n/d)) + 1)^2 * d is at most 2^55",
        };
        let (num, den) = lowest_terms(num, den)?;
        // ⌊σ⌋ = ⌊√(num/den)⌋ = ⌊√⌊num/den⌋⌋
        let t = (num / den).isqrt() + 1;
        let size = t
            .checked_mul(t)
            .and_then(|t2| t2.checked_mul(den))
            .filter(|size| *size <= Self::MAX_SIZE)
            .ok_or(OUT_OF_RANGE)?;
        // num < t²·den = size, so that each of these fits.
        let (Ok(num), Ok(den), Ok(t)) = (u64::try_from(num), u64::try_from(den), u64::try_from(t)) else {
            return Err(OUT_OF_RANGE);
        };
        Ok(Self {
            num,
            den,
            t,
            step: t * den,
            gamma_den: 2 * u128::from(num) * size,
            narrow: size <= Self::MAX_NARROW,
        })
    }

    /// Numerator and denominator of σ², in lowest terms.
    pub const fn variance(&self) -> (u64, u64) {
        (self.num, self.den)
    }

    /// The exponent (|Y| − σ²/t)²/2σ² of Algorithm 3 as root²/den: with σ² = n/d it is (|Y|·t·d − n)² / (2·n·d·t²).
    #[inline]
    pub(super) const fn exponent(&self, magnitude: u64) -> (u64, u128) {
        ((magnitude * self.step).abs_diff(self.num), self.gamma_den)
    }

    /// One sample.
    #[inline]
    pub fn sample<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> i64 {
        loop {
            // Algorithm 3: “Sample Y ← Lap_Z(t)”, t = ⌊σ⌋ + 1, which is Algorithm 2 with s = 1.
            let (u, negative, v) = propose(self.t, rng);
            if v >= Self::MAX_V {
                continue;
            }
            let y = u + self.t * v;
            if negative && y == 0 {
                continue;
            }
            // “Sample C ← Bernoulli(exp(−(|Y| − σ²/t)²/2σ²)); if C = 0 then restart; return Y”
            let (root, den) = self.exponent(y);
            let accepted = if self.narrow && v < Self::NARROW_V {
                exp(root * root, den as u64, rng)
            } else {
                exp_wide(u128::from(root).pow(2), den, rng)
            };
            if accepted {
                return if negative { -(y as i64) } else { y as i64 };
            }
        }
    }
}
