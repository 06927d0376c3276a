//! Test bodies that run on any device: natively on the CPU and on Vulkan, in a browser's worker on the CPU and on WebGPU.
//!
//! Each body is a function of a [`unsaid_engine::Device`] that panics where the property does not hold.
#![allow(clippy::unwrap_used, clippy::panic)] // these are tests

mod hostile;
pub mod layers;
mod private;
pub mod reference;
mod training;
pub mod workloads;

pub use hostile::{
    a_gradient_that_is_no_number_is_never_taken_for_short,
    an_example_above_its_bound_adds_nothing_whatever_its_layers,
    an_example_adds_the_same_in_every_place_and_every_company,
    whatever_the_weights_an_example_adds_the_same_and_no_more_than_its_bound,
};
pub use layers::{
    a_tied_table_learns_from_both_of_its_layers, every_layer_agrees_with_the_cpu,
    every_layer_clips_like_the_cpu,
};
pub use private::*;
pub use training::*;

/// Numbers that look random but are the same everywhere, in [−1, 1).
pub fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
