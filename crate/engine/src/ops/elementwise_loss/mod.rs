//! Two losses against numbers, averaged over all outputs: mean squared error, and cross-entropy of sigmoids.
//!
//! For outputs `z` and targets `t`, both `[rows, len]`:
//! - mean squared error: `(z − t)²`, with `dz = 2(z − t)` (Bishop 2006, equation 1.2, there half of the sum);
//! - sigmoid cross-entropy, targets from 0 to 1: `max(z, 0) − z·t + log(1 + e^−|z|)`, which never overflows, with
//!   `dz = sigmoid(z) − t` (Goodfellow, Bengio, Courville 2016, section 6.2.2.2).

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Mean squared error.
    SquaredError,
    /// Sigmoid cross-entropy.
    SigmoidCrossEntropy,
}

/// The loss: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementwiseLoss {
    /// Which one.
    pub measure: Measure,
    /// Numbers per example.
    pub len: usize,
}
