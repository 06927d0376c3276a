//! `cargo xtask bench native [--json FILE]`: training natively, on the CPU and on the adapter that Vulkan gives.
//!
//! Prints the time of a step of each workload, the speed of the kernels for products of matrices by kind, and what the adapter can
//! do at most: copies and fused multiply-adds. A program by itself: it reads nothing and builds nothing.
#![allow(clippy::print_stdout)]

mod kernels;
mod limits;
mod steps;

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use unsaid_engine::{Device, EngineError, GpuDevice};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = match &arguments[..] {
        [] => None,
        [flag, file] if flag == "--json" => Some(file),
        _ => anyhow::bail!("usage: unsaid-bench-native [--json FILE]"),
    };
    now_ms(); // the clock begins
    let gpu = match pollster::block_on(GpuDevice::request()) {
        Ok(gpu) => Some(gpu),
        Err(error @ EngineError::NoGpu(_)) if std::env::var_os("UNSAID_REQUIRE_GPU").is_none() => {
            println!("no adapter: {error}");
            None
        }
        Err(error) => return Err(error.into()),
    };
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
    report["steps"] = steps::measure(&Device::Cpu, gpu.as_ref())?;
    let seconds = now_ms() / 1e3;
    println!("\n{seconds:.0} s in all");
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

/// Milliseconds since some moment.
fn now_ms() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}
