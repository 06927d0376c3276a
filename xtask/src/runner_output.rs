//! How many tests a test runner says it ran.

use std::ops::AddAssign;

/// Counts of individual tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Counts {
    /// One check as a test.
    pub(crate) const fn one(passed: bool) -> Self {
        let (passed, failed) = if passed { (1, 0) } else { (0, 1) };
        Self {
            passed,
            failed,
            skipped: 0,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Adds up the closing lines of cargo test, cargo nextest, wasm-bindgen's runner and Node's runner.
pub(crate) fn counts<'a>(lines: impl IntoIterator<Item = &'a str>) -> Counts {
    let lines: Vec<String> = lines.into_iter().map(without_colours).collect();
    // nextest runs each test in a process of its own, and repeats what those that failed have printed.
    let nextest = lines.iter().any(|line| line.trim().starts_with("Summary ["));
    let mut total = Counts::default();
    for line in &lines {
        let line = line.trim();
        if nextest && line.starts_with("test result:") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("test result:") {
            total += labelled(rest.split(['.', ';']));
        } else if let Some((_, rest)) = line
            .strip_prefix("Summary [")
            .and_then(|rest| rest.split_once("run:"))
        {
            total += labelled(rest.split(','));
        } else if let Some(rest) = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ ")) {
            // Node: `# pass 3`, or in its other reporter `ℹ pass 3`.
            let mut words = rest.split(' ');
            let (label, number) = (
                words.next(),
                words.next().and_then(|word| word.parse::<u32>().ok()),
            );
            match (label, number, words.next()) {
                (Some("pass"), Some(number), None) => total.passed += number,
                (Some("fail" | "cancelled"), Some(number), None) => total.failed += number,
                (Some("skipped" | "todo"), Some(number), None) => total.skipped += number,
                _ => {}
            }
        }
    }
    total
}

/// `5 passed`, `1 failed`, `2 ignored`, … in any order; anything else is passed over.
fn labelled<'a>(parts: impl Iterator<Item = &'a str>) -> Counts {
    let mut counts = Counts::default();
    for part in parts {
        let mut words = part.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u32>().ok()) else {
            continue;
        };
        match words.next() {
            Some("passed") => counts.passed += number,
            Some("failed" | "timed" | "exec") => counts.failed += number,
            Some("ignored" | "skipped") => counts.skipped += number,
            _ => {}
        }
    }
    counts
}

/// The line without terminal control sequences.
fn without_colours(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (u32, u32, u32) {
        let Counts {
            passed,
            failed,
            skipped,
        } = counts(text.lines());
        (passed, failed, skipped)
    }

    #[test]
    fn each_runner_is_read() {
        let cargo = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s\n\
                     test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(of(cargo), (6, 2, 1));
        let nextest = "     Summary [   0.123s] 12 tests run: 11 passed (1 slow), 1 failed, 3 skipped";
        assert_eq!(of(nextest), (11, 1, 3));
        let repeated = format!("test result: FAILED. 0 passed; 1 failed; 0 ignored\n{nextest}");
        assert_eq!(of(&repeated), (11, 1, 3));
        let one = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.005s] \u{1b}[1m1\u{1b}[0m test run: \u{1b}[1m1\u{1b}[0m passed, 0 skipped";
        assert_eq!(of(one), (1, 0, 0));
        assert_eq!(
            of("# tests 5\n# pass 3\n# fail 1\n# cancelled 1\n# skipped 0\n# todo 0"),
            (3, 2, 0)
        );
        assert_eq!(of("ℹ pass 4\nℹ fail 0\nℹ skipped 1"), (4, 0, 1));
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            of("# pass the salt\n5 passed\nSummary\n# pass 3 times\nall good"),
            (0, 0, 0)
        );
    }
}
