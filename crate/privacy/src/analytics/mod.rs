//! Private statistics without a model: what many people answer, and what a holder of data may tell.
//!
//! - *Local*: each person randomises their own answer before it leaves them. [`FrequencyOracle`] for one of k values,
//!   [`BoundedMean`] for a number. Unit: one answer; adjacency: any answer in place of any other; nobody is trusted.
//! - *Global*: [`PrivateData`] answers counts, histograms and means about records that it holds, with noise, until its budget is
//!   spent. Unit: one record; the adjacency is chosen when it is made; whoever holds the data is trusted.
//!
//! Whatever randomises is exact: e^ε is rounded down to a fraction first, so that the true ε is never above the one that was asked
//! for, and every choice is a comparison of whole numbers. Estimates are floats, and come with a standard error.

mod frequency;
mod mean;
mod query;

use crate::NoiseError;
use crate::accounting::normal_quantile;

pub use frequency::{FrequencyOracle, FrequencyScheme, Report};
pub use mean::BoundedMean;
pub use query::PrivateData;

/// Why there is no report, estimate or answer.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AnalyticsError {
    /// ε outside the range in which its fraction is fine enough.
    #[error("epsilon is {0}, but must be a number between 0.0001 and 20")]
    Epsilon(f64),
    /// A histogram with no choice, or too many.
    #[error("{0} categories: there must be at least 2 and at most 1,048,576")]
    Categories(u32),
    /// A value that is none of the categories.
    #[error("the value {value} is not below the number of categories, {categories}")]
    Value {
        /// The value.
        value: u32,
        /// The number of categories.
        categories: u32,
    },
    /// A report that this scheme cannot have made.
    #[error("report {index} is not one of this scheme")]
    Report {
        /// The report's place.
        index: usize,
    },
    /// Limits that are not a range.
    #[error("the range from {low} to {high} is none: both must be finite, and the first below the second")]
    Range {
        /// The lower limit.
        low: f64,
        /// The upper limit.
        high: f64,
    },
    /// A number that is NaN or infinite. Its value is not told.
    #[error("a value is not a finite number")]
    NonFinite,
    /// Nothing to estimate from.
    #[error("there is nothing to estimate from")]
    Empty,
    /// The answer would cost more than is left.
    #[error("the budget is used up: the answer costs epsilon = {asked}, and {left} is left")]
    Exhausted {
        /// ε of the answer.
        asked: f64,
        /// ε left.
        left: f64,
    },
    /// The noise cannot be made.
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

/// An estimate, and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// The estimate. It is unbiased, so that it can be impossible (a share below 0): cutting it off would bias it.
    pub value: f64,
    /// Its standard deviation, as estimated.
    pub standard_error: f64,
    law: Law,
}

/// What an estimate's error is distributed like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Law {
    /// The sum of many small ones.
    Normal,
    /// The sum of `draws` discrete Laplace variables with these scales together, and grid steps of this length together.
    Laplace { scale: f64, step: f64, draws: f64 },
}

impl Estimate {
    /// From many reports, whose errors add up to nearly a normal one.
    const fn of_many(value: f64, standard_error: f64) -> Self {
        Self {
            value,
            standard_error,
            law: Law::Normal,
        }
    }

    /// The interval that holds the truth with probability `confidence`; a `confidence` outside (0, 1) is taken for the nearest that
    /// is inside.
    ///
    /// For an estimate from many reports it is the normal approximation. An answer of [`PrivateData`] has one draw of discrete Laplace
    /// noise of scale t, whose tails are longer: P(|X| > r) ≤ e^(−(r−1)/t), so that −ln(1 − confidence)·t and one grid step are enough
    /// (for the two draws of a mean under add/remove, each at half of what is left, to first order in the ratio).
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let outside = 1.0 - confidence.clamp(1e-9, 1.0 - 1e-9);
        let reach = match self.law {
            Law::Normal => -normal_quantile(outside / 2.0) * self.standard_error,
            Law::Laplace { scale, step, draws } => -(outside / draws).ln() * scale + step,
        };
        (self.value - reach, self.value + reach)
    }
}

/// Denominator of ε and of e^ε as fractions.
const DENOMINATOR: u64 = 1 << 20;

fn check_epsilon(epsilon: f64) -> Result<(), AnalyticsError> {
    if (1e-4..=20.0).contains(&epsilon) {
        Ok(())
    } else {
        Err(AnalyticsError::Epsilon(epsilon))
    }
}

/// ⌊ε·2²⁰⌋: ε as a fraction, never above it.
fn epsilon_units(epsilon: f64) -> Result<u64, AnalyticsError> {
    check_epsilon(epsilon)?;
    // At least 104, and exact: the product with a power of two is.
    Ok((epsilon * DENOMINATOR as f64).floor() as u64)
}

#[cfg(test)]
mod tests;
