//! The mean of a number that each person has, under local differential privacy.

use rand_core::CryptoRng;

use super::{AnalyticsError, DENOMINATOR, Estimate, epsilon_units};
use crate::DiscreteLaplace;
use crate::noise::uniform_below;

/// A way to ask many people for a number in a range, at ε for each.
///
/// The number is cut off at the range's ends, put on a grid of [`Self::STEPS`] steps across it by randomised rounding, and gets
/// discrete Laplace noise of scale STEPS/ε: any two numbers are at most STEPS apart. Unit: one answer. Adjacency: any number in
/// place of any other. Whoever collects the reports is not trusted.
///
/// ```
/// use unsaid_privacy::analytics::{AnalyticsError, BoundedMean};
/// # use rand_core::SeedableRng;
/// # let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
/// let ages = BoundedMean::new(0.0, 120.0, 2.0)?;
/// let reports: Vec<i64> = (0..50_000).map(|i| ages.report(f64::from(20 + i % 41), &mut rng)).collect::<Result<_, _>>()?;
/// let mean = ages.estimate(&reports)?;
/// assert!((mean.value - 40.0).abs() < 6.0 * mean.standard_error && mean.standard_error < 1.0);
/// # Ok::<(), AnalyticsError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundedMean {
    low: f64,
    high: f64,
    noise: DiscreteLaplace,
}

impl BoundedMean {
    /// Grid steps from one end of the range to the other.
    pub const STEPS: u64 = 1 << 10;

    /// Numbers from `low` to `high`, at `epsilon` for each person.
    ///
    /// # Errors
    /// [`AnalyticsError::Range`], [`AnalyticsError::Epsilon`].
    pub fn new(low: f64, high: f64, epsilon: f64) -> Result<Self, AnalyticsError> {
        if !(low.is_finite() && high.is_finite() && low < high && (high - low).is_finite()) {
            return Err(AnalyticsError::Range { low, high });
        }
        let units = epsilon_units(epsilon)?;
        // STEPS/ε, for an ε that is never above the one that was asked for.
        let noise = DiscreteLaplace::with_scale(u128::from(Self::STEPS * DENOMINATOR), u128::from(units))?;
        Ok(Self { low, high, noise })
    }

    /// Randomises one number: whole grid steps from the range's lower end.
    ///
    /// # Errors
    /// [`AnalyticsError::NonFinite`].
    pub fn report<R: CryptoRng + ?Sized>(&self, value: f64, rng: &mut R) -> Result<i64, AnalyticsError> {
        let steps = to_grid(value, self.low, self.high, Self::STEPS, rng)?;
        Ok(steps as i64 + self.noise.sample(rng))
    }

    /// The mean of all people's numbers (as cut off at the ends), from one report of each. Unbiased. The standard error is that of the
    /// reports, which holds the spread of the numbers and of the noise.
    ///
    /// # Errors
    /// [`AnalyticsError::Empty`] for fewer than two reports.
    pub fn estimate(&self, reports: &[i64]) -> Result<Estimate, AnalyticsError> {
        if reports.len() < 2 {
            return Err(AnalyticsError::Empty);
        }
        let n = reports.len() as f64;
        let step = (self.high - self.low) / Self::STEPS as f64;
        let mean = reports.iter().map(|x| *x as f64).sum::<f64>() / n;
        let variance = reports.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Ok(Estimate::of_many(
            self.low + mean * step,
            (variance / n).sqrt() * step,
        ))
    }
}

/// `value`, cut off at `low` and `high`, as a whole number of steps from `low`, of which `steps` are the range: up with a probability
/// equal to the fraction (to within 2⁻³²), so that it is right on average.
pub(super) fn to_grid<R: CryptoRng + ?Sized>(
    value: f64,
    low: f64,
    high: f64,
    steps: u64,
    rng: &mut R,
) -> Result<u64, AnalyticsError> {
    if !value.is_finite() {
        return Err(AnalyticsError::NonFinite);
    }
    let exact = ((value.clamp(low, high) - low) / (high - low) * steps as f64).clamp(0.0, steps as f64);
    let fraction = ((exact - exact.floor()) * 4_294_967_296.0) as u128;
    let up = uniform_below(1 << 32, rng)? < fraction;
    // Never beyond the range, which is what the noise is made for.
    Ok((exact.floor() as u64 + u64::from(up)).min(steps))
}
