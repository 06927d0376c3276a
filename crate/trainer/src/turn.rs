//! Time in a worker, and giving it away.

use js_sys::Promise;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

/// Milliseconds since the worker began.
pub(crate) fn now_ms() -> f64 {
    js_sys::global()
        .dyn_into::<web_sys::WorkerGlobalScope>()
        .ok()
        .and_then(|scope| scope.performance())
        .map_or_else(js_sys::Date::now, |performance| performance.now())
}

/// One turn of the event loop, in which messages arrive: through a message channel, since a timer of 0 ms would wait for 4.
pub(crate) async fn give_way() {
    let turn = Promise::new(&mut |resolve, _| {
        let Ok(channel) = web_sys::MessageChannel::new() else {
            let _ = resolve.call0(&JsValue::NULL);
            return;
        };
        let port = channel.port1();
        let closing = port.clone();
        let heard = Closure::once_into_js(move || {
            closing.close();
            let _ = resolve.call0(&JsValue::NULL);
        });
        port.set_onmessage(Some(heard.unchecked_ref()));
        let _ = channel.port2().post_message(&JsValue::NULL);
    });
    let _ = JsFuture::from(turn).await;
}
