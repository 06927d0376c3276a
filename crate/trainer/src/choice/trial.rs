//! The choice between both back ends.

use unsaid_engine::{Device, EngineError, Examples, GpuDevice, Model, TrainSpec, time_steps};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;

use super::{Asked, Choice, Memory};
use crate::turn::now_ms;

/// Timed pieces for each candidate; the median is compared.
const SAMPLES: usize = 3;

/// WebGPU where it was asked for, else the faster one, or the CPU where there is no other that is real.
pub(super) async fn choose(
    asked: Asked,
    model: &Model,
    parameters: &[f32],
    examples: &Examples,
    spec: &TrainSpec,
    memory: Memory<'_>,
) -> Result<Choice, EngineError> {
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
        let _ = gpu.choose_kernels(&now_ms).await;
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
            let _ = gpu.choose_kernels(&now_ms).await;
        }
        return Ok(faster(on_gpu, adapter, (cpu_ms, gpu_ms), true));
    }
    let _ = gpu.choose_kernels(&now_ms).await;
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
            faster(on_gpu, adapter, (cpu_ms, gpu_ms), false)
        }
    })
}

fn faster(on_gpu: Device, adapter: Option<String>, times: (f64, f64), cached: bool) -> Choice {
    let (cpu_ms, gpu_ms) = times;
    Choice {
        device: if gpu_ms < cpu_ms { on_gpu } else { Device::Cpu },
        reason: "the faster of the two on this model's own steps".into(),
        adapter,
        times: Some(times),
        cached,
    }
}
