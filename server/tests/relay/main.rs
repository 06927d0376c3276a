//! The relay as its clients see it: real HTTP over a real listener.

// Clippy's exception for tests covers test functions, and these are mostly what test functions call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod added;
mod central;
mod commands;
mod connections;
#[cfg(target_os = "linux")]
mod database;
#[cfg(target_os = "linux")]
mod disk;
mod document;
mod events;
mod faults;
mod forwarded;
mod harness;
mod identity;
mod kill;
mod kill_large;
mod kill_rules;
#[cfg(target_os = "linux")]
mod lanes;
mod lineage;
mod load;
mod log;
#[cfg(target_os = "linux")]
mod mishaps;
mod operating;
#[cfg(target_os = "linux")]
mod postgres;
mod program;
#[cfg(target_os = "linux")]
mod replicas;
mod rounds;
mod selection;
mod serving;
#[cfg(target_os = "linux")]
mod stalls;
mod starting;
mod strategies;
mod tls;
mod updates;
mod uploads;
#[cfg(target_os = "linux")]
mod wire;
