//! The browser client of Unsaid: it fetches a task's terms and model, trains on data that stays in the browser, clips the change,
//! adds differential-privacy noise on the device, pays for it from the person's own budget, and posts it to a relay.
//!
//! The session ([`session`]) is plain Rust over [`ports`]; `browser/` (in the wasm build) provides those from IndexedDB, fetch,
//! server-sent events and Web Locks, and is the only place that names `wasm-bindgen` and its family. JavaScript talks to this
//! crate through the worker in `worker/`, people through the npm package in `pkg/`.

pub mod abort;
pub mod backend;
#[cfg(all(target_arch = "wasm32", feature = "browser"))]
pub mod browser;
mod error;
pub mod events;
pub mod exposure;
pub mod feed;
mod lots;
pub mod ports;
pub mod protect;
pub mod random;
pub mod session;
pub mod task;

pub use error::ClientError;
pub use events::SessionEvent;
pub use session::Session;
