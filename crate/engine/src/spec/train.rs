//! How a model is trained locally.

use std::num::NonZeroU32;

use serde::Serialize;

use unsaid_document::{Document, Fields, Value, deserialize_by_read};

deserialize_by_read!(TrainSpec, OptimizerSpec, ScheduleSpec);

/// Local training: how a client gets from the shared model to its own.
///
/// ```
/// # use unsaid_engine::TrainSpec;
/// let json = r#"{
///     "epochs": 2, "batch_size": 10,
///     "optimizer": {"type": "adam", "learning_rate": 0.001},
///     "schedule": {"type": "cosine"}, "proximal": 0.01, "freeze": ["layers.0"]
/// }"#;
/// let spec: TrainSpec = serde_json::from_str(json)?;
/// assert_eq!(spec.batch_size.get(), 10);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSpec {
    /// Passes over the local examples.
    pub epochs: NonZeroU32,
    /// Examples per step. The last step of an epoch has what is left.
    pub batch_size: NonZeroU32,
    /// Where an epoch is to be as long for everyone: so many steps, however many examples there are. They are visited one pass after
    /// the other, each in an order of its own, and every epoch goes on where the one before it ended. All steps of a training visit
    /// at most 2²⁰ examples.
    #[serde(skip_serializing_if = "is_default")]
    pub steps_per_epoch: Option<NonZeroU32>,
    /// Batches per step, 1 where left out: the optimiser moves once for so many, by the mean over all of their examples, so that
    /// memory is that of one of them. The last step of an epoch has what is left.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: NonZeroU32,
    /// The optimiser.
    pub optimizer: OptimizerSpec,
    /// How the step size changes over the steps.
    #[serde(skip_serializing_if = "is_default")]
    pub schedule: ScheduleSpec,
    /// L2 regularisation λ, at least 0: `λ·w` is added to the gradient. (AdamW's decoupled decay is a field of that optimiser.)
    #[serde(skip_serializing_if = "is_default")]
    pub weight_decay: f32,
    /// The proximal term μ of FedProx, at least 0: `μ·(w − w₀)` is added to the gradient, `w₀` being the parameters that training
    /// began with (Li et al. 2020, equation 2).
    #[serde(skip_serializing_if = "is_default")]
    pub proximal: f32,
    /// Tensors that do not learn, by the beginning of their names: `layers.0` for the first layer, for instance. For transfer
    /// learning.
    #[serde(skip_serializing_if = "is_default")]
    pub freeze: Vec<String>,
    /// Whether every epoch visits the examples in an order of its own; otherwise in the order given.
    #[serde(skip_serializing_if = "is_yes")]
    pub shuffle: bool,
    /// Clips the gradient of each example to this L2 norm, above 0, before their mean is taken (Abadi et al. 2016, algorithm 1,
    /// without its noise).
    #[serde(skip_serializing_if = "is_default")]
    pub clip_examples_l2: Option<f32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// serde asks for a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_yes(value: &bool) -> bool {
    *value
}

// As above.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(value: &NonZeroU32) -> bool {
    value.get() == 1
}

/// The optimiser.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OptimizerSpec {
    /// Stochastic gradient descent with momentum, see [`crate::optim::sgd`].
    Sgd {
        /// Step size, above 0.
        learning_rate: f32,
        /// Share of the last step that carries on, `0.0 ≤ momentum < 1.0`.
        momentum: f32,
        /// Whether the gradient is taken as if the momentum had already moved the parameters.
        #[serde(skip_serializing_if = "is_default")]
        nesterov: bool,
    },
    /// Adam, and AdamW where `weight_decay` is not 0, see [`crate::optim::adam`].
    Adam {
        /// Step size, above 0.
        learning_rate: f32,
        /// Decay of the mean of the gradients, `0.0 ≤ beta1 < 1.0`.
        beta1: f32,
        /// Decay of the mean of their squares, `0.0 ≤ beta2 < 1.0`.
        beta2: f32,
        /// Keeps the division from blowing up, above 0.
        epsilon: f32,
        /// Decoupled weight decay, at least 0 (Loshchilov, Hutter 2019).
        #[serde(skip_serializing_if = "is_default")]
        weight_decay: f32,
    },
    /// Adagrad, see [`crate::optim::adagrad`].
    Adagrad {
        /// Step size, above 0.
        learning_rate: f32,
        /// What the sums of squares begin with, at least 0.
        initial_accumulator: f32,
        /// Keeps the division from blowing up, above 0.
        epsilon: f32,
    },
}

