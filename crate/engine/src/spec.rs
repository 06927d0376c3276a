//! What a model is and how it is trained, as documents: the JSON of a task's manifest, or built in Rust.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A model: the shape of one example, the layers it passes through, and the loss at the end.
///
/// ```
/// # use unsaid_engine::{Model, ModelSpec};
/// let json = r#"{
///     "input": [784],
///     "layers": [{"type": "dense", "units": 128}, {"type": "relu"}, {"type": "dense", "units": 10}],
///     "loss": "softmax-cross-entropy"
/// }"#;
/// let spec: ModelSpec = serde_json::from_str(json)?;
/// assert_eq!(Model::new(&spec)?.parameter_count(), 784 * 128 + 128 + 128 * 10 + 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one example, without the batch: `[features]`.
    pub input: Vec<usize>,
    /// The layers, first to last. The output of the last is what the loss takes.
    pub layers: Vec<LayerSpec>,
    /// The loss.
    pub loss: LossSpec,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LayerSpec {
    /// `y = x·W + b`: `[batch, in] → [batch, units]`, see [`crate::ops::dense`].
    Dense {
        /// Length of the output.
        units: usize,
    },
    /// `y = max(x, 0)`, any shape, see [`crate::ops::relu`].
    Relu {},
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossSpec {
    /// Cross-entropy of the softmax of the last layer's output against an integer label, averaged over the batch, see
    /// [`crate::ops::softmax_cross_entropy`].
    SoftmaxCrossEntropy,
}

/// Local training: how a client gets from the shared model to its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Passes over the local examples.
    pub epochs: NonZeroU32,
    /// Examples per step. The last step of an epoch has what is left.
    pub batch_size: NonZeroU32,
    /// The optimiser.
    pub optimizer: OptimizerSpec,
}

/// The optimiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OptimizerSpec {
    /// Stochastic gradient descent with (heavy-ball) momentum, see [`crate::optim::sgd`].
    Sgd {
        /// Step size, above 0.
        learning_rate: f32,
        /// Share of the last step that carries on, `0.0 ≤ momentum < 1.0`.
        #[serde(default)]
        momentum: f32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_refused_by_name() {
        let error = serde_json::from_str::<TrainSpec>(
            r#"{"epochs": 1, "batch_size": 8, "optimizer": {"type": "sgd", "learning_rat": 0.1}}"#,
        );
        assert!(error.unwrap_err().to_string().contains("learning_rat"));
        let error = serde_json::from_str::<LayerSpec>(r#"{"type": "dense", "unit": 3}"#);
        assert!(error.unwrap_err().to_string().contains("unit"));
        let error = serde_json::from_str::<TrainSpec>(
            r#"{"epochs": 0, "batch_size": 8, "optimizer": {"type": "sgd", "learning_rate": 0.1}}"#,
        );
        assert!(error.unwrap_err().to_string().contains("nonzero"));
    }
}
