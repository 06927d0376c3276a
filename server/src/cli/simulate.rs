//! `unsaid-relay simulate`.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal, Write},
    path::PathBuf,
    time::Instant,
};

use clap::Args;
use unsaid_relay::{
    evaluate::read_held_out,
    simulate::{Attack, Baseline, Line, Partition, Settings, Simulation, data::Shards, report},
    task_file::Task,
};

use super::CommandResult;

/// Clients where nobody says how many.
const CLIENTS: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// The task file.
    task: PathBuf,
    /// Replace a value of the task file, written as in TOML.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The folder of the data: held-out examples are found below it as for `serve`, clients' examples in `--train`.
    #[arg(long)]
    data: PathBuf,
    /// The folder below `--data` whose shards are split among the clients.
    #[arg(long, default_value = "iid")]
    train: PathBuf,
    /// Clients. Otherwise 100; with the partition `natural` there is one for each file, and no other number of them.
    #[arg(long)]
    clients: Option<usize>,
    /// Rounds.
    #[arg(long, default_value = "100")]
    rounds: u64,
    /// How examples are split: iid, shards (two labels each, mostly), dirichlet:CONCENTRATION, natural (a client for each file).
    #[arg(long, default_value = "iid")]
    partition: Partition,
    /// The share of the clients that each round chooses, at least one.
    #[arg(long, value_name = "SHARE", conflicts_with = "cohort")]
    fraction: Option<f64>,
    /// Clients that each round chooses. Otherwise a tenth.
    #[arg(long)]
    cohort: Option<usize>,
    /// Clients that train at the same time where rounds are asynchronous (rule fed-buff), where a cohort is what fills the buffer.
    /// Otherwise two cohorts.
    #[arg(long, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Let clients take turns, so that each is in as many rounds as any other, to within one.
    #[arg(long)]
    turns: bool,
    /// The seed of all chance: the same seed gives the same bytes.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Threads that train clients. Otherwise as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Evaluate on the held-out examples after every so many rounds.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    evaluate_every: u64,
    /// Stop at this held-out accuracy, 0 to 1.
    #[arg(long, value_name = "ACCURACY")]
    stop_at: Option<f64>,
    /// δ at which ε is told.
    #[arg(long, default_value = "1e-5")]
    delta: f64,
    /// What malicious clients send: sign-flip, scale:FACTOR, little-is-enough.
    #[arg(long, requires = "malicious")]
    attack: Option<Attack>,
    /// How many of the clients are malicious.
    #[arg(long, requires = "attack", value_name = "CLIENTS")]
    malicious: Option<usize>,
    /// What to train for comparison, after the rounds.
    #[arg(long, value_delimiter = ',', value_name = "BASELINES")]
    baselines: Vec<Baseline>,
    /// The share of the examples that is set aside as public, for the baseline `proxy`.
    #[arg(long, default_value = "0.02", value_name = "SHARE")]
    proxy: f64,
    /// Write everything to this file, a JSON object per line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(options: Simulate) -> CommandResult {
    let task = Task::read(&options.task, &options.overrides)?;
    let shard = task
        .evaluation
        .clone()
        .ok_or("the task names no held-out examples: [evaluation] shard")?;
    let held_out = read_held_out(&options.data.join(shard), &task.model)?;
    let shards = Shards::read(&options.data.join(&options.train))?;
    let proxy = if options.baselines.contains(&Baseline::LocalWithProxy) {
        options.proxy
    } else {
        0.0
    };
    let data = shards.split(
        options.partition,
        options.clients.unwrap_or(CLIENTS),
        options.seed,
        proxy,
    )?;
    drop(shards);
    let clients = data.clients.len();
    if let Some(asked) = options.clients.filter(|&asked| asked != clients) {
        let files = options.data.join(&options.train);
        return Err(format!(
            "--partition natural makes a client of each of the {clients} files of {}, and not {asked}: leave --clients out",
            files.display()
        )
        .into());
    }
    let share = options.fraction.unwrap_or(0.1);
    let cohort = options
        .cohort
        .unwrap_or_else(|| ((share * clients as f64).round() as usize).max(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = Settings {
        rounds: options.rounds,
        cohort,
        concurrency: options.concurrency.map_or(2 * cohort, |clients| clients as usize),
        turns: options.turns,
        seed: options.seed,
        threads: options.threads.unwrap_or(cores),
        delta: options.delta,
        evaluate_every: options.evaluate_every,
        stop_at: options.stop_at,
        attack: options.attack.zip(options.malicious),
        baselines: options.baselines,
    };
    let simulation = Simulation::new(task, data, &held_out, settings)?;
    let mut json = options.json.map(File::create).transpose()?.map(BufWriter::new);
    let mut failed = None;
    let mut progress = Progress {
        rounds: options.rounds,
        begun: Instant::now(),
        terminal: std::io::stderr().is_terminal(),
        drawn: false,
        out: std::io::stderr(),
    };
    let lines = simulation.run(&mut |line| {
        progress.show(line);
        if let Some(file) = &mut json {
            let written = serde_json::to_writer(&mut *file, line).map_err(std::io::Error::from);
            if let Err(error) = written
                .and_then(|()| file.write_all(b"\n"))
                .and_then(|()| file.flush())
            {
                failed.get_or_insert(error);
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if let Some(path) = options.html {
        std::fs::write(path, report::html(&lines))?;
    }
    summary(&lines);
    Ok(())
}

fn summary(lines: &[Line]) {
    for line in lines {
        match line {
            Line::Baseline(it) => {
                println!("{:<16} {:.4}", it.baseline.name(), it.accuracy);
                if let Some(loss) = it.loss_of_accuracy {
                    println!("accuracy loss |V_FED - V_SUM| {loss:.4}");
                }
            }
            Line::End(it) => {
                println!(
                    "{:<16} {:.4} after {} rounds",
                    "federated", it.accuracy, it.rounds
                );
                println!("ε {}", report::spent(it));
                let spread = it.fairness;
                println!(
                    "on clients' own examples: least {:.4}, tenth {:.4}, median {:.4}, mean {:.4}, variance {:.6}",
                    spread.least, spread.tenth, spread.median, spread.mean, spread.variance
                );
                println!("model {}", it.model);
            }
            _ => {}
        }
    }
}

/// A bar on a terminal; a line for each tenth of the rounds elsewhere. It is for people who wait: that it cannot be written stops nothing.
struct Progress<W: Write> {
    rounds: u64,
    begun: Instant,
    terminal: bool,
    /// Whether the bar is on the terminal's last line, without a line's end.
    drawn: bool,
    out: W,
}

impl<W: Write> Progress<W> {
    fn show(&mut self, line: &Line) {
        const WIDTH: u64 = 30;
        match line {
            Line::Round(it) => {
                let seconds = self.begun.elapsed().as_secs_f64();
                let accuracy = it
                    .accuracy
                    .map_or_else(|| "-".into(), |accuracy| format!("{accuracy:.4}"));
                let said = format!(
                    "round {}/{}  held-out accuracy {accuracy}  training loss {:.4}  {seconds:.0} s",
                    it.round, self.rounds, it.train_loss
                );
                if self.terminal {
                    let done = (WIDTH * it.round / self.rounds) as usize;
                    let (done, left) = ("#".repeat(done), " ".repeat(WIDTH as usize - done));
                    let _ = write!(self.out, "\r[{done}{left}] {said} \u{1b}[K");
                    let _ = self.out.flush();
                    self.drawn = true;
                    if it.round == self.rounds {
                        self.end_bar();
                    }
                } else if it.round.is_multiple_of((self.rounds / 10).max(1)) {
                    let _ = writeln!(self.out, "{said}");
                }
            }
            Line::Baseline(it) => {
                self.end_bar();
                let _ = writeln!(self.out, "trained the baseline {}", it.baseline.name());
            }
            Line::End(_) => self.end_bar(),
            _ => {}
        }
    }

    /// Ends the bar's line, so that what is written next has one of its own.
    fn end_bar(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = writeln!(self.out);
        }
    }
}

/// Where a simulation fails, its last word is no part of the bar.
impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.end_bar();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unsaid_relay::simulate::RoundLine;

    fn round(round: u64) -> Line {
        Line::Round(RoundLine {
            round,
            clients: 1,
            accuracy: Some(0.5),
            loss: Some(2.0),
            train_loss: 0.25,
            staleness: None,
            clipped: 0,
            epsilon: None,
            clip_l2: None,
            bytes_up: 0,
            bytes_down: 0,
        })
    }

    /// What is written when `rounds` of ten have ended and then the simulation, well or not.
    fn written(terminal: bool, rounds: u64) -> String {
        let mut out = Vec::new();
        let mut progress = Progress {
            rounds: 10,
            begun: Instant::now(),
            terminal,
            drawn: false,
            out: &mut out,
        };
        (1..=rounds).for_each(|at| progress.show(&round(at)));
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_bar_ends_its_line_once_also_where_the_rounds_end_early() {
        for rounds in [1, 4, 10] {
            let shown = written(true, rounds);
            assert!(shown.ends_with("\u{1b}[K\n"), "{shown:?}");
            assert_eq!(shown.matches('\n').count(), 1, "{shown:?}");
        }
        assert_eq!(written(true, 0), "");
        assert_eq!(written(false, 4).lines().count(), 4);
    }

    #[test]
    fn progress_says_which_accuracy_and_which_loss() {
        let shown = written(false, 1);
        let expected = "round 1/10  held-out accuracy 0.5000  training loss 0.2500  ";
        assert!(shown.starts_with(expected), "{shown}");
    }
}
