//! The client session, driven without a browser: what it sends and when, what it pays, and what it does about every fault.
//!
//! The engine, the privacy mechanisms and the protocol are the real ones; relay, store, clock and listener are `world`'s.

// Clippy's exception for tests covers test functions, and these are mostly what test functions call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod bytes;
mod control;
mod example;
mod local;
mod order;
mod relay;
mod stopping;
mod upload;
mod waiting;
mod world;

use std::rc::Rc;

use pollster::block_on;
use unsaid::{ClientError, SessionEvent, abort::Abort, events::State, session::RunSummary};
use unsaid_privacy::Cost;
use unsaid_protocol::Manifest;

use crate::world::{World, task};

fn run(world: &Rc<World>, rounds: u32) -> Result<RunSummary, ClientError> {
    block_on(world.session().run(Some(rounds), &Abort::default()))
}

fn run_until(world: &Rc<World>, abort: &Abort) -> Result<RunSummary, ClientError> {
    block_on(world.session().run(None, abort))
}

fn cost(manifest: &Manifest) -> Cost {
    task(manifest).round_cost().unwrap()
}

/// Whether the session says that it does `what` from now on.
fn is(event: &SessionEvent, what: State) -> bool {
    matches!(event, SessionEvent::State { state, .. } if *state == what)
}

/// That nothing was paid, kept or sent.
fn assert_untouched(world: &World) {
    assert_eq!(world.sent(), []);
    assert_eq!(world.paid(), 0);
    assert_eq!(*world.store.pending.borrow(), None);
}
