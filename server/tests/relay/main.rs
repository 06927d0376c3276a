//! The relay as its clients see it: real HTTP over a real listener.

// Clippy's exception for tests covers test functions, and these are mostly what test functions call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod central;
mod connections;
#[cfg(target_os = "linux")]
mod database;
mod events;
mod faults;
mod harness;
mod identity;
mod kill;
mod load;
#[cfg(target_os = "linux")]
mod mishaps;
mod operating;
#[cfg(target_os = "linux")]
mod postgres;
mod program;
mod rounds;
mod serving;
mod strategies;
mod updates;
#[cfg(target_os = "linux")]
mod wire;
