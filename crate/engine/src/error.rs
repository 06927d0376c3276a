//! Everything that can go wrong in the engine.

use unsaid_document::{Decimal, Shape};

use crate::Memory;

/// Why the engine refused or stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A model that cannot be built.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Examples that the model cannot take.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Weights that are not this model's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The loss became infinite or not a number. The learning rate is too high, or an example is not finite.
    #[error(
        "the loss is not finite at step {step} of epoch {epoch}: lower the learning rate or check the data"
    )]
    NonFinite {
        /// Epoch, from 1.
        epoch: u32,
        /// Step within the epoch, from 1.
        step: u32,
    },
    /// Training would need more memory than it may have, or than there is.
    #[error(
        "training needs {} bytes, but may have {limit} at most and no more than there are: {} for parameters, {} for \
         activations, {} for gradients, {} for the optimiser; a smaller batch needs less",
        .memory.total(), .memory.parameters, .memory.activations, .memory.gradients, .memory.optimizer
    )]
    OutOfMemory {
        /// What it needs.
        memory: Memory,
        /// The most that it may have.
        limit: u64,
    },
    /// The caller asked to stop.
    #[error("training was stopped")]
    Stopped,
    /// A model that another program computes: asked of the engine, or failed there.
    #[error("external model: {0}")]
    External(String),
    /// What draws the lots and the noise of private training failed.
    #[error("private training: {0}")]
    Chance(String),
    /// There is no usable GPU.
    #[error("WebGPU is not available: {0}")]
    NoGpu(String),
    /// The GPU's memory is not enough.
    #[error("the GPU is out of memory: {bytes} bytes were asked for")]
    GpuMemory {
        /// Bytes that the training asked for, up to the one that failed.
        bytes: u64,
    },
    /// The GPU went away in the middle of the work.
    #[error("the GPU was lost: {0}")]
    DeviceLost(String),
    /// The GPU refused something: a fault of the engine or of the driver.
    #[error("the GPU refused the work: {0}")]
    Gpu(String),
    /// The model or its data does not fit into the GPU's limits.
    #[error("{what} needs {needed} bytes, but the GPU allows {limit}")]
    GpuLimit {
        /// What is too large.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

/// Why a model spec or a training spec makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The input shape is empty, or one of its dimensions is 0.
    #[error("the input shape {} needs at least one dimension, each at least 1", Shape(.0))]
    Input(Vec<usize>),
    /// A layer's size is 0.
    #[error("layer {layer} ({kind}): {field} must be at least 1")]
    Zero {
        /// Index of the layer.
        layer: usize,
        /// Its type.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A layer does not take the shape that reaches it.
    #[error(
        "layer {layer} ({kind}) takes {expected}, but the shape that reaches it is {}",
        Shape(found)
    )]
    Shape {
        /// Index of the layer; the loss has the index after the last layer.
        layer: usize,
        /// Its type.
        kind: &'static str,
        /// What it takes.
        expected: &'static str,
        /// The shape of one example there.
        found: Vec<usize>,
    },
    /// A number of a layer is out of range.
    #[error("layer {layer} ({kind}): {field} is {}, but must be {expected}", Decimal((*found).into()))]
    Number {
        /// Index of the layer.
        layer: usize,
        /// Its type.
        kind: &'static str,
        /// The field, as a path in the training spec.
        field: &'static str,
        /// The value found.
        found: f32,
        /// What is allowed.
        expected: &'static str,
    },
    /// A layer that has no place in federated learning.
    #[error("layer {layer} ({kind}) {reason}")]
    Refused {
        /// Index of the layer.
        layer: usize,
        /// Its type.
        kind: &'static str,
        /// Why, and what there is instead.
        reason: &'static str,
    },
    /// A name of a value that is given twice, or not at all.
    #[error("layer {layer}: the name `{name}` {problem}")]
    Mark {
        /// Index of the layer.
        layer: usize,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A layer is where it cannot be, or without what it needs.
    #[error("layer {layer} ({kind}) {rule}")]
    Rule {
        /// Index of the layer.
        layer: usize,
        /// Its type.
        kind: &'static str,
        /// What it breaks, such as "must be the first layer".
        rule: &'static str,
    },
    /// More parameters than an update can carry.
    #[error("the model has more than {limit} parameters")]
    TooLarge {
        /// The most parameters.
        limit: usize,
    },
    /// A tensor to be frozen that the model does not have.
    #[error("no tensor to freeze is called {name}, or begins with {name} and a dot")]
    Frozen {
        /// The name asked for.
        name: String,
    },
    /// A control variate of a training with another optimiser than SGD without momentum.
    #[error("control variates need the optimiser sgd without momentum")]
    ControlVariate,
    /// A number of the training spec is out of range.
    #[error("{field} is {}, but must be {expected}", Decimal(*found))]
    Training {
        /// The field, as a path in the training spec.
        field: &'static str,
        /// The value found.
        found: f64,
        /// What is allowed.
        expected: &'static str,
    },
}

/// Why examples cannot be trained on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// There is no example.
    #[error("there are no examples")]
    Empty,
    /// The features are not a whole number of examples, or not as many as there are labels.
    #[error("{values} feature values are not {labels} examples of {features} features")]
    Length {
        /// Feature values given.
        values: usize,
        /// Labels given.
        labels: usize,
        /// Features per example.
        features: usize,
    },
    /// A label that the model does not know.
    #[error("example {example} has label {label}, but labels go from 0 to {}", classes - 1)]
    Label {
        /// Index of the example.
        example: usize,
        /// Its label.
        label: u32,
        /// Number of labels.
        classes: usize,
    },
    /// A token that is not in the vocabulary.
    #[error("position {position} of example {example} is not a token: a whole number from 0 to {}", vocabulary - 1)]
    Token {
        /// Index of the example.
        example: usize,
        /// Position in it.
        position: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A feature that is infinite or not a number.
    #[error("feature {feature} of example {example} is not a finite number")]
    NonFinite {
        /// Index of the example.
        example: usize,
        /// Index of the feature.
        feature: usize,
    },
}

/// Why weights are not this model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A flat vector of the wrong length.
    #[error("{found} parameters, but the model has {expected}")]
    Count {
        /// Parameters given.
        found: usize,
        /// Parameters of the model.
        expected: usize,
    },
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(String),
    /// A tensor of the model is missing, or one that it does not have is there.
    #[error("the file's tensors are not the model's: {0}")]
    Tensors(String),
    /// A weight that is infinite or not a number.
    #[error("weight {index} of tensor {tensor} is not a finite number")]
    NonFinite {
        /// Name of the tensor.
        tensor: String,
        /// Index within it.
        index: usize,
    },
}
