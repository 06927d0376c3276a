//! Smooth functions of single numbers: gelu, tanh, sigmoid. Shape: any; the output has the input's.
//!
//! - `gelu(x) = ½x·(1 + tanh(√(2/π)·(x + 0.044715x³)))` (Hendrycks, Gimpel 2016, section 2, the tanh form);
//! - `tanh(x)`, with `dx = dy·(1 − y²)` (LeCun et al. 1998, "Efficient BackProp", section 4.4);
//! - `sigmoid(x) = 1 / (1 + e⁻ˣ)`, with `dx = dy·y·(1 − y)` (Rumelhart, Hinton, Williams 1986, equations 2 and 5).

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// Gaussian error linear unit.
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic function.
    Sigmoid,
}

/// An activation: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The function.
    pub function: Function,
    /// Numbers per example.
    pub len: usize,
}
