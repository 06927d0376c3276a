//! Fuzzing: a target of `fuzz/` under libFuzzer, with the stable compiler. Its corpus grows in the target folder; the seeds in
//! `fuzz/seeds/` are what is committed, and replayed by `cargo test -p unsaid-fuzz`.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{place::Place, process};

/// What `cargo fuzz` gives the compiler, less the sanitiser (none of the code that is fuzzed is `unsafe`) and less dead code, which
/// one of our dependencies does not compile with.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// The longest input. Every format is read in full from far fewer bytes.
const MAX_BYTES: u32 = 8_192;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The targets; all of them where none is named
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value = "600")]
    seconds: u32,
    /// Put what reaches new code into fuzz/seeds, and nothing else
    #[arg(long)]
    merge: bool,
}

/// Runs each target until its time is over, or it fails.
pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    let host = process::capture(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it compiles for")?;
    let all = targets(place)?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}: {}", all.join(", "));
    }
    let folder = place.target.join("fuzz");
    // With a --target, build scripts and macros are compiled without the flags.
    let mut build = Command::new("cargo");
    build
        .current_dir(&place.root)
        .args(["build", "--profile", "fuzz", "-p", "unsaid-fuzz", "--bins"])
        .args(["--features", "libfuzzer", "--target", host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", COVERAGE);
    process::run(&mut build)?;
    let chosen = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    for name in chosen {
        let (corpus, found) = (folder.join("corpus").join(name), folder.join("found"));
        fs::create_dir_all(&corpus).context("the corpus has no folder")?;
        fs::create_dir_all(&found).context("what is found has no folder")?;
        let seeds = place.root.join("fuzz/seeds").join(name);
        let mut fuzz = Command::new(folder.join(host).join("fuzz").join(name));
        if options.merge {
            fuzz.arg("-merge=1").arg(&seeds).arg(&corpus);
        } else {
            fuzz.arg(&corpus).arg(&seeds);
            fuzz.arg(format!("-max_total_time={}", options.seconds));
        }
        fuzz.arg(format!("-max_len={MAX_BYTES}"))
            .args(["-timeout=60", "-rss_limit_mb=2048"]);
        fuzz.arg(format!("-artifact_prefix={}/{name}-", found.display()));
        process::run(&mut fuzz)
            .with_context(|| format!("{name} failed; its input is in {}", found.display()))?;
    }
    Ok(())
}

/// The programs below `fuzz/targets`.
fn targets(place: &Place) -> Result<Vec<String>> {
    let entries = fs::read_dir(place.root.join("fuzz/targets")).context("there are no targets")?;
    let stem = |entry: fs::DirEntry| Some(entry.path().file_stem()?.to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.flatten().filter_map(stem).collect();
    names.sort();
    Ok(names)
}
