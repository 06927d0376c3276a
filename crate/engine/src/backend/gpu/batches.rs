//! The numbers of each step, which every kernel reads from a uniform at the step's offset.

use super::{
    GpuDevice,
    planner::{Dispatch, buffer_entry},
};
use crate::EngineError;

/// The numbers of one step, read by every kernel as `batch` (32 bytes).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct BatchUniform {
    /// Examples in the batch.
    pub rows: u32,
    /// Where the batch begins in the epoch's order.
    pub first: u32,
    /// Where the step's loss goes.
    pub index: u32,
    /// What dropout draws from.
    pub key: u32,
    /// Step size.
    pub learning_rate: f32,
    /// Two numbers of the optimiser's own.
    pub own: [f32; 2],
    /// The batch's share in the gradient of its step.
    pub share: f32,
}

/// The numbers of many steps, and what binds them.
pub(super) struct Batches {
    pub layout: wgpu::BindGroupLayout,
    buffer: wgpu::Buffer,
    bindings: wgpu::BindGroup,
    stride: u32,
}

impl Batches {
    /// Room for `steps`.
    pub fn new(gpu: &GpuDevice, steps: usize) -> Result<Self, EngineError> {
        let size = size_of::<BatchUniform>();
        let stride = (size as u32).max(gpu.device.limits().min_uniform_buffer_offset_alignment);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("batches", u64::from(stride) * steps as u64, usage)?;
        let layout = gpu
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("batch"),
                entries: &[buffer_entry(0, wgpu::BufferBindingType::Uniform, true)],
            });
        let bindings = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("batch"),
            layout: &layout,
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &buffer,
                    offset: 0,
                    size: wgpu::BufferSize::new(size as u64),
                }),
            }],
        });
        Ok(Self {
            layout,
            buffer,
            bindings,
            stride,
        })
    }

    /// Sends the numbers of the steps from 0 on.
    pub fn write(&self, gpu: &GpuDevice, steps: &mut dyn ExactSizeIterator<Item = BatchUniform>) {
        let mut bytes = vec![0u8; self.stride as usize * steps.len()];
        for (slot, step) in bytes.chunks_exact_mut(self.stride as usize).zip(steps) {
            slot[..size_of::<BatchUniform>()].copy_from_slice(bytemuck::bytes_of(&step));
        }
        gpu.queue.write_buffer(&self.buffer, 0, &bytes);
    }

    /// Records `dispatches` for step `step`, which has so many `rows`.
    pub fn record(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        step: usize,
        rows: usize,
        dispatches: &[Dispatch],
    ) {
        pass.set_bind_group(1, &self.bindings, &[step as u32 * self.stride]);
        for Dispatch {
            pipeline,
            bindings,
            grid,
        } in dispatches
        {
            let (x, y) = grid.size(rows as u32);
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bindings, &[]);
            pass.dispatch_workgroups(x, y, 1);
        }
    }
}
