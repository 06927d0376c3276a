//! The relay as its clients see it: real HTTP over a real listener.

mod events;
mod faults;
mod harness;
mod kill;
mod rounds;
mod serving;
mod updates;
