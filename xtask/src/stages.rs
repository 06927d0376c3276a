//! Every check and every test, stage by stage.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    apt::on_path,
    artifacts, browser, licences, mnist, npm,
    place::Place,
    process::{self, describe},
    runner_output::{Counts, counts},
    tools, wasm_target,
};

/// Lines of a failed stage that are repeated at the very end.
const TAIL: usize = 40;
/// wasm-bindgen's runner gives up after 20 s by default; the tests train.
const BROWSER_TEST_SECONDS: &str = "900";

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

enum Verdict {
    /// Test counts, where it runs tests; otherwise it is one check.
    Passed(Option<Counts>),
    Failed {
        counts: Counts,
        command: String,
        tail: Vec<String>,
    },
    /// With the reason.
    Skipped(String),
}

struct Record {
    group: Group,
    name: &'static str,
    verdict: Verdict,
    seconds: f64,
}

struct Runner<'a> {
    place: &'a Place,
    options: &'a Options,
    records: Vec<Record>,
}

/// Runs every stage of the groups asked for; an error where any failed.
pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut runner = Runner {
        place,
        options,
        records: Vec::new(),
    };
    runner.lint();
    runner.docs();
    runner.native();
    runner.with_artifacts();
    runner.browser();
    let failed = runner.report(start.elapsed().as_secs_f64());
    if failed {
        // The report has said everything; another line would hide its last one.
        std::process::exit(1);
    }
    Ok(())
}

