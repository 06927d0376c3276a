//! What stands between a person's data and the network: clipping, exact discrete noise, accounting, and the ledger that
//! says when to stop.
//!
//! The order of use, for one update:
//! 1. [`ClientFloors::check`]: are the task's terms good enough at all?
//! 2. [`Encoding::encode`]: clip the update, put it on the grid, and bound its integer norm.
//! 3. [`LocalNoise::add`]: add exact discrete Gaussian noise to every coordinate.
//! 4. [`Ledger::debit`]: book the cost, and send only if that succeeds.
//!
//! ```
//! # use unsaid_privacy::{Adjacency, Budget, Charge, Encoding, Ledger, LocalNoise, PrivacyError};
//! # fn prepare<R: rand_core::CryptoRng>(delta: &[f32], ledger: &mut Ledger, rng: &mut R) -> Result<Vec<i32>, PrivacyError> {
//! let encoding = Encoding::new(1.0, 1.0 / 1024.0, delta.len())?;
//! let noise = LocalNoise::new(&encoding, 4.0)?;
//! let mut update = encoding.encode(delta, rng)?.coordinates;
//! noise.add(&mut update, rng)?;
//! ledger.debit(Charge {
//!     task: "digits".into(),
//!     round: 7,
//!     update: "00112233445566778899aabbccddeeff".into(),
//!     frame_sha256: "ab".repeat(32), // of the very bytes to be sent
//!     cost: noise.rho(Adjacency::ReplaceOne).into(),
//!     at_ms: 1_700_000_000_000,
//! })?;
//! # Ok(update)
//! # }
//! # use rand_core::SeedableRng;
//! # let mut ledger = Ledger::new(Budget::new(8.0, 1e-5)?);
//! # let mut rng = rand_chacha::ChaCha20Rng::from_seed([7; 32]);
//! assert_eq!(prepare(&[0.5, -0.25, 0.0], &mut ledger, &mut rng)?.len(), 3);
//! assert!(ledger.spent_epsilon() > 0.0);
//! # Ok::<(), PrivacyError>(())
//! ```
//!
//! # What it protects against
//! A relay, or anyone who reads its disk or the network, that sees every update in full and knows everything else about the
//! participant: (ε, δ)-differential privacy of each participant's whole contribution, with the unit "one update replaced by
//! any other" ([`Adjacency::ReplaceOne`]), added up over all rounds and tasks that one ledger has booked.
//!
//! # What it does not protect against
//! - **Many rounds.** Every round costs; protection is that of the sum. The ledger adds it up, and stops, but a large budget is a
//!   weak promise.
//! - **A ledger that is lost.** Clearing a browser's storage, or using another browser, starts from zero.
//! - **What is public besides the update**: that someone took part, when, and how often.
//! - **Other code in the page**, and a device or random source under someone else's control. The caller passes the random
//!   source; if it can be guessed, so can the noise.
//! - **Timing.** Samplers and randomised rounding work by rejection; how long they take depends on the noise drawn and on the
//!   update. Nothing here is constant time. Someone who measures the device that precisely is not covered.
//! - **The model.** What many people's data have in common will be learned: that is the purpose.
//!
//! Floats are used up to the rounding on the grid, and in the accounting (where they are rounded towards more cost). From the
//! rounded integers on, all that decides what is sent is integer arithmetic.

pub mod accounting;
pub mod analytics;
mod audit;
mod bits;
pub mod central;
mod encoding;
mod example;
mod floors;
mod histogram;
mod inversion;
mod ledger;
mod noise;
#[cfg(test)]
mod statistics;

pub use accounting::{AccountingError, Adjacency, Rho};
pub use audit::{Audit, AuditError, Trials};
pub use encoding::{Encoded, Encoding, EncodingError};
pub use example::ExampleNoise;
pub use floors::{ClientFloors, FloorError};
pub use histogram::Histogram;
pub use inversion::{
    InversionError, Matching, fit_dense, invert_dense, label_from_bias, match_gradient, psnr, ssim,
};
pub use ledger::{Budget, Charge, Cost, Ledger, LedgerError, Receipt};
pub use noise::{
    DiscreteGaussian, DiscreteLaplace, LocalNoise, NoiseError, Skellam, bernoulli, bernoulli_exp,
    uniform_below,
};

/// Anything that can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivacyError {
    /// Clipping and rounding.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// Noise.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// Accounting.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The client's own floors.
    #[error(transparent)]
    Floor(#[from] FloorError),
}
