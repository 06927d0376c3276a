//! Recording commands.

use std::marker::PhantomData;

use js_sys::Array;
use wasm_bindgen::JsValue;

use crate::{BindGroup, Buffer, ComputePipeline, sys};

/// Commands being recorded.
#[derive(Debug)]
pub struct CommandEncoder(sys::GpuCommandEncoder);

/// Commands that were recorded.
#[derive(Debug)]
pub struct CommandBuffer(pub(crate) JsValue);

/// Dispatches being recorded; dropped, they are.
#[derive(Debug)]
pub struct ComputePass<'a> {
    js: sys::GpuComputePass,
    none: Array,
    encoder: PhantomData<&'a mut CommandEncoder>,
}

impl CommandEncoder {
    pub(crate) const fn new(js: sys::GpuCommandEncoder) -> Self {
        Self(js)
    }

    /// Begins to record dispatches.
    pub fn begin_compute_pass(&mut self, _: &()) -> ComputePass<'_> {
        ComputePass {
            js: self.0.begin_compute_pass(),
            none: Array::new(),
            encoder: PhantomData,
        }
    }

    /// Copies `size` bytes.
    pub fn copy_buffer_to_buffer(
        &mut self,
        source: &Buffer,
        source_offset: u64,
        target: &Buffer,
        target_offset: u64,
        size: u64,
    ) {
        let [from, to, size] = [source_offset, target_offset, size].map(|bytes| bytes as f64);
        self.0
            .copy_buffer_to_buffer(source.js(), from, target.js(), to, size);
    }

    /// Ends it.
    pub fn finish(self) -> CommandBuffer {
        CommandBuffer(self.0.finish())
    }
}

impl ComputePass<'_> {
    /// The kernel of the dispatches that follow.
    pub fn set_pipeline(&mut self, pipeline: &ComputePipeline) {
        self.js.set_pipeline(pipeline.js());
    }

    /// Their bindings; `offsets` are of those that have dynamic ones.
    pub fn set_bind_group(&mut self, index: u32, group: &BindGroup, offsets: &[u32]) {
        if offsets.is_empty() {
            self.js.set_bind_group(index, &group.js, &self.none);
            return;
        }
        let list = Array::new();
        for &offset in offsets {
            list.push(&JsValue::from_f64(offset.into()));
        }
        self.js.set_bind_group(index, &group.js, &list);
    }

    /// Runs it, in so many workgroups.
    pub fn dispatch_workgroups(&mut self, x: u32, y: u32, z: u32) {
        self.js.dispatch_workgroups(x, y, z);
    }
}

impl Drop for ComputePass<'_> {
    fn drop(&mut self) {
        self.js.end_pass();
    }
}
