//! The browser's WebGPU under the names of wgpu 30: as much of it as the engine uses, and nothing else.
//!
//! Natively the engine runs on wgpu; in a browser it runs on this, with the same text. That is a fifth of the bytes, and it has
//! what wgpu has not: pipelines that the browser compiles beside each other (`Device::create_compute_pipeline`,
//! `Device::compiled`), and buffers that are given back as soon as nothing uses them, instead of when JavaScript's garbage
//! collector finds the time. What the names mean is in wgpu's documentation, and in the specification of WebGPU (W3C, Candidate
//! Recommendation Draft of 2025); where this differs, it says so.
#![cfg(target_arch = "wasm32")]

mod adapter;
mod buffer;
mod device;
mod object;
mod pass;
mod pipeline;
mod sys;

pub use adapter::{
    Adapter, AdapterInfo, Backends, DeviceDescriptor, DeviceType, Features, Instance, InstanceDescriptor,
    Limits, PowerPreference, RequestAdapterOptions, RequestError,
};
pub use buffer::{
    Buffer, BufferAsyncError, BufferBinding, BufferDescriptor, BufferSize, BufferUsages, BufferView, MapMode,
};
pub use device::{Device, DeviceLostReason, Error, PollType, Queue, SubmissionIndex};
pub use pass::{CommandBuffer, CommandEncoder, ComputePass};
pub use pipeline::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingResource, BindingType, BufferBindingType, ComputePipeline,
    ComputePipelineDescriptor, PipelineCompilationOptions, PipelineLayout, PipelineLayoutDescriptor,
    ShaderModule, ShaderModuleDescriptor, ShaderSource, ShaderStages,
};
