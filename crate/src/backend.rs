//! Where to train: the person's choice, or the faster of what there is, measured on the task's own steps.

use unsaid_engine::{Device, EngineError, Examples, GpuDevice, time_steps};

use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    ports::{Clock, Listener, Ports},
    task::Task,
};

/// What the person asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// WebGPU where there is a real adapter and it is the faster one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// WebGPU, an error where there is none.
    WebGpu,
}

/// The chosen back end.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The device.
    pub device: Device,
}

impl Backend {
    /// `cpu` or `webgpu`.
    pub const fn name(&self) -> &'static str {
        match self.device {
            Device::Gpu(_) => "webgpu",
            _ => "cpu",
        }
    }
}

/// Timed pieces for each candidate; the median is compared.
const SAMPLES: usize = 3;

/// Chooses, and tells the page.
///
/// # Errors
/// [`ClientError::WebGpuUnavailable`] where WebGPU was asked for by name and there is none.
pub async fn choose<P: Ports>(
    ports: &P,
    choice: BackendChoice,
    task: &Task,
    parameters: &[f32],
    examples: &Examples,
    abort: &Abort,
) -> Result<Backend, ClientError> {
    let cpu = || Backend { device: Device::Cpu };
    let tell = |backend: &Backend, reason: &str, gpu: Option<&GpuDevice>, times: Option<(f64, f64)>| {
        ports.listener().hear(SessionEvent::Backend {
            backend: backend.name(),
            reason: reason.to_owned(),
            adapter: gpu.map(|gpu| gpu.name().to_owned()),
            cpu_ms_per_step: times.map(|(cpu, _)| cpu),
            gpu_ms_per_step: times.map(|(_, gpu)| gpu),
            fallback: false,
        });
    };
    if choice == BackendChoice::Cpu {
        tell(&cpu(), "chosen by you", None, None);
        return Ok(cpu());
    }
    let gpu = match (abort.guard(ports.gpu()).await?, choice) {
        (Ok(gpu), _) => gpu,
        (Err(error), BackendChoice::WebGpu) => return Err(ClientError::WebGpuUnavailable(error.to_string())),
        (Err(error), _) => {
            tell(&cpu(), &error.to_string(), None, None);
            return Ok(cpu());
        }
    };
    let webgpu = Backend {
        device: Device::Gpu(gpu.clone()),
    };
    if choice == BackendChoice::WebGpu {
        tell(&webgpu, "chosen by you", Some(&gpu), None);
        return Ok(webgpu);
    }
    if gpu.is_software() {
        tell(
            &cpu(),
            "the WebGPU adapter is emulated in software",
            Some(&gpu),
            None,
        );
        return Ok(cpu());
    }
    let time = async |backend: &Backend| -> Result<f64, EngineError> {
        let now = || ports.clock().now_ms();
        time_steps(
            &task.model,
            parameters,
            examples,
            &task.training,
            &backend.device,
            SAMPLES,
            now,
        )
        .await
    };
    let on_cpu = abort.guard(time(&cpu())).await??;
    match abort.guard(time(&webgpu)).await? {
        Err(error) => {
            tell(
                &cpu(),
                &format!("WebGPU failed its trial: {error}"),
                Some(&gpu),
                None,
            );
            Ok(cpu())
        }
        Ok(on_gpu) => {
            let chosen = if on_gpu < on_cpu { webgpu } else { cpu() };
            tell(
                &chosen,
                "the faster of the two on this task's own steps",
                Some(&gpu),
                Some((on_cpu, on_gpu)),
            );
            Ok(chosen)
        }
    }
}
