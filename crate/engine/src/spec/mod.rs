//! What a model is and how it is trained, as documents: the JSON of a task's manifest, or built in Rust.

mod build;
#[cfg(not(target_arch = "wasm32"))]
mod external;
mod model;
#[cfg(test)]
mod schema;
mod train;

pub use build::ModelBuilder;
#[cfg(not(target_arch = "wasm32"))]
pub use external::ExternalTensor;
pub use model::{LayerSpec, LossSpec, ModelSpec, Padding};
pub use train::{OptimizerSpec, ScheduleSpec, TrainSpec};
