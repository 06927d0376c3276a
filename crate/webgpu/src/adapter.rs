//! From the browser to a device.

use std::ops::{BitAnd, BitOr};

use js_sys::{Array, Object, global};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::{
    Device, Queue,
    object::{get, object, set, text},
    sys,
};

/// The name of [`Features::SUBGROUP`] among the browser's.
const SUBGROUPS: &str = "subgroups";

/// Back ends. The browser's is the only one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backends(u32);

impl Backends {
    /// The browser's WebGPU.
    pub const BROWSER_WEBGPU: Self = Self(1);
    /// Not in a browser.
    pub const VULKAN: Self = Self(2);
}

impl BitOr for Backends {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What an [`Instance`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct InstanceDescriptor {
    /// Which back ends may be used.
    pub backends: Backends,
}

impl InstanceDescriptor {
    /// Without a display, which compute has no use for.
    pub const fn new_without_display_handle() -> Self {
        Self {
            backends: Backends::BROWSER_WEBGPU,
        }
    }
}

/// Where adapters are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Instance(());

/// Which adapter is preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PowerPreference {
    /// Whichever.
    #[default]
    None,
    /// The faster one.
    HighPerformance,
}

/// Which adapter is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestAdapterOptions {
    /// Which one is preferred.
    pub power_preference: PowerPreference,
    /// Whether only an emulated one will do.
    pub force_fallback_adapter: bool,
}

/// Why there is no adapter, or no device: the browser's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError(String);

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl RequestError {
    fn of(thrown: &JsValue) -> Self {
        Self(text(thrown, "message"))
    }
}

impl Instance {
    /// Nothing is asked yet.
    pub const fn new(_: InstanceDescriptor) -> Self {
        Self(())
    }

    /// Asks the browser for an adapter.
    ///
    /// # Errors
    /// [`RequestError`] where it has no WebGPU, or gives no adapter.
    pub async fn request_adapter(&self, options: &RequestAdapterOptions) -> Result<Adapter, RequestError> {
        let gpu = get(&get(&global(), "navigator"), "gpu");
        if !gpu.is_object() {
            return Err(RequestError("this browser has no WebGPU (navigator.gpu)".into()));
        }
        let wanted = object(&[("forceFallbackAdapter", options.force_fallback_adapter.into())]);
        if options.power_preference == PowerPreference::HighPerformance {
            set(&wanted, "powerPreference", &JsValue::from_str("high-performance"));
        }
        let promise = gpu.unchecked_into::<sys::Gpu>().request_adapter(&wanted);
        let adapter = JsFuture::from(promise)
            .await
            .map_err(|thrown| RequestError::of(&thrown))?;
        if !adapter.is_object() {
            return Err(RequestError("this browser gives no adapter".into()));
        }
        Ok(Adapter(adapter))
    }
}

/// An adapter: a GPU, or what is taken for one.
#[derive(Debug)]
pub struct Adapter(JsValue);

/// What kind of adapter it is, as far as browsers say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// Emulated in software.
    Cpu,
    /// Anything else.
    Other,
}

/// What the adapter calls itself.
#[derive(Debug, Clone)]
pub struct AdapterInfo {
    /// Its description.
    pub name: String,
    /// Browsers do not say.
    pub driver: String,
    /// Browsers do not say.
    pub driver_info: String,
    /// What kind it is.
    pub device_type: DeviceType,
}

/// What not every device can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(bool);

impl Features {
    /// Kernels with `enable subgroups`.
    pub const SUBGROUP: Self = Self(true);

    /// Whether all of `other` are among them.
    pub const fn contains(self, other: Self) -> bool {
        self.0 || !other.0
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 && other.0)
    }
}

/// The limits that matter to kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes of a buffer.
    pub max_buffer_size: u64,
    /// Bytes of a storage buffer that a kernel sees.
    pub max_storage_buffer_binding_size: u64,
    /// What offsets into uniform buffers are multiples of.
    pub min_uniform_buffer_offset_alignment: u32,
    /// In the order of [`Limits::NAMES`].
    asked: [f64; Limits::NAMES.len()],
}

impl Limits {
    /// Those that are asked for; others stay at their defaults.
    const NAMES: [&'static str; 9] = [
        "maxBufferSize",
        "maxStorageBufferBindingSize",
        "maxStorageBuffersPerShaderStage",
        "maxComputeWorkgroupStorageSize",
        "maxComputeInvocationsPerWorkgroup",
        "maxComputeWorkgroupSizeX",
        "maxComputeWorkgroupSizeY",
        "maxComputeWorkgroupSizeZ",
        "maxComputeWorkgroupsPerDimension",
    ];

    fn of(limits: &JsValue) -> Self {
        let number = |name| get(limits, name).as_f64().unwrap_or(0.0);
        let asked = Self::NAMES.map(number);
        Self {
            max_buffer_size: asked[0] as u64,
            max_storage_buffer_binding_size: asked[1] as u64,
            min_uniform_buffer_offset_alignment: number("minUniformBufferOffsetAlignment") as u32,
            asked,
        }
    }
}

/// What a device is asked to have.
#[derive(Debug, Clone, Default)]
pub struct DeviceDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// What it must be able to do.
    pub required_features: Features,
    /// The limits that it must reach.
    pub required_limits: Limits,
}

impl Adapter {
    /// What it calls itself.
    pub fn get_info(&self) -> AdapterInfo {
        let info = get(&self.0, "info");
        let emulated = get(&info, "isFallbackAdapter").is_truthy();
        AdapterInfo {
            name: text(&info, "description"),
            driver: String::new(),
            driver_info: String::new(),
            device_type: if emulated {
                DeviceType::Cpu
            } else {
                DeviceType::Other
            },
        }
    }

    /// What it can do of what others cannot.
    pub fn features(&self) -> Features {
        let features = get(&self.0, "features");
        Features(features.is_object() && features.unchecked_into::<sys::GpuFeatures>().has(SUBGROUPS))
    }

    /// What it can do at most.
    pub fn limits(&self) -> Limits {
        Limits::of(&get(&self.0, "limits"))
    }

    /// Asks for a device.
    ///
    /// # Errors
    /// [`RequestError`] where the browser refuses.
    pub async fn request_device(
        &self,
        descriptor: &DeviceDescriptor<'_>,
    ) -> Result<(Device, Queue), RequestError> {
        let wanted = object(&[("label", JsValue::from_str(descriptor.label.unwrap_or_default()))]);
        let limits = Object::new();
        for (name, limit) in Limits::NAMES.into_iter().zip(descriptor.required_limits.asked) {
            set(&limits, name, &JsValue::from_f64(limit));
        }
        set(&wanted, "requiredLimits", &limits);
        if descriptor.required_features.contains(Features::SUBGROUP) {
            set(
                &wanted,
                "requiredFeatures",
                &Array::of1(&JsValue::from_str(SUBGROUPS)),
            );
        }
        let adapter: &sys::GpuAdapter = self.0.unchecked_ref();
        let device = JsFuture::from(adapter.request_device(&wanted))
            .await
            .map_err(|thrown| RequestError::of(&thrown))?;
        let limits = Limits::of(&get(&device, "limits"));
        Ok(Device::new(device.unchecked_into(), limits))
    }
}
