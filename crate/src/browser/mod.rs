//! The browser's side of the ports, and the surface that JavaScript sees. The only place that names `wasm-bindgen` and its family.

mod bindings;
mod clock;
mod events;
mod locks;
mod relay;
mod seal;
mod store;
mod trials;
mod views;

pub use bindings::{Session, panic_for_test};

use unsaid_engine::{EngineError, GpuDevice};

use crate::{
    ports::{Ports, StepTimes},
    task::Task,
};

/// The ports of a session in a browser's worker.
#[derive(Debug)]
pub(crate) struct BrowserPorts {
    relay: relay::HttpRelay,
    store: store::IndexedDb,
    clock: clock::WorkerClock,
    listener: events::Callback,
    trials: trials::Trials,
}

impl Ports for BrowserPorts {
    type Relay = relay::HttpRelay;
    type Store = store::IndexedDb;
    type Clock = clock::WorkerClock;
    type Listener = events::Callback;

    fn relay(&self) -> &Self::Relay {
        &self.relay
    }

    fn store(&self) -> &Self::Store {
        &self.store
    }

    fn clock(&self) -> &Self::Clock {
        &self.clock
    }

    fn listener(&self) -> &Self::Listener {
        &self.listener
    }

    async fn gpu(&self) -> Result<GpuDevice, EngineError> {
        GpuDevice::request().await
    }

    async fn recall_trial(&self, task: &Task, adapter: &str) -> Option<StepTimes> {
        trials::recall(&self.trials, &task.hash.to_string(), adapter).await
    }

    async fn keep_trial(&self, task: &Task, adapter: &str, times: StepTimes) {
        trials::keep(&self.trials, &task.hash.to_string(), adapter, times).await;
    }
}

/// What JavaScript threw, as text.
pub(crate) fn describe(value: &wasm_bindgen::JsValue) -> String {
    use wasm_bindgen::JsCast;
    match value.dyn_ref::<js_sys::Error>() {
        Some(error) => format!(
            "{}: {}",
            String::from(error.name()),
            String::from(error.message())
        ),
        None => value
            .as_string()
            .unwrap_or_else(|| "something that is no Error was thrown".into()),
    }
}
