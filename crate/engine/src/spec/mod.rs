//! What a model is and how it is trained, as documents: the JSON of a task's manifest, or built in Rust.

mod model;
mod train;

pub use model::{LayerSpec, LossSpec, ModelSpec, Padding};
pub use train::{OptimizerSpec, ScheduleSpec, TrainSpec};
