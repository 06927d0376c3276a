//! Steps of training: the six workloads, and where their time goes.

use anyhow::Result;
use serde_json::{Value, json};
use unsaid_engine::{Device, GpuDevice, Kernel, Kernels, Model, TrainSpec, Unobserved, time_steps, train};
use unsaid_tests::workloads::{BATCHES, Workload, workloads};

use crate::now_ms;

/// Timed pieces of training, of which the median is told.
const SAMPLES: usize = 15;
/// Milliseconds after the start from which on no more steps are timed.
const STEPS_UNTIL_MS: f64 = 120e3;
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

/// Multiply-adds of a step on one example, forward and backward, as in tests/bench/web/workloads.mjs: the first layer's input needs
/// no gradient.
fn multiply_adds(name: &str) -> usize {
    let dense = |lens: &[usize]| {
        let layers = lens.windows(2).enumerate();
        layers
            .map(|(at, pair)| pair[0] * pair[1] * if at == 0 { 2 } else { 3 })
            .sum()
    };
    match name {
        "logreg" => dense(&[784, 10]),
        "mlp" => dense(&[784, 128, 64, 10]),
        "2nn" => dense(&[784, 200, 200, 10]),
        "scnn" => 2 * 784 * 9 * 8 + 3 * (196 * 72 * 16 + 7840),
        "cnn" => 2 * 784 * 25 * 32 + 3 * (196 * 800 * 64 + 3136 * 512 + 5120),
        "lstm" => 3 * 20 * (96 * 1024 + 256 * 1024 + 256 * 96 + 96 * 2000),
        _ => 0,
    }
}

/// Times everything, prints a table, and returns the same as JSON. `batch` replaces the workloads' own; `peak` is what the CPU's products
/// are a share of, in GFLOP/s.
pub(crate) fn measure(
    cpu: &Device,
    gpu: Option<&GpuDevice>,
    batch: Option<usize>,
    peak: f64,
) -> Result<Value> {
    let golden: Value = serde_json::from_str(include_str!("../../../vectors/v1/losses.json"))?;
    println!(
        "\nms per step: plain descent; with the gradients of examples clipped; Adam; on the CPU GFLOP/s and their share of the gemm \
         crate's; the largest relative error of a loss"
    );
    let mut found = Vec::new();
    for mut workload in workloads() {
        let mut expected: Vec<f64> = serde_json::from_value(golden["losses"][workload.name]["sgd"].clone())?;
        if let Some(batch) = batch {
            workload.batch = batch;
            expected.clear();
        }
        let mut row = |name: String, device: &Device| -> Result<()> {
            if now_ms() > STEPS_UNTIL_MS {
                println!("  {:8} {name:8} left out, for want of time", workload.name);
                return Ok(());
            }
            let (ms, error) = time(&workload, device, &expected)?;
            let rate = 2e-6 * (multiply_adds(workload.name) * workload.batch) as f64 / ms[0];
            let share = matches!(device, Device::Cpu).then_some(rate / peak);
            let part = share.map_or_else(|| "   -".into(), |share| format!("{:3.0} %", 100.0 * share));
            println!(
                "  {:8} {name:8} {:9.3} {:9.3} {:9.3} {rate:9.1} {part}   {error:.1e}",
                workload.name, ms[0], ms[1], ms[2]
            );
            found.push(json!({
                "workload": workload.name, "batch": workload.batch, "device": name, "sgd_ms": ms[0], "clipped_ms": ms[1],
                "adam_ms": ms[2], "gflop_per_s": rate, "share_of_gemm": share, "error": error
            }));
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
        for (name, subgroups) in [("memory", false), ("subgroup", true)] {
            if !gpu.is_software() && gpu.has_subgroups() {
                gpu.use_kernels(Kernels { subgroups, ..chosen });
                row(name.into(), &device)?;
            }
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
