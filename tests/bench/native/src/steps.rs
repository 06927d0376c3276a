//! Steps of training: the six workloads, and where their time goes.

use anyhow::Result;
use serde_json::{Value, json};
use unsaid_engine::{Device, GpuDevice, Kernel, Kernels, Model, TrainSpec, Unobserved, time_steps, train};
use unsaid_tests::workloads::{BATCHES, Workload, workloads};

use crate::now_ms;

/// Timed pieces of training, of which the median is told.
const SAMPLES: usize = 15;
/// Milliseconds after the start from which on no more steps are timed.
const STEPS_UNTIL_MS: f64 = 80e3;
/// Steps of the golden losses.
const STEPS: usize = 20;

fn training(workload: &Workload, more: Value) -> Result<TrainSpec> {
    let mut how = json!({
        "epochs": STEPS.div_ceil(BATCHES), "batch_size": workload.batch, "shuffle": false,
        "optimizer": {"type": "sgd", "learning_rate": workload.rate}
    });
    if let (Some(how), Value::Object(more)) = (how.as_object_mut(), more) {
        how.extend(more);
    }
    Ok(serde_json::from_value(how)?)
}

/// Times everything, prints a table, and returns the same as JSON.
pub(crate) fn measure(cpu: &Device, gpu: Option<&GpuDevice>) -> Result<Value> {
    let golden: Value = serde_json::from_str(include_str!("../../../vectors/v1/losses.json"))?;
    println!(
        "\nms per step: plain descent; with the gradients of examples clipped; Adam; the largest relative error of a loss"
    );
    let mut found = Vec::new();
    for workload in workloads() {
        let expected: Vec<f64> = serde_json::from_value(golden["losses"][workload.name]["sgd"].clone())?;
        let mut row = |name: String, device: &Device| -> Result<()> {
            if now_ms() > STEPS_UNTIL_MS {
                println!("  {:8} {name:8} left out, for want of time", workload.name);
                return Ok(());
            }
            let (ms, error) = time(&workload, device, &expected)?;
            println!(
                "  {:8} {name:8} {:9.3} {:9.3} {:9.3}   {error:.1e}",
                workload.name, ms[0], ms[1], ms[2]
            );
            found.push(json!({"workload": workload.name, "device": name, "sgd_ms": ms[0], "clipped_ms": ms[1], "adam_ms": ms[2], "error": error}));
            Ok(())
        };
        row("cpu".into(), cpu)?;
        let Some(gpu) = gpu else { continue };
        let device = Device::Gpu(gpu.clone());
        let chosen = gpu.kernels();
        row("gpu".into(), &device)?;
        if !gpu.is_software() {
            ops(&workload, gpu)?;
        }
        for kernel in Kernel::ALL.into_iter().filter(|_| !gpu.is_software()) {
            gpu.use_kernels(Kernels::all(kernel));
            row(kernel.name().into(), &device)?;
        }
        gpu.use_kernels(chosen);
    }
    Ok(found.into())
}

/// Prints where the time of a step goes: for each operation forward, gradient of the input, gradient of the parameters.
fn ops(workload: &Workload, gpu: &GpuDevice) -> Result<()> {
    let model = Model::new(&serde_json::from_value(workload.model.clone())?)?;
    let times = pollster::block_on(gpu.time_ops(&model, workload.batch, gpu.kernels(), now_ms))?;
    let us = |ms: f64| format!("{:.0}", 1e3 * ms);
    let row = |op: &unsaid_engine::OpTime| {
        let parts = [op.forward_ms, op.input_gradient_ms, op.parameter_gradient_ms];
        parts.map(us).join("+")
    };
    let row: Vec<_> = times.iter().map(row).collect();
    println!("           µs by operation: {}", row.join(", "));
    Ok(())
}

/// Milliseconds per step for each way of training, and the largest relative error of the first losses.
fn time(workload: &Workload, device: &Device, expected: &[f64]) -> Result<([f64; 3], f64)> {
    let model = Model::new(&serde_json::from_value(workload.model.clone())?)?;
    let (start, examples) = (workload.weights(&model), workload.examples());
    if matches!(device, Device::Gpu(_)) {
        // A GPU that was idle while the CPU was measured takes a while to run at full speed.
        let how = training(workload, json!({}))?;
        pollster::block_on(time_steps(
            &model, &start, &examples, &how, device, SAMPLES, now_ms,
        ))?;
    }
    let mut ms = [0.0; 3];
    let adam = json!({"optimizer": {"type": "adam", "learning_rate": 0.001}});
    for (ms, more) in ms
        .iter_mut()
        .zip([json!({}), json!({"clip_examples_l2": 1.0}), adam])
    {
        let how = training(workload, more)?;
        let timed = time_steps(&model, &start, &examples, &how, device, SAMPLES, now_ms);
        *ms = pollster::block_on(timed)?;
    }
    let how = training(workload, json!({}))?;
    let mut unobserved = Unobserved;
    let trained = train(&model, &start, &examples, &how, 0, device, &mut unobserved);
    let losses = pollster::block_on(trained)?.losses;
    let error = losses
        .iter()
        .zip(expected)
        .map(|(&found, &expected)| (f64::from(found) - expected).abs() / expected)
        .fold(0.0, f64::max);
    Ok((ms, error))
}
