//! What `auto` measured on earlier visits. The worker keeps it: `worker/src/trials.ts`.

use js_sys::{Float64Array, Promise};
use wasm_bindgen::{JsCast, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;

use crate::ports::StepTimes;

#[wasm_bindgen]
extern "C" {
    /// The worker's memory.
    #[wasm_bindgen(typescript_type = "any")]
    #[derive(Debug)]
    pub type Trials;

    #[wasm_bindgen(method)]
    fn recall(this: &Trials, what: &str, adapter: &str) -> Promise;

    #[wasm_bindgen(method)]
    fn remember(this: &Trials, what: &str, adapter: &str, cpu_ms: f64, gpu_ms: f64) -> Promise;
}

pub(super) async fn recall(trials: &Trials, what: &str, adapter: &str) -> Option<StepTimes> {
    let found = JsFuture::from(trials.recall(what, adapter)).await.ok()?;
    match found.dyn_into::<Float64Array>().ok()?.to_vec()[..] {
        [cpu_ms, gpu_ms] => Some(StepTimes { cpu_ms, gpu_ms }),
        _ => None,
    }
}

pub(super) async fn keep(trials: &Trials, what: &str, adapter: &str, times: StepTimes) {
    // Without it, it is measured again.
    let _ = JsFuture::from(trials.remember(what, adapter, times.cpu_ms, times.gpu_ms)).await;
}
