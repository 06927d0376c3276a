//! `cargo xtask bench native [--json FILE] [--cpu] [--threads N] [--batch N]`: training natively, on the CPU and, without `--cpu`, on
//! the adapter that Vulkan gives.
//!
//! Prints the time of a step of each workload, on the CPU also as a share of what the `gemm` crate reaches on a large product, and that
//! of a step that is private for each example; the speed of the GPU's kernels for products of matrices by kind; and what the adapter
//! can do at most: copies and fused multiply-adds. `--batch` replaces the workloads' own batches, and with them the golden losses. A
//! program by itself: it reads nothing and builds nothing.
#![allow(clippy::print_stdout)]

mod kernels;
mod limits;
mod peak;
mod private;
mod steps;

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use unsaid_engine::{Device, EngineError, GpuDevice, crew};

fn main() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    now_ms(); // the clock begins
    let gpu = if options.cpu { None } else { gpu()? };
    let mut report = json!({});
    if let Some(gpu) = &gpu {
        let limits = pollster::block_on(limits::measure(gpu.is_software()))?;
        println!(
            "adapter: {} ({}){}",
            limits.adapter,
            limits.driver,
            if gpu.is_software() {
                ", emulated on the CPU"
            } else {
                ""
            }
        );
        println!(
            "copies {:.0} GB/s, fused multiply-adds {:.0} GFLOP/s",
            limits.copy_gb_per_s, limits.gflop_per_s
        );
        report["adapter"] = json!({
            "name": limits.adapter, "driver": limits.driver, "software": gpu.is_software(),
            "copy_gb_per_s": limits.copy_gb_per_s, "gflop_per_s": limits.gflop_per_s
        });
        report["kernels"] = kernels::measure(gpu)?;
    }
    let threads = crew::start(options.threads);
    let peak = peak::measure(threads);
    println!("\nthe gemm crate on a large product, {threads} thread(s): {peak:.0} GFLOP/s");
    report["cpu"] = json!({"threads": threads, "gemm_gflop_per_s": peak});
    report["steps"] = steps::measure(&Device::Cpu, gpu.as_ref(), options.batch, peak)?;
    report["private"] = private::measure(options.batch)?;
    let seconds = now_ms() / 1e3;
    println!("\n{seconds:.0} s in all");
    if let Some(file) = options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

/// What was asked for.
struct Options {
    json: Option<String>,
    cpu: bool,
    threads: usize,
    batch: Option<usize>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            json: None,
            cpu: false,
            threads: 1,
            batch: None,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--json" => options.json = Some(value()?),
                "--cpu" => options.cpu = true,
                "--threads" => options.threads = value()?.parse()?,
                "--batch" => options.batch = Some(value()?.parse()?),
                _ => anyhow::bail!(
                    "usage: unsaid-bench-native [--json FILE] [--cpu] [--threads N] [--batch N]"
                ),
            }
        }
        anyhow::ensure!(options.batch != Some(0), "a batch has at least one example");
        Ok(options)
    }
}

fn gpu() -> Result<Option<GpuDevice>> {
    match pollster::block_on(GpuDevice::request()) {
        Ok(gpu) => Ok(Some(gpu)),
        Err(error @ EngineError::NoGpu(_)) if std::env::var_os("UNSAID_REQUIRE_GPU").is_none() => {
            println!("no adapter: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Milliseconds since some moment.
fn now_ms() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}
