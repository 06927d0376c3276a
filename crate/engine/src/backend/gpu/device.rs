//! The device: asking for one, noticing that it is lost, and moving numbers to and from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use super::{KernelTime, Kernels};
use crate::EngineError;

/// A GPU device with its compiled pipelines. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct GpuDevice {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Two dozen at most: a list is searched faster than a map is built, and is smaller in wasm.
    pub(super) pipelines: Arc<Mutex<Vec<PipelineEntry>>>,
    faults: Arc<Mutex<Faults>>,
    kernels: Arc<Mutex<(Kernels, Vec<KernelTime>)>>,
    name: String,
    software: bool,
    subgroups: bool,
}

/// The value of an `override` constant.
pub(super) type Constant = (&'static str, f64);

/// A pipeline under the names of its shader and entry point, and the shader's constants.
pub(super) struct PipelineEntry {
    pub shader: &'static str,
    pub entry: &'static str,
    pub constants: Vec<Constant>,
    /// Whether it sums by subgroups.
    pub subgroups: bool,
    pub pipeline: Pipeline,
}

/// A compiled kernel and what it binds.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub bindings: wgpu::BindGroupLayout,
}

#[derive(Default)]
struct Faults {
    lost: Option<String>,
    refused: Option<EngineError>,
    /// Bytes of the buffers of the training that was planned last.
    asked: u64,
}

impl Faults {
    fn refuse(&mut self, error: &wgpu::Error) {
        let error = match error {
            wgpu::Error::OutOfMemory { .. } => EngineError::GpuMemory { bytes: self.asked },
            other => EngineError::Gpu(other.to_string()),
        };
        self.refused.get_or_insert(error);
    }
}

/// Takes a lock. A panic elsewhere cannot leave these maps half-written, so poisoning is passed over.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for GpuDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuDevice")
            .field("name", &self.name)
            .field("software", &self.software)
            .finish()
    }
}

impl GpuDevice {
    /// Asks for the most capable device there is.
    ///
    /// # Errors
    /// [`EngineError::NoGpu`] where there is none, or none is allowed.
    pub async fn request() -> Result<Self, EngineError> {
        let no_gpu = |error: &dyn std::fmt::Display| EngineError::NoGpu(error.to_string());
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::BROWSER_WEBGPU | wgpu::Backends::VULKAN;
        let instance = wgpu::Instance::new(descriptor);
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance
            .request_adapter(&options)
            .await
            .map_err(|error| no_gpu(&error))?;
        let info = adapter.get_info();
        let features = adapter.features() & wgpu::Features::SUBGROUP;
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(), // a data set may need larger buffers than the default
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| no_gpu(&error))?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        let lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let destroyed = matches!(reason, wgpu::DeviceLostReason::Destroyed);
            let reason = if destroyed { "Destroyed" } else { "Unknown" };
            lock(&lost).lost = Some(format!("{reason} {message}").trim().to_owned());
        });
        let refused = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&refused).refuse(&error);
        }));
        let software = info.device_type == wgpu::DeviceType::Cpu || is_software(&info.name, &info.driver);
        let name = if info.name.is_empty() {
            format!("{} {}", info.driver, info.driver_info)
        } else {
            info.name
        };
        Ok(Self {
            device,
            queue,
            pipelines: Arc::default(),
            faults,
            kernels: Arc::new(Mutex::new((Kernels::untimed(software), Vec::new()))),
            name: name.trim().to_owned(),
            software,
            subgroups: features.contains(wgpu::Features::SUBGROUP),
        })
    }

    /// What the driver calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the "GPU" is emulated on the CPU, and so no faster than it.
    pub const fn is_software(&self) -> bool {
        self.software
    }

    /// Whether it has subgroups.
    pub const fn has_subgroups(&self) -> bool {
        self.subgroups
    }

    /// Which kernels compute products of matrices, and how sums are made.
    pub fn kernels(&self) -> Kernels {
        lock(&self.kernels).0
    }

    /// The times by which they were chosen; none where they were not.
    pub fn kernel_times(&self) -> Vec<KernelTime> {
        lock(&self.kernels).1.clone()
    }

    pub(super) fn keep_times(&self, times: &[KernelTime]) {
        lock(&self.kernels).1 = times.to_vec();
    }

    /// Uses these kernels from the next training on; subgroups only where there are any.
    pub fn use_kernels(&self, kernels: Kernels) {
        let subgroups = kernels.subgroups && self.subgroups;
        lock(&self.kernels).0 = Kernels { subgroups, ..kernels };
    }

    /// Gives the device up: work that is under way on it fails with [`EngineError::DeviceLost`]. Also the way for a test to
    /// make a real loss.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// From here on buffers are counted for a training that is planned anew.
    pub(super) fn begin_plan(&self) -> Result<(), EngineError> {
        self.check()?;
        lock(&self.faults).asked = 0;
        Ok(())
    }

    /// The fault that the device has reported, if any. A refusal is reported once, a loss from then on always.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        let mut faults = lock(&self.faults);
        if let Some(reason) = &faults.lost {
            return Err(EngineError::DeviceLost(reason.clone()));
        }
        faults.refused.take().map_or(Ok(()), Err)
    }

    /// An empty buffer of `bytes`, which must stay within the device's limits.
    pub(super) fn buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, EngineError> {
        let limits = self.device.limits();
        let limit = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        let size = bytes.max(16).next_multiple_of(4);
        if size > limit {
            return Err(EngineError::GpuLimit {
                what,
                needed: size,
                limit,
            });
        }
        lock(&self.faults).asked += size;
        let descriptor = wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage,
            mapped_at_creation: false,
        };
        Ok(self.device.create_buffer(&descriptor))
    }

    /// A storage buffer that holds `values`.
    pub(super) fn upload<T: bytemuck::NoUninit>(
        &self,
        what: &'static str,
        values: &[T],
    ) -> Result<wgpu::Buffer, EngineError> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.buffer(what, size_of_val(values) as u64, usage)?;
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        Ok(buffer)
    }

    /// Waits until all kernels that were planned are compiled. A browser compiles them beside each other; elsewhere they are
    /// compiled when they are planned.
    #[allow(clippy::unused_async, reason = "it waits in browsers only")]
    pub(crate) async fn compiled(&self) {
        #[cfg(target_arch = "wasm32")]
        self.device.compiled().await;
    }

    /// Submits what was recorded.
    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> Submitted {
        Submitted(self.queue.submit([encoder.finish()]))
    }

    /// Waits until work is done.
    pub(super) async fn wait(&self, pending: Pending) -> Result<(), EngineError> {
        self.drive(Some(pending.index))?;
        // A dropped sender or a buffer that cannot be mapped means that the device went away; `check` knows why, or will.
        let ended = pending.waiting.await;
        self.check()?;
        let lost = || EngineError::DeviceLost("its work was not finished".into());
        ended.map_err(|_| lost())?.map_err(|_| lost())
    }

    /// Reads the first `len` numbers of each buffer, one behind the other.
    pub(super) async fn read(&self, sources: &[(&wgpu::Buffer, usize)]) -> Result<Vec<f32>, EngineError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let total: usize = sources.iter().map(|&(_, len)| 4 * len).sum();
        let staging = self.buffer("read-back", total as u64, usage)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut offset = 0;
        for &(source, len) in sources {
            encoder.copy_buffer_to_buffer(source, 0, &staging, offset, 4 * len as u64);
            offset += 4 * len as u64;
        }
        let Submitted(index) = self.submit(encoder);
        let (done, waiting) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = done.send(result);
        });
        self.drive(Some(index))?;
        let mapped = waiting.await;
        self.check()?;
        let lost = || EngineError::DeviceLost("reading back failed".into());
        mapped.map_err(|_| lost())?.map_err(|_| lost())?;
        let view = staging.get_mapped_range(..total as u64).map_err(|_| lost())?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }

    /// Lets callbacks run. Browsers do so by themselves; natively this waits for the work.
    fn drive(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), EngineError> {
        let wait = wgpu::PollType::Wait {
            submission_index,
            timeout: None,
        };
        match self.device.poll(wait) {
            Ok(_) => Ok(()),
            Err(error) => {
                // A lost device refuses what it is given, and says that it is lost once it is asked about the rest.
                let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
                self.check().and(Err(EngineError::Gpu(error.to_string())))
            }
        }
    }
}

