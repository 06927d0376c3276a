//! Specs written in Rust, equal to the JSON that says the same.

use std::num::NonZeroU32;

use super::{LayerSpec, LossSpec, ModelSpec, OptimizerSpec, Padding, ScheduleSpec, TrainSpec};

/// A [`ModelSpec`] that grows layer by layer; [`ModelSpec::of`] begins one, [`ModelBuilder::loss`] ends it. Fields that a
/// document may leave out have the same defaults here.
///
/// ```
/// # use unsaid_engine::{LossSpec, Model, ModelSpec, Padding};
/// let spec = ModelSpec::of([28, 28, 1])
///     .conv2d(8, [3, 3], Padding::Same)
///     .relu()
///     .max_pool2d([2, 2])
///     .flatten()
///     .dense(10)
///     .loss(LossSpec::SoftmaxCrossEntropy);
/// let json = r#"{
///     "input": [28, 28, 1],
///     "layers": [
///         {"type": "conv2d", "filters": 8, "kernel": [3, 3], "padding": "same"}, {"type": "relu"},
///         {"type": "max-pool2d", "size": [2, 2]}, {"type": "flatten"}, {"type": "dense", "units": 10}
///     ],
///     "loss": "softmax-cross-entropy"
/// }"#;
/// assert_eq!(spec, serde_json::from_str(json)?);
/// assert_eq!(Model::new(&spec)?.parameter_count(), 9 * 8 + 8 + 14 * 14 * 8 * 10 + 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct ModelBuilder {
    input: Vec<usize>,
    layers: Vec<LayerSpec>,
}

impl ModelSpec {
    /// Begins a model whose examples have the shape `input`.
    pub fn of(input: impl Into<Vec<usize>>) -> ModelBuilder {
        ModelBuilder {
            input: input.into(),
            layers: Vec::new(),
        }
    }
}

impl ModelBuilder {
    /// Any layer.
    pub fn layer(mut self, layer: LayerSpec) -> Self {
        self.layers.push(layer);
        self
    }

    /// [`LayerSpec::Dense`].
    pub fn dense(self, units: usize) -> Self {
        self.layer(LayerSpec::Dense { units })
    }

    /// [`LayerSpec::Relu`].
    pub fn relu(self) -> Self {
        self.layer(LayerSpec::Relu {})
    }

    /// [`LayerSpec::Gelu`].
    pub fn gelu(self) -> Self {
        self.layer(LayerSpec::Gelu {})
    }

    /// [`LayerSpec::Tanh`].
    pub fn tanh(self) -> Self {
        self.layer(LayerSpec::Tanh {})
    }

    /// [`LayerSpec::Sigmoid`].
    pub fn sigmoid(self) -> Self {
        self.layer(LayerSpec::Sigmoid {})
    }

    /// [`LayerSpec::Dropout`].
    pub fn dropout(self, rate: f32) -> Self {
        self.layer(LayerSpec::Dropout { rate })
    }

    /// [`LayerSpec::Conv2d`] in steps of one; other strides by [`ModelBuilder::layer`].
    pub fn conv2d(self, filters: usize, kernel: [usize; 2], padding: Padding) -> Self {
        self.layer(LayerSpec::Conv2d {
            filters,
            kernel,
            stride: [1, 1],
            padding,
        })
    }

    /// [`LayerSpec::MaxPool2d`] with windows side by side.
    pub fn max_pool2d(self, size: [usize; 2]) -> Self {
        self.layer(LayerSpec::MaxPool2d { size, stride: None })
    }

    /// [`LayerSpec::AveragePool2d`] with windows side by side.
    pub fn average_pool2d(self, size: [usize; 2]) -> Self {
        self.layer(LayerSpec::AveragePool2d { size, stride: None })
    }

    /// [`LayerSpec::GlobalMaxPool2d`].
    pub fn global_max_pool2d(self) -> Self {
        self.layer(LayerSpec::GlobalMaxPool2d {})
    }

    /// [`LayerSpec::GlobalAveragePool2d`].
    pub fn global_average_pool2d(self) -> Self {
        self.layer(LayerSpec::GlobalAveragePool2d {})
    }

    /// [`LayerSpec::Flatten`].
    pub fn flatten(self) -> Self {
        self.layer(LayerSpec::Flatten {})
    }

    /// [`LayerSpec::LayerNorm`] with the usual ε.
    pub fn layer_norm(self) -> Self {
        let epsilon = LayerSpec::USUAL_EPSILON;
        self.layer(LayerSpec::LayerNorm { epsilon })
    }