impl Runner<'_> {
    fn wants(&self, group: Group) -> bool {
        let stopped = self.options.fail_fast
            && self
                .records
                .iter()
                .any(|record| matches!(record.verdict, Verdict::Failed { .. }));
        !stopped && (self.options.only.is_empty() || self.options.only.contains(&group))
    }

    /// Runs one stage.
    fn stage(
        &mut self,
        group: Group,
        name: &'static str,
        action: impl FnOnce(&Place) -> Result<Verdict>,
    ) -> bool {
        if !self.wants(group) {
            return false;
        }
        println!("\n==> {name}");
        let start = Instant::now();
        let verdict = action(self.place).unwrap_or_else(|error| Verdict::Failed {
            counts: Counts::default(),
            command: String::new(),
            tail: format!("{error:#}").lines().map(str::to_owned).collect(),
        });
        let seconds = start.elapsed().as_secs_f64();
        let word = match &verdict {
            Verdict::Passed(_) => "passed".to_owned(),
            Verdict::Failed { tail, .. } => format!("FAILED: {}", tail.last().map_or("", String::as_str)),
            Verdict::Skipped(reason) => format!("skipped: {reason}"),
        };
        println!("==> {name}: {word} ({seconds:.1} s)");
        let passed = !matches!(verdict, Verdict::Failed { .. });
        self.records.push(Record {
            group,
            name,
            verdict,
            seconds,
        });
        passed
    }

    fn lint(&mut self) {
        self.stage(Group::Lint, "fmt", |place| {
            check(cargo(place, &["fmt", "--all", "--check"]))
        });
        self.stage(Group::Lint, "clippy", |place| {
            let words = [
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-Dwarnings",
            ];
            check(cargo(place, &words))
        });
        self.stage(Group::Lint, "clippy for wasm", |place| {
            let toolchain = wasm_target::find_or_install(place)?;
            if !toolchain.has_clippy(place) {
                return Ok(Verdict::Skipped(
                    "the toolchain with the wasm target has no clippy".into(),
                ));
            }
            let mut command = Command::new("cargo");
            command.args(["clippy", "--quiet", "-p", "unsaid", "--lib", "--locked"]);
            command.args(["--target", "wasm32-unknown-unknown", "--", "-Dwarnings"]);
            toolchain.set(place, &mut command);
            check(command)
        });
        self.stage(Group::Lint, "licences", |place| {
            licences::check(place).map(|()| Verdict::Passed(None))
        });
        self.stage(Group::Lint, "cargo deny", |place| {
            if on_path("cargo-deny").is_none() {
                let reason = "cargo-deny not found: licences were checked, advisories were not";
                return Ok(Verdict::Skipped(reason.into()));
            }
            check(cargo(place, &["deny", "--all-features", "check"]))
        });
    }

    fn docs(&mut self) {
        self.stage(Group::Docs, "rustdoc", |place| {
            let mut command = cargo(place, &["doc", "--quiet", "--workspace", "--no-deps", "--locked"]);
            command.env("RUSTDOCFLAGS", "-Dwarnings");
            check(command)
        });
    }

    fn native(&mut self) {
        self.stage(Group::Native, "Rust tests", |place| {
            if on_path("cargo-nextest").is_some() {
                tests(cargo(
                    place,
                    &[
                        "nextest",
                        "run",
                        "--workspace",
                        "--locked",
                        "--failure-output=immediate-final",
                        "--no-fail-fast",
                    ],
                ))
            } else {
                let words = [
                    "test",
                    "--workspace",
                    "--lib",
                    "--bins",
                    "--tests",
                    "--locked",
                    "--no-fail-fast",
                ];
                tests(cargo(place, &words))
            }
        });
        self.stage(Group::Native, "doc tests", |place| {
            tests(cargo(
                place,
                &["test", "--workspace", "--doc", "--locked", "--no-fail-fast"],
            ))
        });
        self.stage(Group::Native, ".wgsl", wgsl);
    }

    /// What needs the built package: its own tests, and the end-to-end tests.
    fn with_artifacts(&mut self) {
        if !self.wants(Group::Ts) && !self.wants(Group::E2e) {
            return;
        }
        let group = if self.wants(Group::Ts) {
            Group::Ts
        } else {
            Group::E2e
        };
        let built = self.stage(group, "build", |place| {
            artifacts::all(place).map(|_| Verdict::Passed(None))
        });
        if !built {
            return;
        }
        self.stage(group, "wasm size", |place| {
            artifacts::check_wasm_size(place).map(|()| Verdict::Passed(None))
        });
        self.stage(Group::Ts, "TypeScript", |place| {
            check(npm(place, &["run", "check", "--workspaces", "--if-present"]))
        });
        self.stage(Group::Ts, "npm tests", |place| {
            tests(npm(place, &["test", "-w", "pkg", "-w", "web"]))
        });
        self.stage(Group::Ts, "API report", |place| {
            check(npm(place, &["run", "api:check", "-w", "pkg"]))
        });
        self.stage(Group::E2e, "end to end", |place| {
            let built = artifacts::all(place)?;
            let data = mnist::shards(place, &built.packages, &built.relay)?;
            let mut command = Command::new("node");
            command.current_dir(&place.root).arg("tests/e2e/run.mjs");
            command.env("UNSAID_RELAY", &built.relay);
            command.env("UNSAID_DATA", data).env("UNSAID_PAGE", &built.page);
            command.env("UNSAID_CHROMIUM", browser::find_or_install()?.chromium);
            tests(command)
        });
    }

    fn browser(&mut self) {
        self.stage(Group::Browser, "wasm tests in Chromium", |place| {
            let toolchain = wasm_target::find_or_install(place)?;
            let bindgen = tools::wasm_bindgen(place)?;
            let wasm_pack = tools::wasm_pack(place)?.join("wasm-pack");
            let browser = browser::find_or_install()?;
            let capabilities = capabilities(place, &browser.chromium)?;
            let path = env::var_os("PATH").unwrap_or_default();
            let path = env::join_paths([bindgen].into_iter().chain(env::split_paths(&path)))?;
            let mut all = Counts::default();
            for (package, test) in browser_tests(place)? {
                let mut command = Command::new(&wasm_pack);
                command.args(["test", "--headless", "--chrome", "--chromedriver"]);
                command.arg(&browser.chromedriver).arg(place.root.join(package));
                command.args(["--locked", "--test", &test]);
                toolchain.set(place, &mut command);
                command.env("PATH", &path);
                command.env("WASM_BINDGEN_TEST_WEBDRIVER_JSON", &capabilities);
                command.env("WASM_BINDGEN_TEST_TIMEOUT", BROWSER_TEST_SECONDS);
                match tests(command)? {
                    Verdict::Passed(Some(found)) => all += found,
                    other => return Ok(other),
                }
            }
            Ok(Verdict::Passed(Some(all)))
        });
    }

    /// Prints the summary; the last line is the counts.
    fn report(&self, seconds: f64) -> bool {
        let mut total = Counts::default();
        println!(
            "\n{:<24} {:<8} {:>7} {:>8}",
            "stage", "result", "tests", "seconds"
        );
        for record in &self.records {
            let (word, tests, counted) = match &record.verdict {
                Verdict::Passed(Some(counts)) => ("passed", counts.passed.to_string(), *counts),
                Verdict::Passed(None) => ("passed", String::new(), one(true)),
                Verdict::Failed { counts, .. } => {
                    let mut counts = *counts;
                    counts.failed = counts.failed.max(1);
                    ("FAILED", format!("{} bad", counts.failed), counts)
                }
                Verdict::Skipped(_) => ("skipped", String::new(), Counts::default()),
            };
            total += counted;
            println!("{:<24} {word:<8} {tests:>7} {:>8.1}", record.name, record.seconds);
        }
        println!("{:<24} {:<8} {:>7} {seconds:>8.1}", "all", "", "");
        for record in &self.records {
            if let Verdict::Skipped(reason) = &record.verdict {
                println!("skipped: {}: {reason}", record.name);
            }
        }
        let mut failed = false;
        for record in &self.records {
            if let Verdict::Failed { command, tail, .. } = &record.verdict {
                failed = true;
                println!("\n{} failed. Its last lines:", record.name);
                for line in tail.iter().skip(tail.len().saturating_sub(TAIL)) {
                    println!("  | {line}");
                }
                println!("again: cargo xtask test --only {}", record.group.name());
                if !command.is_empty() {
                    println!("   or: {command}");
                }
            }
        }
        let skipped = if total.skipped > 0 {
            format!(", {} skipped", total.skipped)
        } else {
            String::new()
        };
        println!("\n{} passed, {} failed{skipped}", total.passed, total.failed);
        failed
    }
}

