//! Benchmarks. They print measurements; nothing fails on time.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::{browser, npm, place::Place, process, wasm};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Training in a worker of headless Chromium
    Web,
    /// Training natively, on the CPU and on the adapter that Vulkan gives
    Native,
}

/// Builds what is measured, and measures it.
pub(crate) fn run(place: &Place, what: What, arguments: &[String]) -> Result<()> {
    match what {
        What::Web => web(place, arguments),
        What::Native => native(place, arguments),
    }
}

fn native(place: &Place, arguments: &[String]) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .current_dir(&place.root)
        .args(["run", "--release", "--quiet", "-p", "unsaid-bench-native", "--"]);
    process::run(command.args(arguments))
}

fn web(place: &Place, arguments: &[String]) -> Result<()> {
    let packages = npm::packages(place)?;
    wasm::build(place, &packages)?;
    let mut command = Command::new("node");
    command.current_dir(&place.root).arg("tests/bench/web/run.mjs");
    command.env("UNSAID_CHROMIUM", browser::find_or_install()?.chromium);
    process::run(command.args(arguments))
}
