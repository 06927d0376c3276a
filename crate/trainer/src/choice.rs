//! Where to train: what was asked for, or the faster of what there is, measured on a few steps of the very model.

use js_sys::Promise;
use unsaid_engine::{Device, EngineError, Examples, GpuDevice, Model, TrainSpec, time_steps};
use wasm_bindgen::{JsCast, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;

use crate::turn::now_ms;

/// Timed pieces for each candidate; the median is compared.
const SAMPLES: usize = 3;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Auto,
    Cpu,
    WebGpu,
}

/// Where training happens, and why.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub device: Device,
    pub reason: String,
    pub adapter: Option<String>,
    /// Milliseconds per step on the CPU and the GPU, where both were measured.
    pub times: Option<(f64, f64)>,
    /// Whether that was on an earlier visit.
    pub cached: bool,
}

#[wasm_bindgen]
extern "C" {
    /// What was measured before: `worker/src/trials.ts`.
    #[wasm_bindgen(typescript_type = "any")]
    pub type Trials;

    #[wasm_bindgen(method)]
    fn recall(this: &Trials, what: &str, adapter: &str) -> Promise;

    #[wasm_bindgen(method)]
    fn remember(this: &Trials, what: &str, adapter: &str, cpu_ms: f64, gpu_ms: f64) -> Promise;
}

/// A trial's place in that memory.
pub(crate) struct Memory<'a> {
    pub trials: &'a Trials,
    /// The model and the training, as JSON.
    pub what: &'a str,
}

impl Choice {
    pub fn cpu(reason: impl Into<String>) -> Self {
        Self {
            device: Device::Cpu,
            reason: reason.into(),
            adapter: None,
            times: None,
            cached: false,
        }
    }

    fn faster(on_gpu: Device, adapter: Option<String>, times: (f64, f64), cached: bool) -> Self {
        let (cpu_ms, gpu_ms) = times;
        Self {
            device: if gpu_ms < cpu_ms { on_gpu } else { Device::Cpu },
            reason: "the faster of the two on this model's own steps".into(),
            adapter,
            times: Some(times),
            cached,
        }
    }

    pub const fn name(&self) -> &'static str {
        match self.device {
            Device::Gpu(_) => "webgpu",
            _ => "cpu",
        }
    }
}

/// Chooses for this model, these examples and this training.
pub(crate) async fn choose(
    asked: Asked,
    model: &Model,
    parameters: &[f32],
    examples: &Examples,
    spec: &TrainSpec,
    memory: Memory<'_>,
) -> Result<Choice, EngineError> {
    if asked == Asked::Cpu {
        return Ok(Choice::cpu("asked for"));
    }
    let gpu = match GpuDevice::request().await {
        Ok(gpu) => gpu,
        Err(error) if asked == Asked::WebGpu => return Err(error),
        Err(error) => return Ok(Choice::cpu(error.to_string())),
    };
    let adapter = Some(gpu.name().to_owned());
    let software = gpu.is_software();
    let on_gpu = Device::Gpu(gpu.clone());
    if asked == Asked::WebGpu {
        // A device that fails here fails in training, too, and it is told there.
        let _ = gpu.choose_kernels(now_ms).await;
        return Ok(Choice {
            device: on_gpu,
            reason: "asked for".into(),
            adapter,
            times: None,
            cached: false,
        });
    }
    if software {
        let mut choice = Choice::cpu("the WebGPU adapter is emulated in software");
        choice.adapter = adapter;
        return Ok(choice);
    }
    let Memory { trials, what } = memory;
    let name = adapter.as_deref().unwrap_or_default();
    let known = JsFuture::from(trials.recall(what, name)).await.ok();
    let known = known.and_then(|found| found.dyn_into::<js_sys::Float64Array>().ok());
    if let Some(&[cpu_ms, gpu_ms]) = known.map(|found| found.to_vec()).as_deref() {
        // Where the CPU is the faster one, nobody needs to know which kernels the GPU would have used.
        if gpu_ms < cpu_ms {
            let _ = gpu.choose_kernels(now_ms).await;
        }
        return Ok(Choice::faster(on_gpu, adapter, (cpu_ms, gpu_ms), true));
    }
    let _ = gpu.choose_kernels(now_ms).await;
    let time =
        async |device: &Device| time_steps(model, parameters, examples, spec, device, SAMPLES, now_ms).await;
    let cpu_ms = time(&Device::Cpu).await?;
    Ok(match time(&on_gpu).await {
        Err(error) => Choice {
            adapter,
            ..Choice::cpu(format!("WebGPU failed its trial: {error}"))
        },
        Ok(gpu_ms) => {
            // Without it, it is measured again.
            let _ = JsFuture::from(trials.remember(what, name, cpu_ms, gpu_ms)).await;
            Choice::faster(on_gpu, adapter, (cpu_ms, gpu_ms), false)
        }
    })
}