fn one(passed: bool) -> Counts {
    Counts {
        passed: passed.into(),
        failed: (!passed).into(),
        skipped: 0,
    }
}

fn cargo(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(words).current_dir(&place.root);
    command.env("CARGO_TERM_PROGRESS_WHEN", "never");
    // A failure's message would drown in the frames of its runtime.
    command.env("RUST_BACKTRACE", "0");
    command
}

fn npm(place: &Place, words: &[&str]) -> Command {
    let mut command = npm::npm(place);
    command.args(words);
    command
}

/// A stage that is one check.
fn check(mut command: Command) -> Result<Verdict> {
    let finished = process::tee(&mut command)?;
    Ok(if finished.success {
        Verdict::Passed(None)
    } else {
        Verdict::Failed {
            counts: one(false),
            command: describe(&command),
            tail: finished.lines,
        }
    })
}

/// A stage that runs tests; one that ran none has failed.
fn tests(mut command: Command) -> Result<Verdict> {
    let mut finished = process::tee(&mut command)?;
    let counts = counts(finished.lines.iter().map(String::as_str));
    if finished.success && counts.failed == 0 && counts.passed > 0 {
        return Ok(Verdict::Passed(Some(counts)));
    }
    if finished.success {
        finished
            .lines
            .push("the runner ended well, but its output names no passed test, or a failed one".into());
    }
    Ok(Verdict::Failed {
        counts,
        command: describe(&command),
        tail: finished.lines,
    })
}

/// The package and name of each integration test that runs in a browser.
fn browser_tests(place: &Place) -> Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for package in ["tests", "crate"] {
        let Ok(entries) = fs::read_dir(place.root.join(package).join("tests")) else {
            continue;
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
            let text =
                fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            if text.contains("wasm_bindgen_test") {
                found.push((
                    package,
                    path.file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                ));
            }
        }
    }
    found.sort();
    if found.is_empty() {
        bail!("no browser test was found below tests/tests and crate/tests");
    }
    Ok(found)
}

/// How ChromeDriver is to start Chromium: with WebGPU, and silent otherwise. It makes a profile of its own each time.
fn capabilities(place: &Place, chromium: &Path) -> Result<PathBuf> {
    let args = [
        "--headless",
        "--no-sandbox",
        "--enable-unsafe-webgpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ];
    let json = serde_json::json!({ "goog:chromeOptions": { "binary": chromium, "args": args } });
    let path = place.cache().join("webdriver.json");
    fs::create_dir_all(place.cache()).context("the cache folder cannot be made")?;
    fs::write(&path, json.to_string()).context("the browser's capabilities cannot be written")?;
    Ok(path)
}

/// Validates every shader with whatever validators are there; the Rust tests do it with naga in any case.
fn wgsl(place: &Place) -> Result<Verdict> {
    let mut shaders = Vec::new();
    collect_shaders(&place.root.join("crate"), &mut shaders)?;
    shaders.sort();
    if shaders.is_empty() {
        bail!("no .wgsl file was found below crate/");
    }
    let (naga, tint) = (on_path("naga"), on_path("tint"));
    for (name, found) in [("naga", &naga), ("tint", &tint)] {
        if found.is_none() {
            println!("{name} not found: the shaders are validated by the naga crate in the Rust tests only");
        }
    }
    let mut tested = Counts::default();
    for program in [naga, tint].into_iter().flatten() {
        for shader in &shaders {
            let mut command = Command::new(&program);
            if program.ends_with("tint") {
                // What it writes by default, SPIR-V, not every build of it can.
                command.args(["--format", "wgsl"]);
            }
            match process::capture(command.arg(shader)) {
                Ok(_) => tested.passed += 1,
                Err(error) => {
                    return Ok(Verdict::Failed {
                        counts: one(false),
                        command: describe(&command),
                        tail: format!("{error:#}").lines().map(str::to_owned).collect(),
                    });
                }
            }
        }
    }
    println!("{} shaders, {} validations", shaders.len(), tested.passed);
    Ok(if tested.passed == 0 {
        Verdict::Skipped(
            "neither naga nor tint is on PATH; the Rust tests validate with the naga crate".into(),
        )
    } else {
        Verdict::Passed(Some(tested))
    })
}

fn collect_shaders(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry.context("a folder cannot be read")?.path();
        if path.is_dir() {
            collect_shaders(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            out.push(path);
        }
    }
    Ok(())
}
