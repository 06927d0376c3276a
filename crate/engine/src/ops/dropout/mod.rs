//! Dropout (Srivastava et al. 2014, section 4, and 10 for the scale), in the inverted form: in training each number becomes 0 with probability `rate` and is otherwise
//! divided by `1 − rate`; in evaluation nothing happens. Shape: any; the output has the input's.
//!
//! Which numbers are dropped follows from the step's key, the layer, and the number's place in the batch by an integer hash
//! (the finaliser of MurmurHash3), so that both back ends drop the same ones and a step can be repeated.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use crate::{SpecError, model::Placement};

/// Dropout: see the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropout {
    /// Numbers per example.
    pub len: usize,
    /// Numbers whose 32-bit hash is below this are dropped.
    pub threshold: u32,
    /// What is kept is multiplied by this.
    pub scale: f32,
    /// Tells the layers of one model apart.
    pub salt: u32,
}

impl Dropout {
    pub(crate) fn new(at: &Placement<'_>, len: usize, rate: f32) -> Result<Self, SpecError> {
        if !(0.0..1.0).contains(&rate) {
            return Err(SpecError::Training {
                field: "rate of dropout",
                found: rate.into(),
                expected: "at least 0 and below 1",
            });
        }
        Ok(Self {
            len,
            threshold: (f64::from(rate) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - rate),
            salt: (at.layer as u32 + 1).wrapping_mul(0x9e37_79b9),
        })
    }
}

/// The finaliser of MurmurHash3.
pub(crate) const fn hash(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}
