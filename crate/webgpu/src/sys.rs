//! The browser's objects, method by method.

use js_sys::{Array, ArrayBuffer, Function, Object, Promise};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type Gpu;
    #[wasm_bindgen(method, js_name = requestAdapter)]
    pub fn request_adapter(this: &Gpu, options: &Object) -> Promise;

    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuAdapter;
    #[wasm_bindgen(method, js_name = requestDevice)]
    pub fn request_device(this: &GpuAdapter, descriptor: &Object) -> Promise;

    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuFeatures;
    #[wasm_bindgen(method)]
    pub fn has(this: &GpuFeatures, name: &str) -> bool;

    #[derive(Debug, Clone)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuDevice;
    #[wasm_bindgen(method, getter)]
    pub fn queue(this: &GpuDevice) -> GpuQueue;
    #[wasm_bindgen(method, getter)]
    pub fn lost(this: &GpuDevice) -> Promise;
    #[wasm_bindgen(method, setter, js_name = onuncapturederror)]
    pub fn on_uncaptured_error(this: &GpuDevice, listener: &Function);
    #[wasm_bindgen(method)]
    pub fn destroy(this: &GpuDevice);
    #[wasm_bindgen(method, js_name = createBuffer)]
    pub fn create_buffer(this: &GpuDevice, descriptor: &Object) -> GpuBuffer;
    #[wasm_bindgen(method, js_name = createShaderModule)]
    pub fn create_shader_module(this: &GpuDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createBindGroupLayout)]
    pub fn create_bind_group_layout(this: &GpuDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createPipelineLayout)]
    pub fn create_pipeline_layout(this: &GpuDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createBindGroup)]
    pub fn create_bind_group(this: &GpuDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createComputePipeline)]
    pub fn create_compute_pipeline(this: &GpuDevice, descriptor: &Object) -> JsValue;
    #[wasm_bindgen(method, js_name = createComputePipelineAsync)]
    pub fn create_compute_pipeline_async(this: &GpuDevice, descriptor: &Object) -> Promise;
    #[wasm_bindgen(method, js_name = createCommandEncoder)]
    pub fn create_command_encoder(this: &GpuDevice) -> GpuCommandEncoder;

    #[derive(Debug, Clone)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuQueue;
    #[wasm_bindgen(method)]
    pub fn submit(this: &GpuQueue, commands: &Array);
    #[wasm_bindgen(method, catch, js_name = writeBuffer)]
    pub fn write_buffer(this: &GpuQueue, buffer: &GpuBuffer, offset: f64, data: &[u8])
    -> Result<(), JsValue>;
    #[wasm_bindgen(method, js_name = onSubmittedWorkDone)]
    pub fn on_submitted_work_done(this: &GpuQueue) -> Promise;

    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuBuffer;
    #[wasm_bindgen(method, js_name = mapAsync)]
    pub fn map_async(this: &GpuBuffer, mode: u32) -> Promise;
    #[wasm_bindgen(method, catch, js_name = getMappedRange)]
    pub fn get_mapped_range(this: &GpuBuffer, offset: f64, size: f64) -> Result<ArrayBuffer, JsValue>;
    #[wasm_bindgen(method)]
    pub fn unmap(this: &GpuBuffer);
    #[wasm_bindgen(method, js_name = destroy)]
    pub fn destroy_buffer(this: &GpuBuffer);

    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuCommandEncoder;
    #[wasm_bindgen(method, js_name = beginComputePass)]
    pub fn begin_compute_pass(this: &GpuCommandEncoder) -> GpuComputePass;
    #[wasm_bindgen(method, js_name = copyBufferToBuffer)]
    pub fn copy_buffer_to_buffer(
        this: &GpuCommandEncoder,
        source: &GpuBuffer,
        source_offset: f64,
        target: &GpuBuffer,
        target_offset: f64,
        size: f64,
    );
    #[wasm_bindgen(method)]
    pub fn finish(this: &GpuCommandEncoder) -> JsValue;

    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "any")]
    pub type GpuComputePass;
    #[wasm_bindgen(method, js_name = setPipeline)]
    pub fn set_pipeline(this: &GpuComputePass, pipeline: &JsValue);
    #[wasm_bindgen(method, js_name = setBindGroup)]
    pub fn set_bind_group(this: &GpuComputePass, index: u32, group: &JsValue, offsets: &Array);
    #[wasm_bindgen(method, js_name = dispatchWorkgroups)]
    pub fn dispatch_workgroups(this: &GpuComputePass, x: u32, y: u32, z: u32);
    #[wasm_bindgen(method, js_name = end)]
    pub fn end_pass(this: &GpuComputePass);
}
