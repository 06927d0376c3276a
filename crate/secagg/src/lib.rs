//! Arithmetic for secure aggregation: sums modulo 2^b, in which a masked sum equals the sum.
//!
//! **What is here:** the ring ([`Ring`]): reduction, addition, subtraction, reading a sum back as a signed number, and the choice of b
//! from the cohort's size, so that the sum cannot wrap around.
//!
//! **What is not here yet:** any masking, key agreement, secret sharing or drop-out recovery. Nothing in this crate hides a single
//! value from anyone; a relay that adds up numbers with it sees every number.

mod ring;

pub use ring::{Ring, RingError};
