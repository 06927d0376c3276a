//! What an update gives away, for JavaScript. `pkg/src/inversion.ts` is the API that people see; this crate is only its wasm half.
//!
//! It is the client without its browser: the same task, training, protection and frame, and behind them the attack
//! (`crate/src/exposure.rs`). It is a module of its own, loaded when first asked, so that who takes part in a task downloads none of it.
#![cfg(target_arch = "wasm32")]

use js_sys::{Array, Float32Array, Object, Reflect};
use unsaid::{
    ClientError,
    exposure::{self, Protection},
    random::Random,
    task::Task,
};
use unsaid_engine::EngineError;
use unsaid_privacy::ClientFloors;
use unsaid_protocol::ContentHash;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

/// Nobody joins here: whatever a task's terms are, they may be looked at.
const ANY_TERMS: ClientFloors = ClientFloors {
    min_noise_multiplier: 0.0,
    max_clip_l2: f64::MAX,
    min_cohort: 1,
    max_rounds_per_day: u32::MAX,
    example_level: true,
    trust_relay: true,
};

/// Runs when the module is loaded: a panic's text goes where the worker finds it.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        let text = JsValue::from_str(info.payload_as_str().unwrap_or("a panic without words"));
        let _ = Reflect::set(&js_sys::global(), &JsValue::from_str("__unsaidPanic"), &text);
    }));
}

/// Attacks the update that a device with this one example would send: a list of what was found, of which `pkg/src/inversion.ts` has the
/// type. `model` is a safetensors file.
///
/// # Errors
/// An `Error` with a stable `code`.
#[wasm_bindgen]
pub async fn invert(manifest: Vec<u8>, model: Vec<u8>, x: Vec<f32>, label: f64) -> Result<Array, JsValue> {
    let run = async || -> Result<Array, ClientError> {
        let task = Task::new(&manifest, ContentHash::of(&manifest), &ANY_TERMS)?;
        let weights = task.model.from_safetensors(&model).map_err(EngineError::from)?;
        // A label that is no whole number is none of the classes.
        let label = if label.fract() == 0.0 && label >= 0.0 {
            label as u32
        } else {
            u32::MAX
        };
        let rows = exposure::exposure(&task, &weights, &x, label, &mut Random::default()).await?;
        rows.iter().map(view).collect()
    };
    run().await.map_err(|error| thrown(&error))
}

fn view(row: &exposure::Exposure) -> Result<JsValue, ClientError> {
    let protection = match row.protection {
        Protection::None => "none",
        Protection::Clip => "clip",
        _ => "noise",
    };
    let found = row
        .found
        .as_deref()
        .map_or(JsValue::NULL, |x| Float32Array::from(x).into());
    let number = |x: Option<f64>| x.map_or(JsValue::NULL, JsValue::from_f64);
    let view = Object::new();
    for (name, value) in [
        ("protection", protection.into()),
        ("frameBytes", JsValue::from_f64(row.frame_bytes as f64)),
        ("clipped", row.clipped.into()),
        ("found", found),
        ("label", number(row.label.map(|label| label as f64))),
        ("psnr", row.psnr.into()),
        ("ssim", number(row.ssim)),
    ] {
        Reflect::set(&view, &name.into(), &value)
            .map_err(|_| ClientError::Internal("an object takes no field".into()))?;
    }
    Ok(view.into())
}

/// The one place where these errors become JavaScript's.
fn thrown(error: &ClientError) -> JsValue {
    let thrown = js_sys::Error::new(&error.to_string());
    thrown.set_name("UnsaidError");
    let _ = Reflect::set(&thrown, &"code".into(), &error.code().into());
    thrown.into()
}
