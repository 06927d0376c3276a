//! What one step releases, and how those whose data are in it were chosen.

use super::{Adjacency, CompositionError};

/// How the records of a step are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Sampling {
    /// Every record is in every step.
    All,
    /// Every record is in the step with this probability, by a coin of its own (Poisson sampling), and nobody but the
    /// mechanism learns how the coins fell.
    Poisson {
        /// The probability, above 0 and at most 1.
        rate: f64,
    },
    /// A batch of fixed size, uniform among all such batches, and secret.
    WithoutReplacement {
        /// The batch's share of all records, above 0 and at most 1.
        rate: f64,
    },
}

impl Sampling {
    /// The probability with which a record is in a step.
    pub const fn rate(self) -> f64 {
        match self {
            Self::All => 1.0,
            Self::Poisson { rate } | Self::WithoutReplacement { rate } => rate,
        }
    }
}

/// One step: the sum of one vector per sampled record, each of L2 norm at most 1, plus Gaussian noise.
///
/// The noise multiplier is σ in units of that norm bound, whatever the adjacency: under [`Adjacency::ReplaceOne`] two sums can
/// be 2 apart, and that factor is put in by the accountants.
///
/// ```
/// use unsaid_privacy::accounting::{GaussianSum, Sampling};
/// let step = GaussianSum::new(1.1, Sampling::Poisson { rate: 0.01 })?;
/// assert_eq!(step.noise_multiplier(), 1.1);
/// assert!(GaussianSum::new(0.0, Sampling::All).is_err());
/// # Ok::<(), unsaid_privacy::accounting::CompositionError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaussianSum {
    noise_multiplier: f64,
    sampling: Sampling,
}

impl GaussianSum {
    /// The least noise multiplier that the accountants take. At 0.01 one step costs ε > 5,000.
    pub const MIN_NOISE_MULTIPLIER: f64 = 0.01;
    /// The largest.
    pub const MAX_NOISE_MULTIPLIER: f64 = 1e9;
    /// The least sampling rate.
    pub const MIN_RATE: f64 = 1e-12;

    /// A step with noise of `noise_multiplier` times the norm bound.
    ///
    /// # Errors
    /// [`CompositionError::NoiseMultiplier`] for anything but a finite number above 0,
    /// [`CompositionError::NoiseMultiplierRange`] outside [`Self::MIN_NOISE_MULTIPLIER`] to
    /// [`Self::MAX_NOISE_MULTIPLIER`], [`CompositionError::SamplingRate`] for a rate that is not between
    /// [`Self::MIN_RATE`] and 1.
    pub fn new(noise_multiplier: f64, sampling: Sampling) -> Result<Self, CompositionError> {
        if !(noise_multiplier.is_finite() && noise_multiplier > 0.0) {
            return Err(CompositionError::NoiseMultiplier(noise_multiplier));
        }
        if !(Self::MIN_NOISE_MULTIPLIER..=Self::MAX_NOISE_MULTIPLIER).contains(&noise_multiplier) {
            return Err(CompositionError::NoiseMultiplierRange(noise_multiplier));
        }
        let rate = sampling.rate();
        if !(Self::MIN_RATE..=1.0).contains(&rate) {
            return Err(CompositionError::SamplingRate(rate));
        }
        let sampling = if rate == 1.0 { Sampling::All } else { sampling };
        Ok(Self {
            noise_multiplier,
            sampling,
        })
    }

    /// A step without sampling, of a noise multiplier that is the sum of several and may be out of range.
    pub(super) const fn unchecked(noise_multiplier: f64) -> Self {
        Self {
            noise_multiplier,
            sampling: Sampling::All,
        }
    }

    /// σ over the norm bound of one record.
    pub const fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// How records are chosen. A rate of 1 is [`Sampling::All`].
    pub const fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Whether `adjacency` has a meaning for the way records are chosen.
    ///
    /// # Errors
    /// [`CompositionError::FixedBatch`]: a batch of fixed size is defined between data sets of one size only.
    pub(super) const fn check(&self, adjacency: Adjacency) -> Result<(), CompositionError> {
        match (self.sampling, adjacency) {
            (Sampling::WithoutReplacement { .. }, Adjacency::AddRemove) => Err(CompositionError::FixedBatch),
            _ => Ok(()),
        }
    }
}
