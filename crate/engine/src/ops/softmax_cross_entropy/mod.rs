//! Softmax cross-entropy against integer labels.
//!
//! For outputs `z [rows, classes]` and labels `t [rows]`: `loss = meanᵣ( log Σⱼ exp z[r, j] − z[r, tᵣ] )`, computed with the row's
//! maximum taken out first (Goodfellow, Bengio, Courville 2016, section 4.1), and `dz[r, j] = (softmax(z[r])ⱼ − [j = tᵣ]) / rows`.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use crate::SpecError;

/// The loss: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftmaxCrossEntropy {
    /// Number of labels.
    pub classes: usize,
}

impl SoftmaxCrossEntropy {
    pub(crate) fn new(layer: usize, outputs: &[usize]) -> Result<Self, SpecError> {
        match *outputs {
            [classes] if classes >= 2 => Ok(Self { classes }),
            _ => Err(SpecError::Shape {
                layer,
                kind: "softmax-cross-entropy",
                expected: "one dimension of at least 2, [classes]",
                found: outputs.to_vec(),
            }),
        }
    }
}
