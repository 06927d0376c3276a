//! The GPU back end: WebGPU in browsers, Vulkan natively, the same WGSL.
//!
//! Parameters, gradient, optimiser state, the local data set and the epoch's order live in device memory. A model is planned
//! once into a list of dispatches; an epoch is that list recorded once a step, with the step's numbers read from a uniform at
//! a dynamic offset. Nothing waits for a read-back before the epoch ends; see `snapshot` for what comes back by itself.

mod batches;
mod device;
mod kernels;
mod planner;
mod run;
mod snapshot;
#[cfg_attr(not(feature = "extra-kernels"), path = "no_subgroups.rs")]
mod subgroups;
mod timing;

pub use device::GpuDevice;
pub use kernels::{Kernel, KernelTime, Kernels, Work};
pub(crate) use planner::{Access, Dispatch, Grid, NormTerm, OpBuffers, Planner};
pub(crate) use run::{GpuRun, SUBMISSIONS};
pub use timing::OpTime;
