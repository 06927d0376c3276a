//! Where a model runs. Both back ends follow the same compiled model; what differs is where the numbers live.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
#[allow(
    dead_code,
    reason = "sources and epilogues wait for the operations that use them"
)]
pub(crate) mod matrix;
pub(crate) mod vector;
