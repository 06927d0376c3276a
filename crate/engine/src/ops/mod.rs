//! The operations. One folder each: what it computes, its CPU kernels, its WGSL, and how the two are checked.
//!
//! An operation is one step of a compiled model: it reads one value (two, where branches meet) and writes the next, over a
//! batch of `rows` examples. Its parameters are ranges of the model's one flat vector. No operation mixes examples: the
//! output of a row depends on that row alone, which is what makes gradients per example, and clipping them, possible.
//!
//! A training step runs `forward` through all operations, the loss, and then for each operation, last to first,
//! `input_gradient` and `parameter_gradient`. With per-example clipping the order is: all `input_gradient`s, then all
//! `squared_norms`, then every row of every output's gradient is scaled by its example's factor, then all
//! `parameter_gradient`s. (All operations are linear in the gradients that they pass on, row by row, so scaling a row of `dy`
//! scales that example's share of the parameters' gradient and nothing else: Bu et al. 2023, "book-keeping".) So it is on both
//! back ends; on the GPU an operation plans its norms and scalings beside its gradients, and the planner puts them in this order.

#[cfg(feature = "gpu")]
pub(crate) mod accumulate;
pub mod activation;
pub mod add;
#[cfg(feature = "gpu")]
pub(crate) mod clip;
pub mod concat;
pub mod conv2d;
pub mod dense;
pub mod dropout;
pub mod elementwise_loss;
pub mod embedding;
pub(crate) mod exponential;
pub(crate) mod gather;
pub(crate) mod ghost;
pub mod lstm;
pub mod normalize;
pub mod pool2d;
#[cfg(feature = "gpu")]
pub(crate) mod product;
pub mod relu;
pub mod softmax_cross_entropy;
pub mod tied_dense;
pub mod upsample2d;
pub(crate) mod window;

use std::fmt;

use crate::backend::vector;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// What an operation's forward kernel reads and writes on the CPU.
pub(crate) struct Forward<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The input, `[rows, input length]`.
    pub x: &'a [f32],
    /// The second input of an operation where branches meet; empty for the others.
    pub other: &'a [f32],
    /// The model's parameters.
    pub parameters: &'a [f32],
    /// The output, `[rows, output length]`: overwritten.
    pub y: &'a mut [f32],
    /// What the operation keeps for its gradients, `[rows, kept length]`.
    pub kept: &'a mut [f32],
    /// In training, a number that is different for every step: what dropout draws from. None in evaluation.
    pub step_key: Option<u32>,
    /// Whether each row must have the bits that it has by itself. Only where the operation is an [`Op::outer`] are there several rows
    /// then.
    pub apart: bool,
}

/// What an operation reads and writes on the CPU for the gradients of its inputs.
pub(crate) struct InputGradient<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// The output of the forward pass.
    pub y: &'a [f32],
    /// Gradient of the loss with respect to the output. The operation may rewrite it to what its `parameter_gradient` needs.
    pub dy: &'a mut [f32],
    /// What the forward pass kept; may be rewritten likewise.
    pub kept: &'a mut [f32],
    /// The model's parameters.
    pub parameters: &'a [f32],
    /// Gradient with respect to the input: overwritten; none where it is not needed, as for data.
    pub dx: Option<&'a mut [f32]>,
    /// Gradient with respect to the second input: overwritten; none where it is not needed.
    pub d_other: Option<&'a mut [f32]>,
    /// As in the forward pass.
    pub step_key: Option<u32>,
    /// As in the forward pass.
    pub apart: bool,
}

/// What an operation reads and writes on the CPU for the gradient of its parameters.
pub(crate) struct ParameterGradient<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// Gradient with respect to the output, as `input_gradient` left it.
    pub dy: &'a [f32],
    /// What was kept, as `input_gradient` left it.
    pub kept: &'a [f32],
    /// Gradient with respect to the model's parameters: the operation overwrites its own tensors (adds to a tensor that
    /// a later operation shares, since that one ran before).
    pub d_parameters: &'a mut [f32],
}

/// What an operation reads and writes on the CPU for the norm of each example's gradient.
pub(crate) struct SquaredNorms<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// Gradient with respect to the output, as `input_gradient` left it.
    pub dy: &'a [f32],
    /// What was kept, as `input_gradient` left it.
    pub kept: &'a [f32],
    /// Input and output's gradient of the operation that has a tensor which this one uses too. The gradient of that tensor is
    /// the sum of what both say, `A + B`, and `‖A + B‖² = ‖A‖² + ‖B‖² + 2⟨A, B⟩`: each adds the norm of its own, and the one
    /// with `shared` the last term.
    pub shared: Option<(&'a [f32], &'a [f32])>,
    /// For each example the squared L2 norm of its gradient with respect to the parameters so far, `[rows]`: added to.
    pub norms: &'a mut [f64],
}

