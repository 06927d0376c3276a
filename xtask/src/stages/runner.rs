//! One stage: whether it is wanted, what it runs, how it ended.

use std::{
    env,
    process::Command,
    thread::{Scope, ScopedJoinHandle},
    time::Instant,
};

use anyhow::{Result, anyhow};

use super::{Group, Options};
use crate::{
    npm,
    place::Place,
    process::{self, Finished, describe},
    runner_output::{Counts, counts},
};

pub(super) enum Verdict {
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

impl Verdict {
    /// What the tests need is not here: `reason` says what, and where to get it. They are skipped, but not by a gate (`CI=true`), which
    /// has no one to read that they were.
    pub(super) fn missing(reason: &str) -> Self {
        if env::var("CI").is_ok_and(|ci| ci == "true") {
            return Self::Failed {
                counts: Counts::one(false),
                command: String::new(),
                tail: vec![reason.to_owned()],
            };
        }
        Self::Skipped(reason.to_owned())
    }
}

pub(super) struct Record {
    pub(super) group: Group,
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) seconds: f64,
}

/// A stage that runs beside others.
pub(super) struct Beside<'s> {
    group: Group,
    name: &'static str,
    /// How it ended, what it printed, and its seconds.
    thread: ScopedJoinHandle<'s, (Result<Verdict>, Vec<String>, f64)>,
}

pub(super) struct Runner<'a> {
    place: &'a Place,
    options: &'a Options,
    pub(super) records: Vec<Record>,
}

impl<'a> Runner<'a> {
    pub(super) const fn new(place: &'a Place, options: &'a Options) -> Self {
        Self {
            place,
            options,
            records: Vec::new(),
        }
    }

    pub(super) fn wants(&self, group: Group) -> bool {
        let stopped = self.options.fail_fast
            && self
                .records
                .iter()
                .any(|record| matches!(record.verdict, Verdict::Failed { .. }));
        !stopped && (self.options.only.is_empty() || self.options.only.contains(&group))
    }

    /// Runs one stage; whether it ran and passed.
    pub(super) fn stage(
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
        let verdict = action(self.place);
        self.record(group, name, verdict, start.elapsed().as_secs_f64())
    }

    /// Starts a stage that runs beside those that follow, until [`Runner::end`]; its output is shown then.
    pub(super) fn begin<'s>(
        &self,
        scope: &'s Scope<'s, 'a>,
        group: Group,
        name: &'static str,
        action: impl FnOnce(&Place, &mut Vec<String>) -> Result<Verdict> + Send + 's,
    ) -> Option<Beside<'s>> {
        if !self.wants(group) {
            return None;
        }
        println!("\n==> {name}: begins, and runs beside what follows");
        let place = self.place;
        let thread = scope.spawn(move || {
            let start = Instant::now();
            let mut output = Vec::new();
            let verdict = action(place, &mut output);
            (verdict, output, start.elapsed().as_secs_f64())
        });
        Some(Beside { group, name, thread })
    }

    /// Waits for a stage that runs beside others.
    pub(super) fn end(&mut self, beside: Option<Beside<'_>>) {
        let Some(Beside { group, name, thread }) = beside else {
            return;
        };
        println!("\n==> {name}");
        let (verdict, output, seconds) = thread
            .join()
            .unwrap_or_else(|_| (Err(anyhow!("the stage panicked")), Vec::new(), 0.0));
        for line in output {
            println!("{line}");
        }
        self.record(group, name, verdict, seconds);
    }

    fn record(&mut self, group: Group, name: &'static str, verdict: Result<Verdict>, seconds: f64) -> bool {
        let verdict = verdict.unwrap_or_else(|error| Verdict::Failed {
            counts: Counts::default(),
            command: String::new(),
            tail: format!("{error:#}").lines().map(str::to_owned).collect(),
        });
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
}

/// A stage that is one check.
pub(super) fn check(mut command: Command) -> Result<Verdict> {
    let finished = process::tee(&mut command)?;
    Ok(verdict(&command, finished))
}

/// One check of a stage that runs beside others: its output goes to `output`.
pub(super) fn check_quietly(mut command: Command, output: &mut Vec<String>) -> Result<Verdict> {
    let finished = process::keep(&mut command)?;
    output.clone_from(&finished.lines);
    Ok(verdict(&command, finished))
}

fn verdict(command: &Command, finished: Finished) -> Verdict {
    if finished.success {
        return Verdict::Passed(None);
    }
    Verdict::Failed {
        counts: Counts::one(false),
        command: describe(command),
        tail: finished.lines,
    }
}

/// A stage that runs tests; one that ran none has failed.
pub(super) fn tests(mut command: Command) -> Result<Verdict> {
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

pub(super) fn cargo(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(words).current_dir(&place.root);
    command.env("CARGO_TERM_PROGRESS_WHEN", "never");
    // A failure's message would drown in the frames of its runtime.
    command.env("RUST_BACKTRACE", "0");
    command
}

pub(super) fn npm(place: &Place, words: &[&str]) -> Command {
    let mut command = npm::npm(place);
    command.args(words);
    command
}
