//! Every check and every test, stage by stage.

mod api;
mod browser;
mod package;
mod report;
mod runner;
mod rust;
mod shaders;

use std::{thread, time::Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::place::Place;
use runner::Runner;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only these groups
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// Stop at the first stage that fails
    #[arg(long)]
    fail_fast: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// fmt, clippy, licences
    Lint,
    /// rustdoc
    Docs,
    /// Rust tests and doc tests, .wgsl validation
    Native,
    /// The relay against its own description of its API
    Api,
    /// TypeScript: types, tests, API report
    Ts,
    /// wasm-pack tests in headless Chromium
    Browser,
    /// The relay with real tabs
    E2e,
}

impl Group {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// Runs every stage of the groups asked for; an error where any failed.
pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut runner = Runner::new(place, options);
    rust::lint(&mut runner);
    rust::docs(&mut runner);
    rust::native(&mut runner);
    thread::scope(|scope| {
        let api = api::begin(&runner, scope);
        let built = package::build(&mut runner);
        // Afterwards the page's own time is measured.
        runner.end(api);
        if let Some(built) = built {
            package::stages(&mut runner, &built);
        }
    });
    browser::stages(&mut runner);
    let failed = report::print(&runner.records, start.elapsed().as_secs_f64());
    if failed {
        // The report has said everything; another line would hide its last one.
        std::process::exit(1);
    }
    Ok(())
}
