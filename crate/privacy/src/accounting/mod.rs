//! What was spent: from mechanisms to (ε, δ).
//!
//! Three accountants, from the simplest to the tightest. Each takes the [`Adjacency`] it is to count for.
//! - [`Rho`], zero-concentrated differential privacy: one number, which the ledger books;
//! - [`RdpCurve`], Rényi differential privacy: a number for each order, which also knows sampling;
//! - [`LossDistribution`], the distribution of the privacy loss on a grid: within a few parts in 10⁴ of the true ε, with
//!   a proven bound on either side.
//!
//! [`Composition`] puts steps together, [`epsilon`](Composition::epsilon) asks any of them, and [`noise_multiplier`] goes the other
//! way. [`analytic_epsilon`] is the exact answer where nobody is sampled.

mod analytic;
mod composition;
mod error;
mod fft;
mod pld;
mod rdp;
mod special;
mod step;
mod zcdp;

use unsaid_document::Decimal;

pub use analytic::{analytic_epsilon, analytic_noise_multiplier};
pub use composition::{Accountant, Composition, EpsilonBounds, noise_multiplier};
pub use error::CompositionError;
pub use pld::LossDistribution;
pub(crate) use rdp::sampled_at;
pub use rdp::{RdpCurve, usual_orders};
pub(crate) use special::normal_quantile;
pub use step::{GaussianSum, Sampling};
pub use zcdp::Rho;
pub(crate) use zcdp::{add_up, check_delta};

/// Which two inputs must be hard to tell apart. Every cost says which it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Adjacency {
    /// One participant's whole update is replaced by any other: two vectors within the bound Δ are up to 2Δ apart. This is
    /// what local differential privacy means, and what the ledger debits.
    ReplaceOne,
    /// One participant's update is there or is not (an update of zeros): Δ apart.
    AddRemove,
}

impl Adjacency {
    /// Sensitivity in multiples of the norm bound Δ.
    pub const fn sensitivity_factor(self) -> f64 {
        match self {
            Self::ReplaceOne => 2.0,
            Self::AddRemove => 1.0,
        }
    }
}

/// Why a cost cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountingError {
    /// ρ is negative, NaN or infinite.
    #[error("rho is {}, but must be a finite number of at least 0", Decimal(*.0))]
    Rho(f64),
    /// δ is not between 0 and 1.
    #[error("delta is {}, but must be above 0 and below 1", Decimal(*.0))]
    Delta(f64),
    /// ε is negative, NaN or infinite.
    #[error("epsilon is {}, but must be a finite number of at least 0", Decimal(*.0))]
    Epsilon(f64),
    /// A noise multiplier that is not a finite number above 0.
    #[error("the noise multiplier is {}, but must be a finite number above 0", Decimal(*.0))]
    NoiseMultiplier(f64),
}

#[cfg(test)]
mod tests;
