//! `unsaid-relay status`: a table of a running relay's tasks, drawn again and again.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{
    CommandResult,
    call::{Operator, Remote, refusal},
    out,
};

/// Clears the terminal and goes to its first line (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    operator: Operator,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Look once; so, too, where the output is no terminal.
    #[arg(long)]
    once: bool,
    /// Print the relay's answer instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Status) -> CommandResult {
    let remote = Remote::new(&options.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let look = || -> Result<String, Box<dyn std::error::Error>> {
        let asked = remote.ask(Method::GET, "/v1/admin/status", &[], String::new());
        let (status, answer) = runtime.block_on(asked)?;
        if status != 200 {
            return Err(refusal(status, &answer).into());
        }
        if options.json {
            return Ok(answer + "\n");
        }
        Ok(table(&serde_json::from_str(&answer)?))
    };
    if options.once || !std::io::stdout().is_terminal() {
        out::print(format_args!("{}", look()?));
        return Ok(());
    }
    loop {
        // A relay that is being restarted is no reason to stop looking.
        let shown = look().unwrap_or_else(|error| format!("{error}\n"));
        out::print(format_args!("{CLEAR}{shown}"));
        std::thread::sleep(Duration::from_secs(options.every));
    }
}

const HEAD: [&str; 11] = [
    "task", "round", "phase", "reported", "left", "asked", "selected", "reported", "late", "accuracy", "ε",
];

/// The relay in a line, its tasks in a table, and what was refused. Counts right of "left" are since the relay was started.
fn table(status: &Value) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut refused = String::new();
    for task in status["tasks"].as_array().into_iter().flatten() {
        rows.push(row(task));
        let kinds = task["since_start"]["refused"].as_object().into_iter().flatten();
        let kinds: Vec<String> = kinds.map(|(kind, count)| format!("{kind} {count}")).collect();
        if !kinds.is_empty() {
            refused += &format!("{} refused: {}\n", text(&task["state"]["task"]), kinds.join(", "));
        }
    }
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|at| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let line = |row: &[String; HEAD.len()]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let up = Duration::from_millis(status["uptime_ms"].as_u64().unwrap_or_default()).as_secs();
    let relay = format!(
        "unsaid-relay {}, up {} min {} s, {} places for updates free; ε of a client in every round, at δ = {}\n\n",
        text(&status["version"]),
        up / 60,
        up % 60,
        status["uploads_free"],
        status["delta"],
    );
    let lines: String = rows.iter().map(line).collect();
    let gap = if refused.is_empty() { "" } else { "\n" };
    relay + &lines + gap + &refused
}

fn row(task: &Value) -> [String; HEAD.len()] {
    let (state, since) = (&task["state"], &task["since_start"]);
    let rounds = task["rounds"].as_array();
    let newest = |name: &str| rounds?.iter().rev().find_map(|round| round[name].as_f64());
    let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "–".to_owned());
    let phase = match (task["healthy"].as_bool(), state["paused"].as_bool()) {
        (Some(false), _) => "store failed".to_owned(),
        (_, Some(true)) => format!("{}, paused", text(&state["phase"])),
        _ => text(&state["phase"]),
    };
    [
        text(&state["task"]),
        state["round"].to_string(),
        phase,
        format!("{} of {}", state["received"], state["checked_in"]),
        or_none(
            state["deadline_ms"]
                .as_u64()
                .map(|left| format!("{} s", left.div_ceil(1_000))),
        ),
        since["asked"].to_string(),
        since["selected"].to_string(),
        since["reported"].to_string(),
        since["late"].to_string(),
        or_none(newest("accuracy").map(|share| format!("{:.2} %", 100.0 * share))),
        or_none(rounds.and_then(|rounds| epsilon(rounds.last()?, &task["privacy"]))),
    ]
}

/// ε after a round: an earlier one would be too little. It says what the heading does not: that it is an example's, or at the task's own δ.
fn epsilon(round: &Value, privacy: &Value) -> Option<String> {
    let mut shown = format!("{:.3}", round["epsilon"].as_f64()?);
    if privacy["mode"] == "example" {
        shown += " of an example";
    }
    if let Some(delta) = privacy["delta"].as_f64() {
        shown += &format!(" at δ = {delta}");
    }
    Some(shown)
}

/// Text for a terminal: a relay's answer must not move the cursor.
fn text(value: &Value) -> String {
    let shown = |c: &char| !c.is_control();
    value.as_str().unwrap_or_default().chars().filter(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_task_under_its_headings() {
        let round = serde_json::json!({"round": 2, "accuracy": 0.8812, "epsilon": 3.25});
        let status = serde_json::json!({
            "version": "0.1.0\x1b[2J", "uptime_ms": 61_000, "uploads_free": 128, "delta": 1e-5,
            "tasks": [{
                "healthy": true, "rounds": [round, {"round": 3, "accuracy": null, "epsilon": 4.5}],
                "state": {"task": "mnist", "round": 4, "phase": "collecting", "received": 1, "checked_in": 3, "deadline_ms": 1_500},
                "since_start": {"asked": 9, "selected": 8, "reported": 7, "late": 1, "refused": {"round-closed": 1}},
            }],
        });
        let shown = table(&status);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[0],
            "unsaid-relay 0.1.0[2J, up 1 min 1 s, 128 places for updates free; ε of a client in every round, at δ = 0.00001"
        );
        let cells = |line: &str| {
            let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cells(lines[2]), HEAD);
        let expected = [
            "mnist",
            "4",
            "collecting",
            "1 of 3",
            "2 s",
            "9",
            "8",
            "7",
            "1",
            "88.12 %",
            "4.500",
        ];
        assert_eq!(cells(lines[3]), expected);
        assert_eq!(lines[5], "mnist refused: round-closed 1");
    }

    #[test]
    fn an_epsilon_is_the_newest_rounds_and_says_whose_it_is_where_it_is_no_clients() {
        let cell = |rounds: Value, privacy: Value| {
            row(&serde_json::json!({"rounds": rounds, "privacy": privacy}))[10].clone()
        };
        let rounds = || serde_json::json!([{"epsilon": 3.25}, {"epsilon": 4.5}]);
        let privacy = |mode: &str| serde_json::json!({"mode": mode});
        assert_eq!(cell(rounds(), privacy("local")), "4.500");
        assert_eq!(cell(rounds(), privacy("example")), "4.500 of an example");
        let central = serde_json::json!({"mode": "central", "delta": 1e-6});
        assert_eq!(cell(rounds(), central), "4.500 at δ = 0.000001");
        let beyond = serde_json::json!([{"epsilon": 3.25}, {"epsilon": null}]);
        assert_eq!(
            cell(beyond, privacy("local")),
            "–",
            "an earlier round's is too little"
        );
    }
}
