//! Time in a worker.

use gloo_timers::future::TimeoutFuture;
use js_sys::Promise;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

use crate::ports::Clock;

/// The worker's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerClock;

/// The global object, where it is a worker's.
fn performance() -> Option<web_sys::Performance> {
    js_sys::global()
        .dyn_into::<web_sys::WorkerGlobalScope>()
        .ok()?
        .performance()
}

impl Clock for WorkerClock {
    fn now_ms(&self) -> f64 {
        performance().map_or_else(js_sys::Date::now, |performance| performance.now())
    }

    fn unix_ms(&self) -> u64 {
        js_sys::Date::now() as u64
    }

    async fn sleep(&self, ms: u64) {
        TimeoutFuture::new(u32::try_from(ms).unwrap_or(u32::MAX)).await;
    }

    /// One turn of the event loop, through a message channel: a timer of 0 ms would wait for 4.
    async fn give_way(&self) {
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
}
