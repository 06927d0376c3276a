//! How a model is trained locally.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

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
    fn a_misspelt_or_senseless_field_is_refused_by_name() {
        let error = serde_json::from_str::<TrainSpec>(
            r#"{"epochs": 1, "batch_size": 8, "optimizer": {"type": "sgd", "learning_rat": 0.1}}"#,
        );
        assert!(error.unwrap_err().to_string().contains("learning_rat"));
        let error = serde_json::from_str::<TrainSpec>(
            r#"{"epochs": 0, "batch_size": 8, "optimizer": {"type": "sgd", "learning_rate": 0.1}}"#,
        );
        assert!(error.unwrap_err().to_string().contains("nonzero"));
    }
}
