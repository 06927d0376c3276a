//! The one place where the engine's errors become JavaScript's.

use unsaid_engine::EngineError;
use wasm_bindgen::JsValue;

/// An `Error` with a stable `code`.
pub(crate) fn throw(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    error.set_name("UnsaidError");
    let _ = js_sys::Reflect::set(&error, &JsValue::from_str("code"), &JsValue::from_str(code));
    error.into()
}

/// Options that make no sense.
pub(crate) fn bad_options(message: &dyn std::fmt::Display) -> JsValue {
    throw("bad-options", &message.to_string())
}

pub(crate) fn of_engine(error: &EngineError) -> JsValue {
    let code = match error {
        EngineError::Spec(_) => "bad-options",
        EngineError::Data(_) => "bad-data",
        EngineError::Weights(_) => "bad-model",
        EngineError::NonFinite { .. } => "non-finite",
        EngineError::Stopped => "aborted",
        EngineError::NoGpu(_) | EngineError::GpuMemory { .. } | EngineError::GpuLimit { .. } => {
            "webgpu-unavailable"
        }
        _ => "internal",
    };
    throw(code, &error.to_string())
}
