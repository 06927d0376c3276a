//! What a model is, as a document: the JSON of a task's manifest, or built in Rust.

use serde::Serialize;

use unsaid_document::{Document, Field, Fields, Value, deserialize_by_read};

#[cfg(not(target_arch = "wasm32"))]
use super::external::ExternalTensor;

deserialize_by_read!(ModelSpec, LayerSpec);

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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// Shape of one example, without the batch: `[features]`, `[height, width, channels]`, or `[time]` for token ids.
    pub input: Vec<usize>,
    /// The layers, first to last. The output of the last is what the loss takes.
    pub layers: Vec<LayerSpec>,
    /// The loss.
    pub loss: LossSpec,
}

/// One layer. Shapes are those of one example; images are `[height, width, channels]`, sequences `[time, features]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LayerSpec {
    /// `y = x·W + b` over the last dimension: `[…, in] → […, units]`, see [`crate::ops::dense`].
    Dense {
        /// Length of the output.
        units: usize,
    },
    /// `y = max(x, 0)`, any shape, see [`crate::ops::relu`].
    Relu {},
    /// Gaussian error linear unit, any shape, see [`crate::ops::activation`].
    Gelu {},
    /// Hyperbolic tangent, any shape, see [`crate::ops::activation`].
    Tanh {},
    /// Logistic function, any shape, see [`crate::ops::activation`].
    Sigmoid {},
    /// Drops numbers by chance in training, any shape, see [`crate::ops::dropout`].
    Dropout {
        /// Probability of being dropped, `0.0 ≤ rate < 1.0`.
        rate: f32,
    },
    /// Gives the value here a name, for an `add` or a `concat` further on. Changes nothing.
    Mark {
        /// The name.
        name: String,
    },
    /// Adds the value of that name, which must have the same shape: where a residual branch ends. See [`crate::ops::add`].
    Add {
        /// The name given by a `mark`.
        with: String,
    },
    /// Puts the value of that name behind this one in the last dimension. See [`crate::ops::concat`].
    Concat {
        /// The name given by a `mark`.
        with: String,
    },
    /// A convolution: `[height, width, channels] → [height', width', filters]`, see [`crate::ops::conv2d`].
    #[serde(rename = "conv2d")]
    Conv2d {
        /// Channels of the output.
        filters: usize,
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Steps from a window to the next, vertical and horizontal.
        stride: [usize; 2],
        /// What happens at the edges.
        padding: Padding,
    },
    /// The largest number of each window, channel by channel; lines and columns that fill no whole window are left out:
    /// `[height, width, channels] → [height', width', channels]`, see [`crate::ops::pool2d`].
    #[serde(rename = "max-pool2d")]
    MaxPool2d {
        /// Height and width of a window.
        size: [usize; 2],
        /// Steps from a window to the next, vertical and horizontal: those of `size` where they are not given.
        #[serde(skip_serializing_if = "Option::is_none")]
        stride: Option<[usize; 2]>,
    },
    /// The mean of each window, otherwise as [`LayerSpec::MaxPool2d`].
    #[serde(rename = "average-pool2d")]
    AveragePool2d {
        /// Height and width of a window.
        size: [usize; 2],
        /// Steps from a window to the next, vertical and horizontal: those of `size` where they are not given.
        #[serde(skip_serializing_if = "Option::is_none")]
        stride: Option<[usize; 2]>,
    },
    /// The largest number of each channel: `[height, width, channels] → [channels]`, see [`crate::ops::pool2d`].
    #[serde(rename = "global-max-pool2d")]
    GlobalMaxPool2d {},
    /// The mean of each channel: `[height, width, channels] → [channels]`, see [`crate::ops::pool2d`].
    #[serde(rename = "global-average-pool2d")]
    GlobalAveragePool2d {},
    /// The same numbers in one dimension: `[…] → [product of all]`.
    Flatten {},
    /// Normalises over the last dimension: `[…, features]`, see [`crate::ops::normalize`].
    LayerNorm {
        /// What is added to the variance.
        epsilon: f32,
    },
    /// Normalises each group of channels over the whole image: `[height, width, channels]`, see [`crate::ops::normalize`].
    GroupNorm {
        /// Number of groups, of which the channels are a multiple.
        groups: usize,
        /// What is added to the variance.
        epsilon: f32,
    },
    /// Is always refused, with the reason: batch normalisation mixes examples. Its usual fields are read so that the reason is
    /// what a person sees.
    BatchNorm {
        /// Not used.
        #[serde(skip_serializing_if = "Option::is_none")]
        epsilon: Option<f32>,
        /// Not used.
        #[serde(skip_serializing_if = "Option::is_none")]
        momentum: Option<f32>,
    },
    /// Repeats each pixel `factor` times in both directions: `[height, width, channels] → [factor·height, factor·width, channels]`,
    /// see [`crate::ops::upsample2d`].
    #[serde(rename = "upsample2d")]
    Upsample2d {
        /// How often.
        factor: usize,
    },
    /// Token ids to vectors, the first layer of a language model: `[time] → [time, units]`, see [`crate::ops::embedding`].
    Embedding {
        /// Number of tokens.
        vocabulary: usize,
        /// Length of each token's vector.
        units: usize,
    },
    /// Long short-term memory: `[time, features] → [time, units]`, see [`crate::ops::lstm`].
    Lstm {
        /// Cells, and so the length of the output.
        units: usize,
    },
    /// Long short-term memory whose input gate is what its forget gate leaves: `[time, features] → [time, projection]`, or
    /// `[time, units]` without a projection, see [`crate::ops::lstm`].
    CifgLstm {
        /// Cells.
        units: usize,
        /// Length of the output and of what the next step sees, where it is not that of the cells.
        #[serde(skip_serializing_if = "Option::is_none")]
        projection: Option<usize>,
    },
    /// Logits over the vocabulary by the transposed table of the model's embedding: `[…, units] → […, vocabulary]`, see
    /// [`crate::ops::tied_dense`].
    TiedDense {},
    /// The whole model, computed by another program, such as a dfdx module (feature `dfdx`): the engine lays its tensors out,
    /// starts and stores them, and refuses to run them. Must be the only layer. Browsers do not know it.
    #[cfg(not(target_arch = "wasm32"))]
    External {
        /// The tensors, in the order in which they lie in the flat vector.
        tensors: Vec<ExternalTensor>,
        /// Shape of one example of the output.
        output: Vec<usize>,
    },
}

