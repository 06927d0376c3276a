//! Steps of training that is private for each example, beside plain ones, on the CPU.

use anyhow::Result;
use serde_json::{Value, json};
use unsaid_engine::{Chance, Device, EngineError, Model, PrivateSteps, TrainSpec, Training, Unobserved};
use unsaid_tests::workloads::{Workload, workloads};

use crate::now_ms;

/// Steps that are timed, beyond the first.
const STEPS: u32 = 8;
/// How often, of which the fastest counts.
const ROUNDS: usize = 3;

/// Lots of the expected size, one after the other, and no noise: what the engine itself takes. The noise is timed by
/// tests/bench/privacy.
struct NoNoise {
    lot: u32,
}

impl Chance for NoNoise {
    fn lot(&mut self, step: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        lot.extend((0..self.lot).map(|at| (step * self.lot + at) % examples));
        Ok(())
    }

    fn noise(&mut self, _: u32, noise: &mut [i32]) -> Result<(), EngineError> {
        noise.fill(0);
        Ok(())
    }
}

/// Prints the milliseconds of a private step of each workload, and returns the same as JSON.
pub(crate) fn measure(batch: Option<usize>) -> Result<Value> {
    println!("\nms per step on the CPU, private for each example, without the noise's own time");
    let mut found = Vec::new();
    for mut workload in workloads() {
        workload.batch = batch.unwrap_or(workload.batch);
        let ms = step_ms(&workload)?;
        println!("  {:8} {ms:9.3}", workload.name);
        found.push(json!({"workload": workload.name, "batch": workload.batch, "private_ms": ms}));
    }
    Ok(found.into())
}

fn step_ms(workload: &Workload) -> Result<f64> {
    let model = Model::new(&serde_json::from_value(workload.model.clone())?)?;
    let (start, examples) = (workload.weights(&model), workload.examples());
    let how: TrainSpec = serde_json::from_value(json!({
        "epochs": 1, "batch_size": workload.batch, "clip_examples_l2": 1.0,
        "optimizer": {"type": "sgd", "learning_rate": workload.rate}
    }))?;
    let mut chance = NoNoise {
        lot: u32::try_from(workload.batch)?,
    };
    let mut time = |steps_per_epoch| -> Result<f64> {
        let steps = PrivateSteps {
            steps_per_epoch,
            grid_step: 1e-4,
            bound_squared: 1 << 40,
        };
        let training = Training::new(&model, &examples, &how);
        let (begin, mut unobserved) = (now_ms(), Unobserved);
        let run = training.run_private(&start, steps, &mut chance, &Device::Cpu, &mut unobserved);
        pollster::block_on(run)?;
        Ok(now_ms() - begin)
    };
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (best, steps) in best.iter_mut().zip([1, 1 + STEPS]) {
            *best = best.min(time(steps)?);
        }
    }
    Ok((best[1] - best[0]) / f64::from(STEPS))
}