/// What became of asking for a buffer.
pub(super) type Mapped = Result<(), wgpu::BufferAsyncError>;

/// Work that the device has been given.
pub(super) struct Submitted(wgpu::SubmissionIndex);

impl Submitted {
    /// Asks to be told when all work up to here is done.
    pub fn done(self, gpu: &GpuDevice) -> Pending {
        let (done, waiting) = oneshot::channel();
        gpu.queue.on_submitted_work_done(move || {
            let _ = done.send(Ok(())); // nobody waits where training was stopped
        });
        self.mapped(waiting)
    }

    /// The work is done when a buffer that it fills is mapped.
    pub fn mapped(self, waiting: oneshot::Receiver<Mapped>) -> Pending {
        Pending {
            index: self.0,
            waiting,
        }
    }
}

/// Work that can be waited for.
pub(super) struct Pending {
    index: wgpu::SubmissionIndex,
    waiting: oneshot::Receiver<Mapped>,
}

/// Names under which software adapters are known: browsers do not always say that an adapter is a fallback.
fn is_software(name: &str, driver: &str) -> bool {
    let text = format!("{name} {driver}").to_ascii_lowercase();
    [
        "swiftshader",
        "llvmpipe",
        "lavapipe",
        "softpipe",
        "microsoft basic render",
    ]
    .iter()
    // Not `contains`: its search is for long texts, and weighs 1 kB in a browser's download.
    .any(|name| {
        text.as_bytes()
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_is_told_from_other_faults_with_the_bytes_asked_for() {
        let source = || Box::new(std::io::Error::other("driver"));
        let mut faults = Faults {
            asked: 4096,
            ..Faults::default()
        };
        faults.refuse(&wgpu::Error::OutOfMemory { source: source() });
        // The first fault is the cause; what it brings about does not hide it.
        faults.refuse(&wgpu::Error::Internal {
            source: source(),
            description: "invalid buffer".into(),
        });
        assert_eq!(faults.refused, Some(EngineError::GpuMemory { bytes: 4096 }));
    }
}