/// What a window does at the edges of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// It stays inside: the output is smaller than the image.
    #[default]
    Valid,
    /// It reads zeros outside, as few as give `⌈image ÷ stride⌉` windows; an odd one is below or on the right.
    Same,
}

impl Field for LossSpec {
    const EXPECTED: &'static str = "`softmax-cross-entropy`, `sigmoid-cross-entropy` or `mean-squared-error`";
    const NONE: Self = Self::SoftmaxCrossEntropy;
    fn read(value: &Value) -> Option<Self> {
        let kind = value.as_str()?;
        let all = [
            Self::SoftmaxCrossEntropy,
            Self::SigmoidCrossEntropy,
            Self::MeanSquaredError,
        ];
        all.into_iter().find(|loss| loss.kind() == kind)
    }
}

impl Field for Padding {
    const EXPECTED: &'static str = "`valid` or `same`";
    const NONE: Self = Self::Valid;
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "valid" => Some(Self::Valid),
            "same" => Some(Self::Same),
            _ => None,
        }
    }
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossSpec {
    /// Cross-entropy of the softmax over the last dimension against an integer label for each position, averaged over the
    /// labels that are not padding, see [`crate::ops::softmax_cross_entropy`].
    SoftmaxCrossEntropy,
    /// Cross-entropy of the sigmoid of each output against a number from 0 to 1, see [`crate::ops::elementwise_loss`].
    SigmoidCrossEntropy,
    /// Mean squared error against numbers, see [`crate::ops::elementwise_loss`].
    MeanSquaredError,
}

impl Document for ModelSpec {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let Value::Array(layers) = fields.document("layers")? else {
            return Err("field `layers` must be a list of layers".into());
        };
        let layers: Result<_, _> = layers.into_iter().map(LayerSpec::read).collect();
        let spec = Self {
            input: fields.required("input"),
            layers: layers?,
            loss: fields.required("loss"),
        };
        fields.finish().map(|()| spec)
    }
}

