//! The operations. One folder each: what it computes, its CPU kernels, its WGSL, and how the two are checked.
//!
//! An operation is one step of a compiled model: it reads one value and writes the next, over a batch of `rows` examples.
//! Its parameters are a range of the model's one flat vector.

pub mod dense;
pub(crate) mod gather;
pub mod relu;
pub mod softmax_cross_entropy;

use std::fmt::Debug;

#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// What an operation's forward kernel reads and writes on the CPU.
pub(crate) struct CpuForward<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The input, `[rows, input length]`.
    pub x: &'a [f32],
    /// The model's parameters.
    pub parameters: &'a [f32],
    /// The output, `[rows, output length]`: overwritten.
    pub y: &'a mut [f32],
}

/// What an operation's backward kernel reads and writes on the CPU.
pub(crate) struct CpuBackward<'a> {
    /// Examples in the batch.
    pub rows: usize,
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// Gradient of the loss with respect to the output.
    pub dy: &'a [f32],
    /// The model's parameters.
    pub parameters: &'a [f32],
    /// Gradient with respect to the model's parameters: the operation overwrites its own range.
    pub d_parameters: &'a mut [f32],
    /// Gradient with respect to the input: overwritten; none for the first operation, whose input is data.
    pub dx: Option<&'a mut [f32]>,
}

/// One step of a compiled model.
pub(crate) trait Op: Debug + Send + Sync {
    /// Computes the output.
    fn forward_cpu(&self, pass: CpuForward<'_>);

    /// Computes the gradients.
    fn backward_cpu(&self, pass: CpuBackward<'_>);

    /// Adds this operation's dispatches to a plan.
    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError>;
}

/// The end of a compiled model: a batch of outputs and labels gives one number.
pub(crate) trait LossOp: Debug + Send + Sync {
    /// The mean loss of the batch; writes its gradient with respect to the outputs.
    fn loss_cpu(&self, rows: usize, outputs: &[f32], labels: &[u32], d_outputs: &mut [f32]) -> f32;

    /// The mean loss of the batch.
    fn mean_loss_cpu(&self, rows: usize, outputs: &[f32], labels: &[u32]) -> f32;

    /// The outputs as probabilities.
    fn probabilities_cpu(&self, outputs: &[f32]) -> Vec<f32>;

    /// Adds the loss and its gradient to a plan. `buffers.x` is the outputs, `buffers.dy` their gradient (written),
    /// `buffers.y` unused.
    #[cfg(feature = "gpu")]
    fn plan_gpu(
        &self,
        planner: &mut Planner<'_>,
        outputs: &wgpu::Buffer,
        d_outputs: &wgpu::Buffer,
    ) -> Result<(), EngineError>;
}
