//! Noise that a trusted aggregator adds to a sum: the building blocks of central differential privacy, without state of their own
//! beyond what an algorithm needs, and without network or clock.
//!
//! - [`CentralNoise`]: discrete Gaussian noise on a sum of updates of bounded norm;
//! - [`AdaptiveClip`]: a clip norm that follows a quantile of the updates' norms;
//! - [`TreeSum`]: running sums with noise by the binary tree, for DP-FTRL, where nothing may be claimed from sampling; [`TreeNoise`]: the
//!   same noise for who keeps the sums.
//!
//! Unit: one participant's contribution to a round. Whom one must trust: the aggregator, which sees every update. The adjacency is an
//! argument wherever a cost is computed.

mod clip;
mod sum;
mod tree;

pub use clip::{AdaptiveClip, AdaptiveClipState};
pub use sum::CentralNoise;
pub use tree::{TreeCost, TreeNode, TreeNoise, TreeSum, tree_share};

use crate::NoiseError;
use crate::accounting::CompositionError;

/// Why an aggregator's mechanism cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CentralError {
    /// The noise.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// The cost.
    #[error(transparent)]
    Accounting(#[from] CompositionError),
    /// A norm bound of 0, or one too long to be squared exactly.
    #[error("the squared norm bound is {0} grid steps, but must be at least 1 and at most 2^53")]
    Bound(u64),
    /// A sum of another length than the noise is for.
    #[error("the sum has {found} coordinates, but must have {expected}")]
    Length {
        /// Coordinates given.
        found: usize,
        /// Coordinates expected.
        expected: usize,
    },
    /// A parameter that makes no sense.
    #[error("{field} is {found}, but must be {expected}")]
    Parameter {
        /// The parameter.
        field: &'static str,
        /// Its value.
        found: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// More participants within the clip norm than there are.
    #[error("{within} of {cohort} updates cannot have been within the clip norm")]
    Cohort {
        /// Said to be within.
        within: u64,
        /// In all.
        cohort: u64,
    },
    /// The clip norm's own noise uses up all that the round may cost.
    #[error(
        "a noise multiplier of {noise_multiplier} leaves nothing for the sum beside the count's: twice the count's noise must be above it"
    )]
    NothingLeft {
        /// The noise multiplier that sum and count together should cost.
        noise_multiplier: f64,
    },
    /// A tree that is full.
    #[error("the tree was made for {0} steps, and has had them")]
    Full(u64),
}

/// A positive finite number as σ² = multiplier²·scale_squared, as a fraction that is never below.
fn variance(multiplier: f64, scale_squared: f64) -> Result<crate::DiscreteGaussian, CentralError> {
    if !(multiplier.is_finite() && multiplier > 0.0) {
        return Err(NoiseError::NoiseMultiplier(multiplier).into());
    }
    let variance = ((multiplier * multiplier).next_up() * scale_squared).next_up();
    Ok(crate::noise::gaussian_of_at_least(variance)?)
}

/// The noise of a sum in which nobody counts for more than √`bound_squared`: `noise_multiplier` times that.
fn noise_of(bound_squared: u64, noise_multiplier: f64) -> Result<crate::DiscreteGaussian, CentralError> {
    // Beyond 2⁵³ the bound would not be exact in a float.
    if bound_squared == 0 || bound_squared > 1 << 53 {
        return Err(CentralError::Bound(bound_squared));
    }
    variance(noise_multiplier, bound_squared as f64)
}

#[cfg(test)]
mod tests;