impl Document for LayerSpec {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let layer = match f.tag("type")?.as_str() {
            "dense" => Self::Dense {
                units: f.required("units"),
            },
            "relu" => Self::Relu {},
            "gelu" => Self::Gelu {},
            "tanh" => Self::Tanh {},
            "sigmoid" => Self::Sigmoid {},
            "dropout" => Self::Dropout {
                rate: f.required("rate"),
            },
            "mark" => Self::Mark {
                name: f.required("name"),
            },
            "add" => Self::Add {
                with: f.required("with"),
            },
            "concat" => Self::Concat {
                with: f.required("with"),
            },
            "conv2d" => Self::Conv2d {
                filters: f.required("filters"),
                kernel: f.required("kernel"),
                stride: f.optional("stride").unwrap_or([1, 1]),
                padding: f.optional("padding").unwrap_or_default(),
            },
            "max-pool2d" => Self::MaxPool2d {
                size: f.required("size"),
                stride: f.nullable("stride"),
            },
            "average-pool2d" => Self::AveragePool2d {
                size: f.required("size"),
                stride: f.nullable("stride"),
            },
            "global-max-pool2d" => Self::GlobalMaxPool2d {},
            "global-average-pool2d" => Self::GlobalAveragePool2d {},
            "flatten" => Self::Flatten {},
            "layer-norm" => Self::LayerNorm {
                epsilon: f.optional("epsilon").unwrap_or(Self::USUAL_EPSILON),
            },
            "group-norm" => Self::GroupNorm {
                groups: f.required("groups"),
                epsilon: f.optional("epsilon").unwrap_or(Self::USUAL_EPSILON),
            },
            "batch-norm" => Self::BatchNorm {
                epsilon: f.nullable("epsilon"),
                momentum: f.nullable("momentum"),
            },
            "upsample2d" => Self::Upsample2d {
                factor: f.required("factor"),
            },
            "embedding" => Self::Embedding {
                vocabulary: f.required("vocabulary"),
                units: f.required("units"),
            },
            "lstm" => Self::Lstm {
                units: f.required("units"),
            },
            "cifg-lstm" => Self::CifgLstm {
                units: f.required("units"),
                projection: f.nullable("projection"),
            },
            "tied-dense" => Self::TiedDense {},
            #[cfg(not(target_arch = "wasm32"))]
            "external" => Self::External {
                tensors: Document::read(f.document("tensors")?)?,
                output: f.required("output"),
            },
            other => return Err(format!("unknown variant `{other}`")),
        };
        fields.finish().map(|()| layer)
    }
}

impl LayerSpec {
    /// The ε of PyTorch's layer and group normalisation.
    pub(super) const USUAL_EPSILON: f32 = 1e-5;

    /// The type, as written in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "dense",
            Self::Relu {} => "relu",
            Self::Gelu {} => "gelu",
            Self::Tanh {} => "tanh",
            Self::Sigmoid {} => "sigmoid",
            Self::Dropout { .. } => "dropout",
            Self::Mark { .. } => "mark",
            Self::Add { .. } => "add",
            Self::Concat { .. } => "concat",
            Self::Conv2d { .. } => "conv2d",
            Self::MaxPool2d { .. } => "max-pool2d",
            Self::AveragePool2d { .. } => "average-pool2d",
            Self::GlobalMaxPool2d {} => "global-max-pool2d",
            Self::GlobalAveragePool2d {} => "global-average-pool2d",
            Self::Flatten {} => "flatten",
            Self::LayerNorm { .. } => "layer-norm",
            Self::GroupNorm { .. } => "group-norm",
            Self::BatchNorm { .. } => "batch-norm",
            Self::Upsample2d { .. } => "upsample2d",
            Self::Embedding { .. } => "embedding",
            Self::Lstm { .. } => "lstm",
            Self::CifgLstm { .. } => "cifg-lstm",
            Self::TiedDense {} => "tied-dense",
            #[cfg(not(target_arch = "wasm32"))]
            Self::External { .. } => "external",
        }
    }
}

impl LossSpec {
    /// The loss, as written in JSON.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::SoftmaxCrossEntropy => "softmax-cross-entropy",
            Self::SigmoidCrossEntropy => "sigmoid-cross-entropy",
            Self::MeanSquaredError => "mean-squared-error",
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
