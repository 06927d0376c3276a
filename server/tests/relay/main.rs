//! The relay as its clients see it: real HTTP over a real listener.

// Clippy's exception for tests covers test functions, and these are mostly what test functions call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connections;
mod events;
mod faults;
mod harness;
mod kill;
mod operating;
mod rounds;
mod serving;
mod strategies;
mod updates;
