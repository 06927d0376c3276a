//! Steps of training on the CPU, plain and private for each example.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use serde_json::json;
use unsaid_engine::{
    Chance, Device, EngineError, Examples, Model, PrivateSteps, TrainSpec, Training, Unobserved,
};

/// Examples of a batch, or of a lot.
const BATCH: u32 = 64;

/// Lots of the expected size, one after the other, and no noise, which is timed by itself.
struct NoNoise;

impl Chance for NoNoise {
    fn lot(&mut self, step: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        lot.extend((0..BATCH).map(|at| (step * BATCH + at) % examples));
        Ok(())
    }

    fn noise(&mut self, _: u32, noise: &mut [i32]) -> Result<(), EngineError> {
        noise.fill(0);
        Ok(())
    }
}

/// Trains a network of dense layers, 784 numbers to `first` and (where it is not 0) `second` hidden ones to 10 classes, for so many steps.
/// The last loss, or NaN where that failed.
#[unsafe(no_mangle)]
pub extern "C" fn train(first: u32, second: u32, steps: u32, private: bool) -> f64 {
    run([first, second], steps, private).map_or(f64::NAN, f64::from)
}

fn run(hidden: [u32; 2], steps: u32, private: bool) -> Option<f32> {
    let mut layers = Vec::new();
    for units in hidden.into_iter().filter(|units| *units > 0) {
        layers.extend([json!({"type": "dense", "units": units}), json!({"type": "relu"})]);
    }
    layers.push(json!({"type": "dense", "units": 10}));
    let spec = json!({"input": [784], "layers": layers, "loss": "softmax-cross-entropy"});
    let model = Model::new(&serde_json::from_value(spec).ok()?).ok()?;
    let count = BATCH * if private { 8 } else { steps };
    let x = (0..count * 784).map(|i| (i % 251) as f32 / 251.0).collect();
    let examples = Examples::new(x, (0..count).map(|i| i % 10).collect(), 784, 10).ok()?;
    let how: TrainSpec = serde_json::from_value(json!({
        "epochs": 1, "batch_size": BATCH, "shuffle": false, "optimizer": {"type": "sgd", "learning_rate": 0.01},
        "clip_examples_l2": private.then_some(1.0)
    }))
    .ok()?;
    let start = model.initial_parameters(1);
    let training = Training::new(&model, &examples, &how);
    let (mut unobserved, mut chance) = (Unobserved, NoNoise);
    let trained = if private {
        let steps = PrivateSteps {
            steps_per_epoch: steps,
            grid_step: 1e-4,
            bound_squared: 1 << 40,
        };
        at_once(training.run_private(&start, steps, &mut chance, &Device::Cpu, &mut unobserved))
    } else {
        at_once(training.run(&start, &Device::Cpu, &mut unobserved))
    };
    trained?.ok()?.losses.last().copied()
}

/// The result of work that waits for nothing, as all on the CPU.
fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