    /// [`LayerSpec::GroupNorm`] with the usual ε.
    pub fn group_norm(self, groups: usize) -> Self {
        let epsilon = LayerSpec::USUAL_EPSILON;
        self.layer(LayerSpec::GroupNorm { groups, epsilon })
    }

    /// [`LayerSpec::Upsample2d`].
    pub fn upsample2d(self, factor: usize) -> Self {
        self.layer(LayerSpec::Upsample2d { factor })
    }

    /// [`LayerSpec::Embedding`].
    pub fn embedding(self, vocabulary: usize, units: usize) -> Self {
        self.layer(LayerSpec::Embedding { vocabulary, units })
    }

    /// [`LayerSpec::Lstm`].
    pub fn lstm(self, units: usize) -> Self {
        self.layer(LayerSpec::Lstm { units })
    }

    /// [`LayerSpec::CifgLstm`].
    pub fn cifg_lstm(self, units: usize, projection: Option<usize>) -> Self {
        self.layer(LayerSpec::CifgLstm { units, projection })
    }

    /// [`LayerSpec::TiedDense`].
    pub fn tied_dense(self) -> Self {
        self.layer(LayerSpec::TiedDense {})
    }

    /// [`LayerSpec::Mark`].
    pub fn mark(self, name: impl Into<String>) -> Self {
        self.layer(LayerSpec::Mark { name: name.into() })
    }

    /// [`LayerSpec::Add`].
    #[allow(clippy::should_implement_trait)] // the layer's name
    pub fn add(self, with: impl Into<String>) -> Self {
        self.layer(LayerSpec::Add { with: with.into() })
    }

    /// [`LayerSpec::Concat`].
    pub fn concat(self, with: impl Into<String>) -> Self {
        self.layer(LayerSpec::Concat { with: with.into() })
    }

    /// Ends the model with its loss.
    pub fn loss(self, loss: LossSpec) -> ModelSpec {
        let Self { input, layers } = self;
        ModelSpec { input, layers, loss }
    }
}

impl TrainSpec {
    /// Local training with everything else at its default; other fields by struct update.
    ///
    /// ```
    /// # use std::num::NonZeroU32;
    /// # use unsaid_engine::{OptimizerSpec, TrainSpec};
    /// let (two, ten) = (NonZeroU32::new(2).unwrap(), NonZeroU32::new(10).unwrap());
    /// let spec = TrainSpec {
    ///     proximal: 0.01,
    ///     ..TrainSpec::new(two, ten, OptimizerSpec::adam(0.001))
    /// };
    /// let json = r#"{"epochs": 2, "batch_size": 10, "optimizer": {"type": "adam", "learning_rate": 0.001}, "proximal": 0.01}"#;
    /// assert_eq!(spec, serde_json::from_str(json)?);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub const fn new(epochs: NonZeroU32, batch_size: NonZeroU32, optimizer: OptimizerSpec) -> Self {
        Self {
            epochs,
            batch_size,
            steps_per_epoch: None,
            accumulate: NonZeroU32::MIN,
            optimizer,
            schedule: ScheduleSpec::Constant,
            weight_decay: 0.0,
            proximal: 0.0,
            freeze: Vec::new(),
            shuffle: true,
            clip_examples_l2: None,
        }
    }
}

impl OptimizerSpec {
    /// TensorFlow's default, for Adam and Adagrad alike.
    pub(super) const EPSILON: f32 = 1e-7;
    /// TensorFlow's default.
    pub(super) const INITIAL_ACCUMULATOR: f32 = 0.1;
    /// Those of Kingma and Ba 2015.
    pub(super) const BETAS: [f32; 2] = [0.9, 0.999];

    /// [`OptimizerSpec::Sgd`] without momentum.
    pub const fn sgd(learning_rate: f32) -> Self {
        Self::Sgd {
            learning_rate,
            momentum: 0.0,
            nesterov: false,
        }
    }

    /// [`OptimizerSpec::Adam`] with the usual numbers.
    pub const fn adam(learning_rate: f32) -> Self {
        let [beta1, beta2] = Self::BETAS;
        Self::Adam {
            learning_rate,
            beta1,
            beta2,
            epsilon: Self::EPSILON,
            weight_decay: 0.0,
        }
    }

    /// [`OptimizerSpec::Adagrad`] with the usual numbers.
    pub const fn adagrad(learning_rate: f32) -> Self {
        Self::Adagrad {
            learning_rate,
            initial_accumulator: Self::INITIAL_ACCUMULATOR,
            epsilon: Self::EPSILON,
        }
    }
}
