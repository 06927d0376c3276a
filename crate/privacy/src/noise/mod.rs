//! Exact noise: samplers in integer arithmetic, from random words to random integers without a float in between.
//!
//! The samplers are Algorithms 1, 2 and 3 of Canonne, Kamath and Steinke, “The Discrete Gaussian for Differential
//! Privacy”, NeurIPS 2020, [arXiv:2004.00010](https://arxiv.org/abs/2004.00010), cited below as CKS, and one of our own for the
//! Skellam distribution. A float sampler
//! would leave tell-tale gaps in its output (Mironov, CCS 2012); these have none, because every probability is a
//! comparison of whole numbers.
//!
//! Nothing here owns a random source. The caller passes a [`rand_core::CryptoRng`]; its words are all that decides.
//!
//! **Not constant time.** Every sampler works by rejection, so its running time depends on the noise that it drew.

mod exponential;
mod gaussian;
mod laplace;
mod local;
mod skellam;
mod uniform;

pub use exponential::bernoulli_exp;
pub use gaussian::DiscreteGaussian;
pub use laplace::DiscreteLaplace;
pub use local::LocalNoise;
pub(crate) use local::{add_samples, gaussian_of_at_least};
pub use skellam::Skellam;
pub use uniform::{bernoulli, uniform_below};
use unsaid_document::Decimal;

/// Why a sampler cannot be made, or noise not be added.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// A denominator of zero.
    #[error("the denominator of a probability, rate or variance is 0")]
    ZeroDenominator,
    /// A probability above 1.
    #[error("a probability is above 1")]
    ProbabilityAboveOne,
    /// A uniform number below zero was asked for.
    #[error("there is no number below 0 to choose from")]
    EmptyRange,
    /// A scale or variance of zero, which would be no noise at all.
    #[error("the scale of the noise is 0")]
    ZeroScale,
    /// A scale or variance outside the range for which the arithmetic is exact.
    #[error("the scale of the noise is outside the range for which its arithmetic is exact: {reason}")]
    OutOfRange {
        /// The limit that was passed.
        reason: &'static str,
    },
    /// A noise multiplier that is not a finite number above 0.
    #[error("the noise multiplier is {}, but must be a finite number above 0", Decimal(*.0))]
    NoiseMultiplier(f64),
    /// A sampling rate that is not a probability, or so small that an epoch has too many steps.
    #[error("the sampling rate is {}, but must be at least 0.000001 and at most 1", Decimal(*.0))]
    SamplingRate(f64),
    /// The noise would not fit beside the update in 32 bits.
    #[error("noise of σ = {sigma_steps} grid steps leaves no room in 32 bits: take a coarser grid", sigma_steps = Decimal(*sigma_steps))]
    TooWide {
        /// σ in grid steps.
        sigma_steps: f64,
    },
    /// Noise was to be added to something that is no update of its encoding. The coordinates were set to 0.
    #[error("the coordinates are not an update within the bound that this noise is made for")]
    Unbounded,
    /// A noised coordinate left the range of `i32`. The coordinates were set to 0.
    #[error("coordinate {index} left the range of 32 bits when noise was added")]
    Saturated {
        /// The coordinate.
        index: usize,
    },
}

#[cfg(test)]
mod tests;
