//! The Poisson and the Skellam distribution, for noise that many participants add in parts.

use rand_core::CryptoRng;

use super::NoiseError;
use super::laplace::lowest_terms;
use super::uniform::below;

/// The symmetric Skellam distribution of a variance: the difference of two independent Poisson variables of half that mean each.
///
/// Sums of independent ones are Skellam again, and their variances add up, which is not so for the discrete Gaussian: parts of the
/// noise can be drawn by people who do not trust each other (Agarwal, Kairouz, Liu, “The Skellam Mechanism for Differentially Private
/// Federated Learning”, NeurIPS 2021, [arXiv:2110.04995](https://arxiv.org/abs/2110.04995)).
///
/// Exact but for one event: a Poisson variable farther than 24·(⌊√⌊μ⌋⌋ + 2) from its mode, which has a probability below 2⁻²⁰⁰, is
/// never drawn. A sample takes a time in proportion to √variance: about 10 µs at σ = 100.
///
/// ```
/// use unsaid_privacy::{NoiseError, Skellam};
/// let skellam = Skellam::with_variance(25, 4)?; // σ = 2.5
/// assert_eq!(skellam.variance(), (25, 4));
/// assert_eq!(Skellam::with_variance(0, 1), Err(NoiseError::ZeroScale));
/// # Ok::<(), NoiseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skellam {
    /// In lowest terms.
    num: u64,
    den: u64,
    half: Poisson,
}

impl Skellam {
    /// The largest variance, and the largest numerator and denominator of one, in lowest terms: σ = 2¹⁴.
    pub const MAX_VARIANCE: u64 = 1 << 28;

    /// The distribution of variance `num / den`.
    ///
    /// # Errors
    /// [`NoiseError::ZeroDenominator`], [`NoiseError::ZeroScale`], and [`NoiseError::OutOfRange`] where, in lowest terms,
    /// numerator or denominator is above [`Self::MAX_VARIANCE`].
    pub fn with_variance(num: u128, den: u128) -> Result<Self, NoiseError> {
        let (num, den) = lowest_terms(num, den)?;
        match (u64::try_from(num), u64::try_from(den)) {
            (Ok(num), Ok(den)) if num <= Self::MAX_VARIANCE && den <= Self::MAX_VARIANCE => Ok(Self {
                num,
                den,
                half: Poisson::new(num, 2 * den),
            }),
            _ => Err(NoiseError::OutOfRange {
                reason: "a Skellam variance in lowest terms has a numerator and a denominator of at most 2^28",
            }),
        }
    }

    /// Numerator and denominator of the variance, in lowest terms.
    pub const fn variance(&self) -> (u64, u64) {
        (self.num, self.den)
    }

    /// One sample.
    pub fn sample<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> i64 {
        self.half.sample(rng) - self.half.sample(rng)
    }
}

/// The Poisson distribution of mean μ = `num/den`.
///
/// Rejection from the uniform distribution around the mode m = ⌊μ⌋. A proposal m + j is accepted with the probability
/// p(m+j)/p(m) = Πᵢ μ/(m+i), i from 1 to j, and m − j with Πᵢ (m−i)/μ, i from 0 to j − 1: each factor is a fraction of at most 1,
/// and so a coin, and the first that fails ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Poisson {
    num: u64,
    den: u64,
    mode: u64,
    /// Proposals are at most this far from the mode.
    reach: u64,
}

impl Poisson {
    /// Reach in units of about √μ. Beyond k of them there is a probability of about e^(−k²/2), for small μ far less.
    const DEVIATIONS: u64 = 24;

    const fn new(num: u64, den: u64) -> Self {
        let mode = num / den;
        Self {
            num,
            den,
            mode,
            reach: Self::DEVIATIONS * (mode.isqrt() + 2),
        }
    }

