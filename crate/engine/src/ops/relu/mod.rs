//! Rectified linear unit.
//!
//! `y = max(x, 0)` for each number (Nair, Hinton 2010); its gradient is `dy` where `x > 0` and 0 elsewhere. Shape: any; the output
//! has the input's. NaN passes through, so that a broken model shows in its loss and is not hidden as zeros.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

pub(crate) use cpu::mask;

/// A rectifier: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relu {
    /// Numbers per example.
    pub len: usize,
}

impl Relu {
    pub(crate) const fn new(len: usize) -> Self {
        Self { len }
    }
}
