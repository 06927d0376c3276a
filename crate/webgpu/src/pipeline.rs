//! Kernels, and what they bind.

use std::{borrow::Cow, cell::OnceCell, rc::Rc};

use js_sys::{Object, Promise};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use crate::{
    Buffer, BufferBinding, Device,
    object::{list, object, set},
    sys,
};

/// The text of a shader.
#[derive(Debug, Clone)]
pub enum ShaderSource<'a> {
    /// WGSL.
    Wgsl(Cow<'a, str>),
}

/// What a shader module is made of.
#[derive(Debug, Clone)]
pub struct ShaderModuleDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// Its text.
    pub source: ShaderSource<'a>,
}

/// A shader.
#[derive(Debug, Clone)]
pub struct ShaderModule(JsValue);

/// Which stages see a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShaderStages(u32);

impl ShaderStages {
    /// Kernels.
    pub const COMPUTE: Self = Self(0x4);
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferBindingType {
    /// Numbers that are the same for all.
    Uniform,
    /// Reads it, or also writes it.
    Storage {
        /// Whether it only reads.
        read_only: bool,
    },
}

/// What is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingType {
    /// A buffer.
    Buffer {
        /// How it is used.
        ty: BufferBindingType,
        /// Whether where it begins is said when it is set.
        has_dynamic_offset: bool,
        /// Bytes that it has at least.
        min_binding_size: Option<crate::BufferSize>,
    },
}

/// An entry of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindGroupLayoutEntry {
    /// Its number in the shader.
    pub binding: u32,
    /// Who sees it.
    pub visibility: ShaderStages,
    /// What is bound.
    pub ty: BindingType,
    /// Arrays of bindings are not to be had in browsers.
    pub count: Option<std::num::NonZeroU32>,
}

/// What a layout is made of.
#[derive(Debug, Clone)]
pub struct BindGroupLayoutDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// The entries.
    pub entries: &'a [BindGroupLayoutEntry],
}

/// What a group of bindings is like.
#[derive(Debug, Clone)]
pub struct BindGroupLayout(JsValue);

/// What the layout of a pipeline is made of.
#[derive(Debug, Clone)]
pub struct PipelineLayoutDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// The layouts of its groups, by number.
    pub bind_group_layouts: &'a [Option<&'a BindGroupLayout>],
    /// Not to be had in browsers.
    pub immediate_size: u32,
}

/// The layout of a pipeline.
#[derive(Debug, Clone)]
pub struct PipelineLayout(JsValue);

/// A buffer, bound.
#[derive(Debug, Clone)]
pub enum BindingResource<'a> {
    /// A part of a buffer.
    Buffer(BufferBinding<'a>),
}

/// An entry of a group of bindings.
#[derive(Debug, Clone)]
pub struct BindGroupEntry<'a> {
    /// Its number in the shader.
    pub binding: u32,
    /// What is bound.
    pub resource: BindingResource<'a>,
}

/// What a group of bindings is made of.
#[derive(Debug, Clone)]
pub struct BindGroupDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// What it is like.
    pub layout: &'a BindGroupLayout,
    /// The entries.
    pub entries: &'a [BindGroupEntry<'a>],
}

/// A group of bindings. It keeps its buffers.
#[derive(Debug, Clone)]
pub struct BindGroup {
    pub(crate) js: JsValue,
    _buffers: Rc<[Buffer]>,
}

/// How a pipeline is compiled.
#[derive(Debug, Clone, Default)]
pub struct PipelineCompilationOptions<'a> {
    /// The values of the shader's `override` constants.
    pub constants: &'a [(&'a str, f64)],
    /// Browsers always do.
    pub zero_initialize_workgroup_memory: bool,
}

/// What a pipeline is made of.
#[derive(Debug, Clone)]
pub struct ComputePipelineDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// Its layout.
    pub layout: Option<&'a PipelineLayout>,
    /// The shader.
    pub module: &'a ShaderModule,
    /// The function where it begins.
    pub entry_point: Option<&'a str>,
    /// How it is compiled.
    pub compilation_options: PipelineCompilationOptions<'a>,
    /// Browsers keep their own.
    pub cache: Option<std::convert::Infallible>,
}

/// A kernel. The browser compiles it in the background; who uses it before it is [there](Device::compiled) has it compiled on the
/// spot.
#[derive(Debug, Clone)]
pub struct ComputePipeline(Rc<Pipeline>);

#[derive(Debug)]
struct Pipeline {
    device: sys::GpuDevice,
    descriptor: Object,
    compiled: OnceCell<JsValue>,
}

/// A kernel that is being compiled.
pub(crate) struct Compiling {
    pipeline: ComputePipeline,
    promise: Promise,
}

impl Compiling {
    /// Waits for it. One that fails is left to whoever uses it: compiled on the spot, it reports to the device what is wrong.
    pub async fn end(self) {
        if let Ok(compiled) = JsFuture::from(self.promise).await
            && compiled.is_object()
        {
            let _ = self.pipeline.0.compiled.set(compiled);
        }
    }
}

