//! Where to train: what was asked for, or the faster of what there is, measured on a few steps of the very model.

#[cfg(feature = "gpu")]
mod trial;

use js_sys::Promise;
use unsaid_engine::{Device, EngineError, Examples, Model, TrainSpec};
use wasm_bindgen::prelude::wasm_bindgen;

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
#[cfg_attr(
    not(feature = "gpu"),
    allow(dead_code, reason = "nothing is tried where there is one back end")
)]
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

    pub const fn name(&self) -> &'static str {
        match self.device {
            Device::Cpu => "cpu",
            _ => "webgpu",
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
    #[cfg(feature = "gpu")]
    return trial::choose(asked, model, parameters, examples, spec, memory).await;
    #[cfg(not(feature = "gpu"))]
    {
        // The worker loads this build for `auto` where there is nothing to choose from.
        let _ = (model, parameters, examples, spec, memory);
        if asked == Asked::WebGpu {
            return Err(EngineError::NoGpu(
                "this build of the trainer is for the CPU alone".into(),
            ));
        }
        Ok(Choice::cpu(
            "WebGPU is not available: no navigator.gpu, or no adapter",
        ))
    }
}
