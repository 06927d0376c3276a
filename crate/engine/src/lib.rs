//! The engine of Unsaid: small models, trained where the data is.
//!
//! A [`ModelSpec`] is checked and compiled to a [`Model`], whose parameters are one flat `f32` vector with named tensors.
//! [`train`] moves that vector by stochastic gradient descent over local [`Examples`] on a [`Device`]: the CPU (SIMD, and
//! as many threads as the [`crew`] has) or a GPU (WebGPU in browsers, Vulkan natively). Both compute the same thing, to rounding; each is deterministic.
//!
//! This crate knows no browser, no network and no privacy mechanism.

// The browser's WebGPU has the names of wgpu there.
#[cfg(all(feature = "gpu", target_arch = "wasm32"))]
extern crate unsaid_webgpu as wgpu;

mod backend;
pub mod crew;
mod data;
#[cfg(all(feature = "dfdx", not(target_arch = "wasm32")))]
pub mod dfdx;
mod error;
mod json;
mod layout;
mod model;
pub mod ops;
pub mod optim;
mod order;
mod spec;
mod train;
mod weights;

#[cfg(feature = "gpu")]
pub use backend::gpu::{GpuDevice, Kernel, KernelTime, Kernels, OpTime, Work};
pub use data::{Examples, PADDING, TargetKind};
pub use error::{DataError, EngineError, SpecError, WeightsError};
pub use layout::{Init, Layout, ParameterTensor};
pub use model::{Evaluation, MAX_PARAMETERS, Memory, Model};
#[cfg(not(target_arch = "wasm32"))]
pub use spec::ExternalTensor;
pub use spec::{
    LayerSpec, LossSpec, ModelBuilder, ModelSpec, OptimizerSpec, Padding, ScheduleSpec, TrainSpec,
};
pub use train::{
    Chance, Control, Device, Observer, PrivateSteps, Progress, Trained, Training, Unobserved,
    control_variate_after, time_steps, train,
};
