//! Why the accountants of whole runs give no answer.
//!
//! Apart from [`AccountingError`](super::AccountingError), which the ledger needs: a browser that only keeps its ledger downloads none
//! of this.

/// Why the cost of a run cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompositionError {
    /// δ is not between 0 and 1.
    #[error("delta is {0}, but must be above 0 and below 1")]
    Delta(f64),
    /// ε is negative, NaN or infinite.
    #[error("epsilon is {0}, but must be a finite number of at least 0")]
    Epsilon(f64),
    /// ε of 0 or less as a target, which no finite noise reaches.
    #[error("epsilon is {0}, but a target must be a finite number above 0")]
    TargetEpsilon(f64),
    /// A noise multiplier that is not a finite number above 0.
    #[error("the noise multiplier is {0}, but must be a finite number above 0")]
    NoiseMultiplier(f64),
    /// A noise multiplier beyond what the accountants compute.
    #[error("the noise multiplier is {0}, but must be between 0.01 and 1,000,000,000")]
    NoiseMultiplierRange(f64),
    /// A sampling rate that is not a probability above 0.
    #[error("the sampling rate is {0}, but must be at least 1e-12 and at most 1")]
    SamplingRate(f64),
    /// No steps, or too many.
    #[error("{0} steps: there must be at least 1 and at most 1,000,000,000")]
    Steps(u64),
    /// Nothing was composed.
    #[error("there is no step to account for")]
    NoSteps,
    /// A batch of fixed size where records come and go.
    #[error(
        "a batch of fixed size has no meaning under add/remove adjacency: use replace-one, or Poisson sampling"
    )]
    FixedBatch,
    /// A Laplace scale that is not a finite number above 0.
    #[error("the Laplace scale over the sensitivity is {0}, but must be a finite number above 0")]
    LaplaceScale(f64),
    /// An order outside (1, 4,096], or none.
    #[error("an order is {0}, but must be above 1 and at most 4,096")]
    Order(f64),
    /// Two curves over different orders.
    #[error("two curves over different orders cannot be added")]
    OrdersDiffer,
    /// δ is smaller than the errors of the computation.
    #[error(
        "delta is {delta}, but this composition can be computed only down to delta = {least}: use the rdp accountant"
    )]
    DeltaTooSmall {
        /// The δ asked for.
        delta: f64,
        /// The least δ that can be answered.
        least: f64,
    },
    /// No noise multiplier in range reaches the target.
    #[error("no noise multiplier up to 1,000,000,000 reaches this epsilon and delta")]
    Unreachable,
    /// The cost is beyond the range of floats.
    #[error("epsilon is too large to be computed: there is no protection to speak of")]
    Overflow,
}

pub(super) fn check_delta(delta: f64) -> Result<(), CompositionError> {
    if delta > 0.0 && delta < 1.0 {
        Ok(())
    } else {
        Err(CompositionError::Delta(delta))
    }
}

/// Checks a target.
pub(super) fn check_epsilon(epsilon: f64) -> Result<(), CompositionError> {
    if epsilon.is_finite() && epsilon > 0.0 {
        Ok(())
    } else {
        Err(CompositionError::TargetEpsilon(epsilon))
    }
}
