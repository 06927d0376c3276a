//! The demo: the relay with its page for people, or the same job in headless tabs with a table.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    artifacts, browser, mnist,
    place::Place,
    process::{self, Running},
    table::{HEADER, Row},
    wasm,
};

const DEFAULT_PORT: u16 = 8787;
/// A relay opens its store and reads its test set in well under a second.
const RELAY_START_LIMIT: Duration = Duration::from_secs(30);
/// A round of the headless run closes without a tab that is silent for this long.
const ROUND_DEADLINE_MS: u64 = 120_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Port of the relay and its page [default: 8787; with --headless: a free one]
    #[arg(long)]
    port: Option<u16>,
    /// Where the tabs train
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu", "webgpu"])]
    backend: String,
    /// `local`: each tab adds differential-privacy noise before anything leaves it; `example`: while it trains, which protects single
    /// digits
    #[arg(long, default_value = "local", value_parser = ["off", "local", "example"])]
    noise: String,
    /// MNIST digits that each tab gets as its local data, 1 to 600
    #[arg(long, default_value_t = mnist::EXAMPLES_PER_SHARD, value_parser = examples)]
    examples_per_client: u32,
    /// How the digits are split: evenly, or two digits' worth per tab (McMahan et al. 2017)
    #[arg(long, default_value = "iid", value_parser = ["iid", "shards"])]
    partition: String,
    /// Open the page in the default browser
    #[arg(long, conflicts_with = "headless")]
    open: bool,
    /// Go on with the model and rounds of the last demo (without it, the demo starts from a new model)
    #[arg(long)]
    keep: bool,
    /// Run the job with headless Chromium tabs and print a table
    #[arg(long)]
    headless: bool,
    /// Tabs, 1 to 100, each with digits of its own
    #[arg(long, default_value_t = 4, requires = "headless", value_parser = clap::value_parser!(u32).range(1..=100))]
    clients: u32,
    /// Rounds, 1 to 10,000
    #[arg(long, default_value_t = 5, requires = "headless", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: u64,
    /// Also write the table to this file, as JSON
    #[arg(long, requires = "headless", value_name = "FILE")]
    json: Option<PathBuf>,
}

fn examples(text: &str) -> Result<u32, String> {
    let most = mnist::EXAMPLES_PER_SHARD;
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        Ok(number) if number > most => Err(format!(
            "MNIST is split into {} shards of {most} digits, one for each tab, so a tab cannot have more than {most}",
            mnist::SHARDS
        )),
        _ => Err(format!("must be a whole number from 1 to {most}")),
    }
}

/// Runs the demo until Ctrl-C, or until the headless rounds are done.
pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    let port = options
        .port
        .unwrap_or(if options.headless { 0 } else { DEFAULT_PORT });
    // Before the builds, so that nobody waits minutes to read it.
    check_port(port)?;
    if let Some(file) = &options.json {
        fs::write(file, "").with_context(|| format!("--json: {} cannot be written", file.display()))?;
    }
    let partition = mnist::partition(&options.partition)?;
    let built = artifacts::all(place)?;
    // A demo that is too large is still a demo; `cargo xtask build` and `cargo xtask test` refuse it.
    if let Err(error) = wasm::check_size(place) {
        println!("warning: {error:#}");
    }
    let data = mnist::shards(place, &built.packages, &built.relay)?;
    let chromium = if options.headless {
        Some(browser::find_or_install()?.chromium)
    } else {
        None
    };
    let demo = place.cache().join("demo");
    let store = demo.join(if options.headless { "headless" } else { "page" });
    if !options.keep {
        match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be removed", store.display()));
            }
            _ => {}
        }
    }
    fs::create_dir_all(&store).with_context(|| format!("{} cannot be made", store.display()))?;

    let mut relay = Command::new(&built.relay);
    relay.current_dir(&place.root);
    let task = match options.noise.as_str() {
        "example" => "server/tasks/mnist-example.toml",
        _ => "server/tasks/mnist.toml",
    };
    relay.args(["serve", "--task", task, "--listen"]);
    relay.arg(format!("127.0.0.1:{port}"));
    relay.arg("--store").arg(store.join("relay.redb"));
    relay.arg("--page").arg(&built.page).arg("--data").arg(&data);
    // A hundred headless tabs are one address, and they are ours.
    relay.args(["--rate-limit", "0"]);
    let set = |relay: &mut Command, key: &str, value: &dyn std::fmt::Display| {
        relay.arg("--set").arg(format!("{key}={value}"));
    };
    let mode = match options.noise.as_str() {
        "off" => "none",
        mode => mode,
    };
    set(&mut relay, "privacy.mode", &format!("\"{mode}\""));
    if options.headless {
        set(&mut relay, "rounds.min_clients", &1);
        set(&mut relay, "rounds.target_clients", &options.clients);
        set(&mut relay, "rounds.deadline_ms", &ROUND_DEADLINE_MS);
        relay.stderr(fs::File::create(store.join("relay.log")).context("the relay's log cannot be made")?);
    }
    let (mut relay, origin) = start_relay(&mut relay, port)?;

    match chromium {
        None => serve(&mut relay, &origin, options, partition),
        Some(chromium) => {
            let config = json!({
                "origin": origin,
                "chromium": chromium,
                "clients": options.clients,
                "rounds": options.rounds,
                "backend": options.backend,
                "noise": options.noise != "off",
                "partition": partition,
                "examples": options.examples_per_client,
                "stallMs": ROUND_DEADLINE_MS + 60_000,
            });
            headless(place, &config, options).with_context(|| {
                format!(
                    "the headless run failed (the relay's log is {})",
                    store.join("relay.log").display()
                )
            })
        }
    }
}

fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!(
                "port {port} is taken by another program; choose another with --port, or --port 0 for any free one"
            )
        }
        Err(error) => Err(error)
            .with_context(|| format!("port {port} cannot be listened on; choose another with --port")),
    }
}

/// Starts the relay and waits until it says where it listens.
pub(crate) fn start_relay(command: &mut Command, port: u16) -> Result<(Running, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut relay = Running::start(command)?;
    let pipe = relay
        .child()
        .stdout
        .take()
        .context("the relay has no standard output")?;
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        // Reads to the end even when nobody listens any more, so that the relay never writes into a closed pipe.
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    loop {
        match lines.recv_timeout(RELAY_START_LIMIT) {
            Ok(line) => {
                if let Some(origin) = line.strip_prefix("listening on ") {
                    return Ok((relay, origin.trim().to_owned()));
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!(
                    "the relay did not say within {} s where it listens",
                    RELAY_START_LIMIT.as_secs()
                )
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = relay.child().wait().context("the relay cannot be waited for")?;
                bail!("the relay ended at once ({status}); its message is above or in its log (port {port})")
            }
        }
    }
}

fn serve(relay: &mut Running, origin: &str, options: &Options, partition: &str) -> Result<()> {
    let mut query = Vec::new();
    if options.backend != "auto" {
        query.push(format!("backend={}", options.backend));
    }
    if partition != "iid" {
        query.push(format!("partition={partition}"));
    }
    if options.examples_per_client != mnist::EXAMPLES_PER_SHARD {
        query.push(format!("examples={}", options.examples_per_client));
    }
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{}", query.join("&"))
    };
    let url = format!("{origin}/{query}");
    println!("==> the page is at {url}");
    println!("    open it in several tabs and join in each; Ctrl-C stops everything");
    if options.open {
        let opener = if cfg!(target_os = "macos") {
            "open"
        } else {
            "xdg-open"
        };
        if !process::succeeds_within(Command::new(opener).arg(&url), Duration::from_secs(10)) {
            println!("    (`{opener}` did not open it; open it yourself)");
        }
    }
    let status = relay.child().wait().context("the relay cannot be waited for")?;
    bail!("the relay ended by itself ({status})")
}

/// Lets the driver steer the tabs, and shows what it reports.
fn headless(place: &Place, config: &Value, options: &Options) -> Result<()> {
    let mut driver = Command::new("node");
    driver.arg(place.root.join("xtask/driver/headless.mjs"));
    // The driver ends when its standard input does, so it does not outlive this program however that ends.
    driver.stdin(Stdio::piped()).stdout(Stdio::piped());
    driver.env("UNSAID_HEADLESS", config.to_string());
    let mut driver = Running::start(&mut driver)?;
    let pipe = driver
        .child()
        .stdout
        .take()
        .context("the driver has no standard output")?;
    let mut rows = Vec::new();
    let mut end = None;
    println!("{HEADER}");
    for line in BufReader::new(pipe).lines() {
        let line = line.context("the driver cannot be read")?;
        let message: Value =
            serde_json::from_str(&line).with_context(|| format!("the driver said {line:?}"))?;
        let text = |name: &str| message.get(name).and_then(Value::as_str).map(str::to_owned);
        match text("type").as_deref() {
            Some("round") => {
                let row =
                    Row::read(&message).with_context(|| format!("a round without real numbers: {line}"))?;
                println!("{}", row.line());
                rows.push(row);
            }
            Some("done") => end = Some(message),
            Some("error") => bail!("{}", text("message").unwrap_or(line)),
            _ => bail!("the driver said {line:?}"),
        }
    }
    let status = driver.child().wait().context("the driver cannot be waited for")?;
    let Some(end) = end.filter(|_| status.success()) else {
        bail!("the driver ended early ({status})");
    };
    let numbers: Vec<u64> = rows.iter().map(|row| row.round).collect();
    let first = numbers.first().copied().unwrap_or_default();
    let expected: Vec<u64> = (first..first + options.rounds).collect();
    if numbers != expected || (!options.keep && first != 1) {
        bail!(
            "{} rounds were asked for, but {numbers:?} were published and evaluated",
            options.rounds
        );
    }
    if let Some(row) = rows
        .iter()
        .find(|row| row.epsilon.is_some() != (options.noise != "off"))
    {
        bail!(
            "round {} has ε {:?} with --noise {}",
            row.round,
            row.epsilon,
            options.noise
        );
    }
    if let Some(file) = &options.json {
        let rounds: Vec<Value> = rows.iter().map(Row::json).collect();
        let report = json!({ "rounds": rounds, "backend": end.get("backend"), "delta": end.get("delta") });
        let text = format!("{report:#}\n");
        fs::write(file, text).with_context(|| format!("--json: {} cannot be written", file.display()))?;
    }
    if let Some(row) = rows.last() {
        let backend = end.get("backend").and_then(Value::as_str).unwrap_or("?");
        println!(
            "==> {} rounds on {backend}, {:.2} % test accuracy",
            rows.len(),
            row.accuracy * 100.0
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_port(port).unwrap_err().to_string();
        assert!(
            error.contains(&port.to_string()) && error.contains("--port"),
            "{error}"
        );
        assert!(check_port(0).is_ok());
    }

    #[test]
    fn more_examples_than_a_shard_holds_are_refused_with_the_reason() {
        assert_eq!(examples("600"), Ok(600));
        assert!(examples("601").unwrap_err().contains("100 shards of 600"));
        assert!(examples("0").is_err() && examples("-1").is_err() && examples("x").is_err());
    }
}