/// One step of a compiled model.
pub(crate) trait Op: Send + Sync {
    /// Numbers per example that the forward pass keeps for the gradients, besides input and output.
    fn kept_len(&self) -> usize {
        0
    }

    /// Takes a rectifier that follows into this operation; false where it cannot.
    fn fuse_relu(&mut self) -> bool {
        false
    }

    /// The layer itself, where the gradient of its parameters is one outer product for each example, `[x | 1]ᵀ·dy`, and its rows can be
    /// computed beside each other without a bit of one depending on the others.
    fn outer(&self) -> Option<&dense::Dense> {
        None
    }

    /// Computes the output.
    fn forward_cpu(&self, pass: Forward<'_>);

    /// Computes the gradients of the inputs.
    fn input_gradient_cpu(&self, pass: InputGradient<'_>);

    /// Computes the gradient of the parameters.
    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let _ = pass; // most operations have no parameters
    }

    /// Adds the squared norm of each example's own parameter gradient, without computing that gradient where a cheaper way
    /// is known.
    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let _ = pass;
    }

    /// Scales each example's rows of what `parameter_gradient` is linear in by the example's factor.
    fn scale_rows_cpu(&self, factors: &[f32], dy: &mut [f32], kept: &mut [f32]) {
        let _ = kept;
        scale_rows(factors, dy);
    }

    /// Adds this operation's dispatches to a plan.
    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError>;
}

/// A batch's outputs and what they should have been.
pub(crate) struct LossInput<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The outputs, `[rows, output length]`.
    pub outputs: &'a [f32],
    /// The targets, `[rows, target length]`: labels, or numbers as their bits.
    pub targets: &'a [u32],
}

// Not `Debug` as a supertrait: every op's own would be in the wasm module, which prints none.
impl fmt::Debug for dyn Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Op")
    }
}

impl fmt::Debug for dyn LossOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LossOp")
    }
}

/// How the losses of a batch become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The mean over all counted targets of the batch: plain training.
    Batch,
    /// For each example the mean over its own counted targets: what is clipped per example. The gradient of each row is
    /// that of its own loss; the number is the mean of the examples' losses.
    Example,
}

impl Reduction {
    /// What a training that clips to this norm needs.
    pub fn of(clip_examples_l2: Option<f32>) -> Self {
        if clip_examples_l2.is_some() {
            Self::Example
        } else {
            Self::Batch
        }
    }
}

/// What a loss counts when a model is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tally {
    /// Of how many first guesses one may be right.
    pub k: usize,
    /// Targets that count (padding does not).
    pub counted: usize,
    /// Sum of their losses.
    pub loss: f64,
    /// How many were the model's first guess.
    pub right: usize,
    /// How many were among its first `k`.
    pub in_top_k: usize,
}

/// The end of a compiled model: a batch of outputs and targets gives one number.
pub(crate) trait LossOp: Send + Sync {
    /// Targets of one example.
    fn targets_per_example(&self) -> usize;

    /// Whether the targets are labels; otherwise they are numbers.
    fn takes_labels(&self) -> bool;

    /// The mean loss of the batch; writes its gradient with respect to the outputs.
    fn loss_cpu(&self, batch: LossInput<'_>, reduction: Reduction, d_outputs: &mut [f32]) -> f32;

    /// Adds a batch to a tally.
    fn tally_cpu(&self, batch: LossInput<'_>, tally: &mut Tally);

    /// Turns the outputs into what a person asks a model for: probabilities, where the loss has them.
    fn predict_cpu(&self, outputs: &mut [f32]);

    /// Adds the loss and its gradient to a plan.
    #[cfg(feature = "gpu")]
    fn plan_gpu(
        &self,
        planner: &mut Planner<'_>,
        outputs: &wgpu::Buffer,
        d_outputs: &wgpu::Buffer,
        reduction: Reduction,
    ) -> Result<(), EngineError>;
}

/// Multiplies row `r` of `values`, `[factors, anything]`, by `factors[r]`.
pub(crate) fn scale_rows(factors: &[f32], values: &mut [f32]) {
    let len = values.len() / factors.len().max(1);
    for (row, factor) in values.chunks_exact_mut(len.max(1)).zip(factors) {
        vector::scale(row, *factor);
    }
}