    fn sample<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> i64 {
        loop {
            let j = below(2 * self.reach + 1, rng) as i64 - self.reach as i64;
            let distance = j.unsigned_abs();
            let accepted = if j >= 0 {
                // μ/(m+i)
                (1..=distance).all(|i| below(self.den * (self.mode + i), rng) < self.num)
            } else if distance <= self.mode {
                // (m−i)/μ
                (0..distance).all(|i| below(self.num, rng) < self.den * (self.mode - i))
            } else {
                false
            };
            if accepted {
                return self.mode as i64 + j;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::statistics::{FALSE_ALARM, Fit};

    fn rng(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    /// The Skellam probability, by the convolution that defines it, up to a factor.
    fn skellam(variance: f64) -> impl Fn(i64) -> f64 {
        let mean = variance / 2.0;
        let most = (mean + 40.0 * (mean.sqrt() + 1.0)) as i64;
        // p(k) = p(k−1)·μ/k, on a scale on which the largest is about 1.
        let mut ln_p = 0.0;
        let mut ln_all: Vec<f64> = vec![0.0];
        for k in 1..=most {
            ln_p += (mean / k as f64).ln();
            ln_all.push(ln_p);
        }
        let peak = ln_all.iter().copied().fold(0.0, f64::max);
        let poisson: Vec<f64> = ln_all.iter().map(|ln_p| (ln_p - peak).exp()).collect();
        // What is too small to matter takes too long.
        let start = poisson.iter().position(|p| *p > 1e-40).unwrap_or(0);
        move |x: i64| {
            poisson[start..]
                .iter()
                .skip(x.unsigned_abs() as usize)
                .zip(&poisson[start..])
                .map(|(a, b)| a * b)
                .sum()
        }
    }

    #[test]
    fn skellam_has_its_exact_probabilities() {
        for (seed, (num, den, samples)) in [
            (9, 100, 300_000),
            (1, 1, 300_000),
            (25, 4, 300_000),
            (2_500, 1, 100_000),
            (1_000_001, 10, 20_000),
        ]
        .into_iter()
        .enumerate()
        {
            let variance = num as f64 / den as f64;
            let sampler = Skellam::with_variance(num, den).unwrap();
            let mut rng = rng(200 + seed as u8);
            let drawn: Vec<i64> = (0..samples).map(|_| sampler.sample(&mut rng)).collect();
            let fit =
                |variance: f64| Fit::new(skellam(variance), 9.0 * variance.sqrt() + 6.0, samples).p(&drawn);
            assert!(fit(variance) > FALSE_ALARM, "{variance}: p = {}", fit(variance));
            // Positive control: a variance that is off by a quarter is noticed, even at the fewest samples.
            assert!(fit(variance * 1.25) < FALSE_ALARM, "{variance}");
        }
    }

    #[test]
    fn sums_of_skellam_are_skellam() {
        // Ten parts of a tenth of the variance each.
        let part = Skellam::with_variance(5, 10).unwrap();
        let mut rng = rng(210);
        let sums: Vec<i64> = (0..100_000)
            .map(|_| (0..10).map(|_| part.sample(&mut rng)).sum())
            .collect();
        let p = Fit::new(skellam(5.0), 30.0, sums.len()).p(&sums);
        assert!(p > FALSE_ALARM, "p = {p}");
        // A discrete Gaussian of that variance is another distribution, and is told apart.
        let gaussian = |x: i64| (-(x as f64).powi(2) / 10.0).exp();
        assert!(Fit::new(gaussian, 30.0, sums.len()).p(&sums) < FALSE_ALARM);
    }

    #[test]
    fn senseless_variances_are_typed_errors_and_extremes_are_sampled() {
        assert_eq!(Skellam::with_variance(1, 0), Err(NoiseError::ZeroDenominator));
        assert_eq!(Skellam::with_variance(0, 3), Err(NoiseError::ZeroScale));
        for (num, den) in [((1 << 28) + 1, 1), (1, (1 << 28) + 1), (u128::MAX, 1)] {
            assert!(matches!(
                Skellam::with_variance(num, den),
                Err(NoiseError::OutOfRange { .. })
            ));
        }
        for (num, den) in [(1 << 28, 1), (1, 1 << 28), ((1 << 28) - 1, 1 << 28)] {
            let sampler = Skellam::with_variance(num, den).unwrap();
            // 12σ + 12 is passed with probability below 10⁻²⁰.
            let bound = 12.0 * (num as f64 / den as f64).sqrt() + 12.0;
            assert!((sampler.sample(&mut rng(220)) as f64).abs() < bound);
        }
    }
}