impl Document for TrainSpec {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let optimizer = OptimizerSpec::read(f.document("optimizer")?)?;
        let schedule = f
            .document("schedule")
            .map_or(Ok(ScheduleSpec::Constant), ScheduleSpec::read)?;
        let spec = Self {
            epochs: f.required("epochs"),
            batch_size: f.required("batch_size"),
            steps_per_epoch: f.optional("steps_per_epoch"),
            accumulate: f.optional("accumulate").unwrap_or(NonZeroU32::MIN),
            optimizer,
            schedule,
            weight_decay: f.optional("weight_decay").unwrap_or_default(),
            proximal: f.optional("proximal").unwrap_or_default(),
            freeze: f.optional("freeze").unwrap_or_default(),
            shuffle: f.optional("shuffle").unwrap_or(true),
            clip_examples_l2: f.nullable("clip_examples_l2"),
        };
        fields.finish().map(|()| spec)
    }
}

impl Document for OptimizerSpec {
    fn read(document: Value) -> Result<Self, String> {
        let [beta1, beta2] = Self::BETAS;
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let optimizer = match f.tag("type")?.as_str() {
            "sgd" => Self::Sgd {
                learning_rate: f.required("learning_rate"),
                momentum: f.optional("momentum").unwrap_or_default(),
                nesterov: f.optional("nesterov").unwrap_or_default(),
            },
            "adam" => Self::Adam {
                learning_rate: f.required("learning_rate"),
                beta1: f.optional("beta1").unwrap_or(beta1),
                beta2: f.optional("beta2").unwrap_or(beta2),
                epsilon: f.optional("epsilon").unwrap_or(Self::EPSILON),
                weight_decay: f.optional("weight_decay").unwrap_or_default(),
            },
            "adagrad" => Self::Adagrad {
                learning_rate: f.required("learning_rate"),
                initial_accumulator: f
                    .optional("initial_accumulator")
                    .unwrap_or(Self::INITIAL_ACCUMULATOR),
                epsilon: f.optional("epsilon").unwrap_or(Self::EPSILON),
            },
            other => return Err(format!("unknown variant `{other}`")),
        };
        fields.finish().map(|()| optimizer)
    }
}

/// How the step size changes over the steps of a training, as a factor of the optimiser's `learning_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScheduleSpec {
    /// Always 1.
    #[default]
    Constant,
    /// From 1 down to `end` in equal steps.
    Linear {
        /// The factor of the last step, 0 to 1.
        end: f32,
    },
    /// From 1 down to `end` along half a cosine wave (Loshchilov, Hutter 2017, equation 5).
    Cosine {
        /// The factor of the last step, 0 to 1.
        end: f32,
    },
    /// Multiplied by `factor` after every `every` steps.
    Step {
        /// Steps between two changes.
        every: NonZeroU32,
        /// What each change multiplies with, above 0 and at most 1.
        factor: f32,
    },
}

impl Document for ScheduleSpec {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let schedule = match f.tag("type")?.as_str() {
            "constant" => Self::Constant,
            "linear" => Self::Linear {
                end: f.optional("end").unwrap_or_default(),
            },
            "cosine" => Self::Cosine {
                end: f.optional("end").unwrap_or_default(),
            },
            "step" => Self::Step {
                every: f.required("every"),
                factor: f.required("factor"),
            },
            other => return Err(format!("unknown variant `{other}`")),
        };
        fields.finish().map(|()| schedule)
    }
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

    #[test]
    fn what_is_left_out_is_not_written() {
        let json =
            r#"{"epochs":1,"batch_size":8,"optimizer":{"type":"sgd","learning_rate":0.5,"momentum":0.0}}"#;
        let spec: TrainSpec = serde_json::from_str(json).unwrap();
        assert!(spec.shuffle && spec.accumulate.get() == 1);
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
    }
}
