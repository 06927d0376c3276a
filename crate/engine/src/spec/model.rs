//! What a model is, as a document: the JSON of a task's manifest, or built in Rust.

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one example, without the batch: `[features]`, `[height, width, channels]`, or `[time]` for token ids.
    pub input: Vec<usize>,
    /// The layers, first to last. The output of the last is what the loss takes.
    pub layers: Vec<LayerSpec>,
    /// The loss.
    pub loss: LossSpec,
}

/// One layer. Shapes are those of one example; images are `[height, width, channels]`, sequences `[time, features]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LayerSpec {
    /// `y = x·W + b` over the last dimension: `[…, in] → […, units]`, see [`crate::ops::dense`].
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
    /// Cross-entropy of the softmax over the last dimension against an integer label for each position, averaged over the
    /// labels that are not padding, see [`crate::ops::softmax_cross_entropy`].
    SoftmaxCrossEntropy,
}

impl LayerSpec {
    /// The type, as written in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "dense",
            Self::Relu {} => "relu",
        }
    }
}

impl LossSpec {
    /// The loss, as written in JSON.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::SoftmaxCrossEntropy => "softmax-cross-entropy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_refused_by_name() {
        let error = serde_json::from_str::<LayerSpec>(r#"{"type": "dense", "unit": 3}"#);
        assert!(error.unwrap_err().to_string().contains("unit"));
    }
}
