//! Softmax cross-entropy against integer labels.
//!
//! For outputs `z [rows, positions, classes]` and labels `t [rows, positions]`: the loss of a position is
//! `log Σⱼ exp z[…, j] − z[…, t]`, computed with its maximum taken out first (Goodfellow, Bengio, Courville 2016, section 4.1);
//! its gradient is `softmax(z[…])ⱼ − [j = t]`. Positions whose label is [`PADDING`](crate::PADDING) have neither. The loss of a
//! batch is the mean over its counted positions.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use crate::{SpecError, model::Placement};

/// The loss: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftmaxCrossEntropy {
    /// Labels of an example.
    pub positions: usize,
    /// Number of labels.
    pub classes: usize,
}

impl SoftmaxCrossEntropy {
    pub(crate) fn new(at: &Placement<'_>, outputs: &[usize]) -> Result<Self, SpecError> {
        match outputs {
            &[ref leading @ .., classes] if classes >= 2 && leading.len() <= 1 => Ok(Self {
                positions: leading.iter().product(),
                classes,
            }),
            _ => Err(at.shape_error("[classes] or [time, classes], at least 2 classes", outputs)),
        }
    }
}
