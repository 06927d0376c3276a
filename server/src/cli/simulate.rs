//! `unsaid-relay simulate`.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use unsaid_relay::{
    evaluate::read_held_out,
    simulate::{Attack, Baseline, Line, Partition, Settings, Simulation, data::Shards, report},
    task_file::Task,
};

use super::{CommandResult, out::say};

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
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How examples are split: iid, shards (two labels each, mostly), dirichlet:CONCENTRATION, natural (a client for each file).
    #[arg(long, default_value = "iid")]
    partition: Partition,
    /// The share of the clients that each round chooses, at least one.
    #[arg(long, value_name = "SHARE", conflicts_with = "cohort", value_parser = share)]
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
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Evaluate on the held-out examples after every so many rounds.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    evaluate_every: u64,
    /// Stop at this held-out accuracy, at most 1.
    #[arg(long, value_name = "ACCURACY", value_parser = share)]
    stop_at: Option<f64>,
    /// δ at which ε is told.
    #[arg(long, default_value = "1e-5", value_parser = part)]
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
    #[arg(long, default_value = "0.02", value_name = "SHARE", value_parser = part)]
    proxy: f64,
    /// Write everything to this file, a JSON object per line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A share of something.
fn share(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|&share| share > 0.0 && share <= 1.0);
    number.ok_or("it must be a number above 0 and at most 1")
}

/// A share that leaves something.
fn part(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|&part| part > 0.0 && part < 1.0);
    number.ok_or("it must be a number above 0 and below 1")
}

/// A file to write to, made before anything takes long. What an earlier run wrote to it stays until there is something else.
fn create(path: &PathBuf) -> Result<(File, &PathBuf), String> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.map(|file| (file, path))
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
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
        threads: options.threads.map_or(cores, usize::from),
        delta: options.delta,
        evaluate_every: options.evaluate_every,
        stop_at: options.stop_at,
        attack: options.attack.zip(options.malicious),
        baselines: options.baselines,
    };
    let simulation = Simulation::new(task, data, &held_out, settings)?;
    let mut json = options.json.as_ref().map(create).transpose()?;
    if let Some((file, path)) = &json {
        file.set_len(0).map_err(|error| cannot_write(path, &error))?;
    }
    let html = options.html.as_ref().map(create).transpose()?;
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
        if let Some((file, path)) = &mut json {
            let written = serde_json::to_vec(line).map_err(std::io::Error::from);
            let written = written.and_then(|line| file.write_all(&[&line[..], b"\n"].concat()));
            if let Err(error) = written {
                failed.get_or_insert_with(|| cannot_write(path, &error));
            }
        }
    })?;
    if let Some((mut file, path)) = html {
        let written = file.set_len(0);
        if let Err(error) = written.and_then(|()| file.write_all(report::html(&lines).as_bytes())) {
            failed.get_or_insert_with(|| cannot_write(path, &error));
        }
    }
    summary(&lines); // last: the program ends there where nobody reads it
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn summary(lines: &[Line]) {
    for line in lines {
        match line {
            Line::Baseline(it) => {
                say!("{:<16} {:.4}", it.baseline.name(), it.accuracy);
                if let Some(loss) = it.loss_of_accuracy {
                    say!("accuracy loss |V_FED - V_SUM| {loss:.4}");
                }
            }
            Line::End(it) => {
                let rounds = if it.rounds == 1 { "round" } else { "rounds" };
                say!(
                    "{:<16} {:.4} after {} {rounds}",
                    "federated",
                    it.accuracy,
                    it.rounds
                );
                say!("ε {}", report::spent(it));
                let spread = it.fairness;
                say!(
                    "on clients' own examples: least {:.4}, tenth {:.4}, median {:.4}, mean {:.4}, variance {:.6}",
                    spread.least,
                    spread.tenth,
                    spread.median,
                    spread.mean,
                    spread.variance
                );
                say!("model {}", it.model);
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
