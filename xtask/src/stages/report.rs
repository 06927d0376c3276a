//! The summary at the end of a run: a table of the stages, why some were skipped, what failed and how to run it again.

use super::runner::{Record, Verdict};
use crate::runner_output::Counts;

/// Lines of a failed stage that are repeated at the very end.
const TAIL: usize = 40;

/// Prints the summary, whose last line is the counts; whether anything failed.
pub(super) fn print(records: &[Record], seconds: f64) -> bool {
    let total = table(records, seconds);
    for record in records {
        if let Verdict::Skipped(reason) = &record.verdict {
            println!("skipped: {}: {reason}", record.name);
        }
    }
    let failed = failures(records);
    let skipped = if total.skipped > 0 {
        format!(", {} skipped", total.skipped)
    } else {
        String::new()
    };
    println!("\n{} passed, {} failed{skipped}", total.passed, total.failed);
    failed
}

fn table(records: &[Record], seconds: f64) -> Counts {
    let mut total = Counts::default();
    println!(
        "\n{:<24} {:<8} {:>7} {:>8}",
        "stage", "result", "tests", "seconds"
    );
    for record in records {
        let (word, tests, counted) = match &record.verdict {
            Verdict::Passed(Some(counts)) => ("passed", counts.passed.to_string(), *counts),
            Verdict::Passed(None) => ("passed", String::new(), Counts::one(true)),
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
    total
}

fn failures(records: &[Record]) -> bool {
    let mut failed = false;
    for record in records {
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
    failed
}
