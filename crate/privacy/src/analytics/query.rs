//! Answers about data that are held in one place, under a budget.

use std::fmt;

use rand_core::CryptoRng;

use super::mean::to_grid;
use super::{AnalyticsError, DENOMINATOR, Estimate, Law, epsilon_units};
use crate::{Adjacency, DiscreteLaplace};

/// Records, and a budget of pure ε for everything that is ever told about them.
///
/// Every answer gets discrete Laplace noise of scale (sensitivity / ε), and its ε is taken from the budget before the noise is drawn
/// (basic composition: Dwork, Roth 2014, Theorem 3.16). An answer that the budget does not cover is refused, whatever it would be; a
/// refusal tells nothing about the records, because costs do not depend on them. Unit: one record. Whoever holds the data is trusted.
///
/// ```
/// use unsaid_privacy::{Adjacency, analytics::{AnalyticsError, PrivateData}};
/// # use rand_core::SeedableRng;
/// # let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
/// let mut ages = PrivateData::new(vec![31, 45, 62, 19], 1.0, Adjacency::AddRemove)?;
/// let adults = ages.count(|age| *age >= 21, 0.75, &mut rng)?;
/// assert!(adults.standard_error > 1.0);
/// assert!(matches!(ages.count(|_| true, 0.5, &mut rng), Err(AnalyticsError::Exhausted { .. })));
/// # Ok::<(), AnalyticsError>(())
/// ```
///
/// It cannot be cloned, which would double the budget:
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<unsaid_privacy::analytics::PrivateData<u32>>();
/// ```
pub struct PrivateData<T> {
    records: Vec<T>,
    adjacency: Adjacency,
    /// ε left, in 2⁻²⁰: whole numbers, so that nothing is lost in adding up.
    left: u64,
}

/// Without the records, and without how many they are.
impl<T> fmt::Debug for PrivateData<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateData")
            .field("adjacency", &self.adjacency)
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

impl<T> PrivateData<T> {
    /// Grid steps across the range of a mean.
    const STEPS: u64 = 1 << 20;

    /// Holds `records`, and tells about them at most `epsilon` in all.
    ///
    /// # Errors
    /// [`AnalyticsError::Epsilon`].
    pub fn new(records: Vec<T>, epsilon: f64, adjacency: Adjacency) -> Result<Self, AnalyticsError> {
        Ok(Self {
            records,
            adjacency,
            left: epsilon_units(epsilon)?,
        })
    }

    /// ε left.
    pub fn left(&self) -> f64 {
        self.left as f64 / DENOMINATOR as f64
    }

    /// How many records `matches` holds for, with noise. Sensitivity 1: a record that comes, goes or changes moves it by one.
    ///
    /// # Errors
    /// [`AnalyticsError::Epsilon`], [`AnalyticsError::Exhausted`].
    pub fn count<R: CryptoRng + ?Sized>(
        &mut self,
        matches: impl Fn(&T) -> bool,
        epsilon: f64,
        rng: &mut R,
    ) -> Result<Estimate, AnalyticsError> {
        let units = self.charge(epsilon)?;
        let count = self.records.iter().filter(|record| matches(record)).count();
        Ok(noised(count as i64, 1, units, rng)?.scaled(0.0, 1.0))
    }

    /// How many records `bin` puts into each of `bins` bins, with noise. A record that `bin` puts nowhere (at `bins` or beyond) is
    /// counted nowhere. Sensitivity in sum: 1 under add/remove; 2 under replace-one, where a record can leave one bin for another.
    ///
    /// # Errors
    /// [`AnalyticsError::Categories`] for no bins or more than 2²⁰, [`AnalyticsError::Epsilon`],
    /// [`AnalyticsError::Exhausted`].
    pub fn histogram<R: CryptoRng + ?Sized>(
        &mut self,
        bins: u32,
        bin: impl Fn(&T) -> u32,
        epsilon: f64,
        rng: &mut R,
    ) -> Result<Vec<Estimate>, AnalyticsError> {
        if bins == 0 || bins > 1 << 20 {
            return Err(AnalyticsError::Categories(bins));
        }
        let units = self.charge(epsilon)?;
        let mut counts = vec![0_i64; bins as usize];
        for record in &self.records {
            if let Some(count) = counts.get_mut(bin(record) as usize) {
                *count += 1;
            }
        }
        let sensitivity = self.adjacency.sensitivity_factor() as u64;
        counts
            .into_iter()
            .map(|count| Ok(noised(count, sensitivity, units, rng)?.scaled(0.0, 1.0)))
            .collect()
    }