impl ComputePipeline {
    pub(crate) fn js(&self) -> &JsValue {
        let Pipeline {
            device,
            descriptor,
            compiled,
        } = &*self.0;
        compiled.get_or_init(|| device.create_compute_pipeline(descriptor))
    }
}

fn label(label: Option<&str>) -> (&'static str, JsValue) {
    ("label", JsValue::from_str(label.unwrap_or_default()))
}

fn number(value: impl Into<f64>) -> JsValue {
    JsValue::from_f64(value.into())
}

impl Device {
    /// A shader. A fault in its text is reported when a pipeline is made of it.
    pub fn create_shader_module(&self, descriptor: ShaderModuleDescriptor<'_>) -> ShaderModule {
        let ShaderSource::Wgsl(code) = &descriptor.source;
        let descriptor = object(&[label(descriptor.label), ("code", JsValue::from_str(code))]);
        ShaderModule(self.js().create_shader_module(&descriptor))
    }

    /// A layout of bindings.
    pub fn create_bind_group_layout(&self, descriptor: &BindGroupLayoutDescriptor<'_>) -> BindGroupLayout {
        let entries = descriptor.entries.iter().map(|entry| {
            let BindingType::Buffer {
                ty,
                has_dynamic_offset,
                ..
            } = entry.ty;
            let ty = match ty {
                BufferBindingType::Uniform => "uniform",
                BufferBindingType::Storage { read_only: true } => "read-only-storage",
                BufferBindingType::Storage { read_only: false } => "storage",
            };
            let buffer = object(&[
                ("type", JsValue::from_str(ty)),
                ("hasDynamicOffset", has_dynamic_offset.into()),
            ]);
            object(&[
                ("binding", number(entry.binding)),
                ("visibility", number(entry.visibility.0)),
                ("buffer", buffer.into()),
            ])
        });
        let descriptor = object(&[label(descriptor.label), ("entries", list(entries))]);
        BindGroupLayout(self.js().create_bind_group_layout(&descriptor))
    }

    /// A layout of groups.
    pub fn create_pipeline_layout(&self, descriptor: &PipelineLayoutDescriptor<'_>) -> PipelineLayout {
        let groups = js_sys::Array::new();
        for group in descriptor.bind_group_layouts {
            groups.push(group.map_or(&JsValue::NULL, |group| &group.0));
        }
        let descriptor = object(&[label(descriptor.label), ("bindGroupLayouts", groups.into())]);
        PipelineLayout(self.js().create_pipeline_layout(&descriptor))
    }

    /// A group of bindings.
    pub fn create_bind_group(&self, descriptor: &BindGroupDescriptor<'_>) -> BindGroup {
        let entries = descriptor.entries.iter().map(|entry| {
            let BindingResource::Buffer(BufferBinding { buffer, offset, size }) = &entry.resource;
            let resource = object(&[("buffer", buffer.js().into()), ("offset", number(*offset as f64))]);
            if let Some(size) = size {
                set(&resource, "size", &number(size.get() as f64));
            }
            object(&[("binding", number(entry.binding)), ("resource", resource.into())])
        });
        let js = object(&[
            label(descriptor.label),
            ("layout", descriptor.layout.0.clone()),
            ("entries", list(entries)),
        ]);
        let buffers = descriptor.entries.iter().map(|entry| {
            let BindingResource::Buffer(binding) = &entry.resource;
            binding.buffer.clone()
        });
        BindGroup {
            js: self.js().create_bind_group(&js),
            _buffers: buffers.collect(),
        }
    }

    /// A kernel, which the browser begins to compile.
    pub fn create_compute_pipeline(&self, descriptor: &ComputePipelineDescriptor<'_>) -> ComputePipeline {
        let constants = Object::new();
        for (name, value) in descriptor.compilation_options.constants {
            set(&constants, name, &number(*value));
        }
        let compute = object(&[
            ("module", descriptor.module.0.clone()),
            ("constants", constants.into()),
        ]);
        if let Some(entry) = descriptor.entry_point {
            set(&compute, "entryPoint", &JsValue::from_str(entry));
        }
        let layout = descriptor
            .layout
            .map_or_else(|| JsValue::from_str("auto"), |layout| layout.0.clone());
        let descriptor = object(&[
            label(descriptor.label),
            ("layout", layout),
            ("compute", compute.into()),
        ]);
        let promise = self.js().create_compute_pipeline_async(&descriptor);
        let pipeline = ComputePipeline(Rc::new(Pipeline {
            device: self.js().clone(),
            descriptor,
            compiled: OnceCell::new(),
        }));
        self.compiling(Compiling {
            pipeline: pipeline.clone(),
            // Heard at once, since a failure that nobody hears of is the page's to report.
            promise: promise.catch(&crate::device::ignore()),
        });
        pipeline
    }
}
