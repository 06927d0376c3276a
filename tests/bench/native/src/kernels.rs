//! The kernels for products of matrices, by kind and shape.

use anyhow::Result;
use serde_json::{Value, json};
use unsaid_engine::{GpuDevice, Kernel, Kernels, Model};

use crate::now_ms;

/// Milliseconds after the start from which on no more kernels are timed.
const KERNELS_UNTIL_MS: f64 = 40e3;

/// A layer, its input, the rows of a batch, and the multiply-adds of one row.
fn shapes(software: bool) -> Vec<(&'static str, Value, Value, usize, usize)> {
    let dense = |units: usize| json!({"type": "dense", "units": units});
    let conv = |size: usize, filters: usize| json!({"type": "conv2d", "filters": filters, "kernel": [size, size], "padding": "same"});
    let mut shapes = vec![
        ("dense 64 × 784 → 10", json!([784]), dense(10), 64, 784 * 10),
        ("dense 64 × 784 → 128", json!([784]), dense(128), 64, 784 * 128),
        ("dense 32 × 3136 → 512", json!([3136]), dense(512), 32, 3136 * 512),
        (
            "conv 32 × 28² · 1, 5² → 32",
            json!([28, 28, 1]),
            conv(5, 32),
            32,
            784 * 25 * 32,
        ),
        (
            "conv 32 × 14² · 32, 5² → 64",
            json!([14, 14, 32]),
            conv(5, 64),
            32,
            196 * 800 * 64,
        ),
    ];
    if !software {
        shapes.extend([
            (
                "dense 256 × 1024 → 1024",
                json!([1024]),
                dense(1024),
                256,
                1024 * 1024,
            ),
            (
                "dense 1024 × 1024 → 1024",
                json!([1024]),
                dense(1024),
                1024,
                1024 * 1024,
            ),
            (
                "dense 4096 × 4096 → 4096",
                json!([4096]),
                dense(4096),
                4096,
                4096 * 4096,
            ),
            (
                "conv 32 × 28² · 64, 3² → 64",
                json!([28, 28, 64]),
                conv(3, 64),
                32,
                784 * 576 * 64,
            ),
        ]);
    }
    shapes
}

/// Times everything, prints a table, and returns the same as JSON.
pub(crate) fn measure(gpu: &GpuDevice) -> Result<Value> {
    let times = pollster::block_on(gpu.choose_kernels(&now_ms))?;
    for time in &times {
        println!("  {:?} {}: {:.4} ms", time.work, time.kernel.name(), time.ms);
    }
    println!("chosen: {:?}", gpu.kernels());
    println!("\nGFLOP/s: forward, gradient of the input, of the kernel");
    let mut found = Vec::new();
    for (name, input, layer, rows, macs) in shapes(gpu.is_software()) {
        let spec = json!({"input": input, "layers": [layer], "loss": "mean-squared-error"});
        let model = Model::new(&serde_json::from_value(spec)?)?;
        // On a software adapter the others take seconds, and are not what they are for.
        for kernel in Kernel::ALL
            .into_iter()
            .filter(|kernel| !gpu.is_software() || *kernel == Kernel::Direct)
        {
            if now_ms() > KERNELS_UNTIL_MS {
                println!("  {name}: left out, for want of time");
                continue;
            }
            let ops = gpu.time_ops(&model, rows, Kernels::all(kernel), now_ms);
            let op = pollster::block_on(ops)?[0];
            let flops = 2.0 * (rows * macs) as f64;
            let parts = [op.forward_ms, op.input_gradient_ms, op.parameter_gradient_ms];
            let speeds = parts.map(|ms| flops / ms / 1e6);
            println!(
                "  {name:28} {:8} {:9.1} {:9.1} {:9.1}   ms {:.4} {:.4} {:.4}",
                kernel.name(),
                speeds[0],
                speeds[1],
                speeds[2],
                parts[0],
                parts[1],
                parts[2]
            );
            found.push(json!({"shape": name, "kernel": kernel.name(), "ms": parts, "gflop_per_s": speeds}));
        }
    }
    let chosen: Vec<_> = times
        .iter()
        .map(|t| json!({"work": format!("{:?}", t.work), "kernel": t.kernel.name(), "ms": t.ms}))
        .collect();
    Ok(json!({"chosen": format!("{:?}", gpu.kernels()), "choice": chosen, "speeds": found}))
}
