//! The relay of Unsaid: it hands out a task's model, takes clipped and noised updates, sums them exactly, and publishes
//! the next model.
//!
//! [`Relay::open`] starts tasks over a [`store::Store`]; [`app`] is its HTTP side, as a router, and [`serve`](serve()) serves it on a
//! listener that the caller brings. Inside, from the network to the disk:
//!
//! - [`serve`](mod@serve) takes connections, and bounds how many there are and how long they may say nothing;
//! - [`http`] reads requests and writes answers and problem documents; it decides nothing about rounds; [`intake`] reads an update
//!   while it arrives;
//! - [`actor`] is one thread per task, the only one that changes it; it commits before it answers;
//! - [`round`] is the state machine, without a clock or a disk; [`gather`] keeps a round's updates, as an exact sum
//!   ([`aggregate`]) where that is enough, and [`strategy`] makes the next model of them;
//! - [`identity`] says who may take part where a task asks for identities, and what each has spent;
//! - [`lineage`] is what is kept of a published round beside its figures: where its model comes from, and what it cost;
//! - [`simulate`] runs a task here, by the same code, without HTTP;
//! - [`store`] is what survives: a port, with an embedded implementation and one that several relays share.

#![forbid(unsafe_code)]

pub mod actor;
pub mod aggregate;
mod buffers;
pub mod central;
pub mod clock;
pub mod data;
pub mod evaluate;
pub mod exact;
mod fall;
pub mod gather;
pub mod http;
pub mod identity;
pub mod intake;
pub mod key;
pub mod lineage;
pub mod live;
pub mod open_files;
pub mod randomness;
pub mod relay;
pub mod round;
pub mod secret;
pub mod serve;
pub mod simulate;
pub mod snapshot;
pub mod store;
pub mod strategy;
pub mod task_file;
pub mod tls;

pub use http::app;
pub use relay::{Relay, RelayOptions, StartError};
pub use serve::serve;