    /// The mean of `value` over all records, each cut off at `low` and `high`, with noise.
    ///
    /// Under replace-one the number of records is no secret, and the sum has a sensitivity of the range. Under add/remove it is
    /// one: half of ε goes to the sum of the distances from the range's middle (sensitivity: half the range), half to the number, and
    /// the mean is the middle plus their ratio, which is only nearly unbiased. A number below 1 counts as 1. A value that is no finite
    /// number counts as the middle: an error would tell that it is there. What putting each value on the grid adds (at most half a grid
    /// step of 2⁻²⁰ of the range as the deviation of one) is not in the standard error, beside which it is next to nothing.
    ///
    /// # Errors
    /// [`AnalyticsError::Range`], [`AnalyticsError::Empty`] for no records under replace-one, [`AnalyticsError::Epsilon`],
    /// [`AnalyticsError::Exhausted`].
    pub fn mean<R: CryptoRng + ?Sized>(
        &mut self,
        value: impl Fn(&T) -> f64,
        (low, high): (f64, f64),
        epsilon: f64,
        rng: &mut R,
    ) -> Result<Estimate, AnalyticsError> {
        if !(low.is_finite() && high.is_finite() && low < high && (high - low).is_finite()) {
            return Err(AnalyticsError::Range { low, high });
        }
        let middle = f64::midpoint(low, high);
        // From the middle, in whole steps of which STEPS are the range.
        let mut sum = 0_i64;
        for record in &self.records {
            let value = Some(value(record)).filter(|value| value.is_finite());
            let steps = to_grid(value.unwrap_or(middle), low, high, Self::STEPS, rng)?;
            sum += steps as i64 - (Self::STEPS / 2) as i64;
        }
        let step = (high - low) / Self::STEPS as f64;
        if self.adjacency == Adjacency::ReplaceOne {
            if self.records.is_empty() {
                return Err(AnalyticsError::Empty);
            }
            let units = self.charge(epsilon)?;
            let sum = noised(sum, Self::STEPS, units, rng)?;
            let n = self.records.len() as f64;
            return Ok(sum.scaled(middle, step / n));
        }
        let units = self.charge(epsilon)? / 2;
        let sum = noised(sum, Self::STEPS / 2, units, rng)?;
        let n = noised(self.records.len() as i64, 1, units, rng)?;
        let number = n.value.max(1.0);
        let distance = sum.value / number;
        // By first-order propagation through the ratio.
        let (each, of_n) = (step / number, distance.abs());
        Ok(Estimate {
            value: middle + distance * step,
            standard_error: each * sum.error.hypot(of_n * n.error),
            law: Law::Laplace {
                scale: each * (sum.scale + of_n * n.scale),
                step: each * (1.0 + of_n),
                draws: 2.0,
            },
        })
    }

    /// Takes ε from the budget: its units.
    fn charge(&mut self, epsilon: f64) -> Result<u64, AnalyticsError> {
        let units = epsilon_units(epsilon)?;
        // Rounded up where it is taken and down where it is used: never more is told than was paid for.
        let cost = (epsilon * DENOMINATOR as f64).ceil() as u64;
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(units)
            }
            None => Err(AnalyticsError::Exhausted {
                asked: epsilon,
                left: self.left(),
            }),
        }
    }
}

/// A whole number with noise, and what noise.
struct Noised {
    value: f64,
    /// The scale of the discrete Laplace distribution, and its standard deviation.
    scale: f64,
    error: f64,
}

impl Noised {
    /// As an estimate of `start` + the number·`step`.
    fn scaled(&self, start: f64, step: f64) -> Estimate {
        Estimate {
            value: start + self.value * step,
            standard_error: self.error * step,
            law: Law::Laplace {
                scale: self.scale * step,
                step,
                draws: 1.0,
            },
        }
    }
}

/// A whole number with discrete Laplace noise of scale sensitivity/ε.
fn noised<R: CryptoRng + ?Sized>(
    exact: i64,
    sensitivity: u64,
    epsilon_units: u64,
    rng: &mut R,
) -> Result<Noised, AnalyticsError> {
    let scale = (
        u128::from(sensitivity) * u128::from(DENOMINATOR),
        u128::from(epsilon_units),
    );
    let noise = DiscreteLaplace::with_scale(scale.0, scale.1)?;
    // The variance of the discrete Laplace distribution: 2·e^(−1/t)/(1 − e^(−1/t))².
    let ratio = (-(scale.1 as f64) / scale.0 as f64).exp();
    Ok(Noised {
        value: exact.saturating_add(noise.sample(rng)) as f64,
        scale: scale.0 as f64 / scale.1 as f64,
        error: (2.0 * ratio).sqrt() / (1.0 - ratio),
    })
}
