//! The engine for JavaScript: a model that is trained, evaluated, asked, saved and loaded in a worker, with no relay and no
//! privacy mechanism. `pkg/src/trainer.ts` is the API that people see; this crate is only its wasm half.
//!
//! It is a crate of its own, beside the client's, so that a page that trains alone downloads nothing else.
#![cfg(target_arch = "wasm32")]

mod choice;
mod document;
mod errors;
mod trainer;
mod turn;

pub use trainer::Trainer;

use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

/// Runs when the module is loaded: a panic's text goes where the worker finds it.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        // The worker reads it when the trap that follows reaches JavaScript. Where it was is in the trap's stack: a shipped
        // module has no source lines.
        let text = JsValue::from_str(info.payload_as_str().unwrap_or("a panic without words"));
        let _ = js_sys::Reflect::set(&js_sys::global(), &JsValue::from_str("__unsaidPanic"), &text);
    }));
}
