//! A dfdx module as the model of a federated task: an example that runs.
//!
//! Several clients, each with a piece of the data that no other has, train one dfdx module through a real relay. The session is
//! the browser's very own ([`unsaid::Session`]): check-in, model by hash, local training, clipping, exact noise, the ledger that
//! is debited before anything leaves, the upload. Only the program that trains is another: [`ports`] puts
//! [`unsaid_engine::dfdx::DfdxModel`] in the engine's place.
//!
//! `cargo run --release -p unsaid-dfdx-example -- 12 training.epochs=2` runs twelve rounds, each of two epochs, and prints what
//! happens.

#![forbid(unsafe_code)]

pub mod ports;
pub mod rings;

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use dfdx::{prelude::*, tensor::Cpu};
use unsaid::{Session, abort::Abort, backend::BackendChoice, feed::Feed, session::Patience, task::Task};
use unsaid_engine::{
    Examples, LossSpec,
    dfdx::{DfdxModel, Vectors},
};
use unsaid_privacy::ClientFloors;
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    store::{RedbStore, Store},
    task_file,
};

use crate::ports::{HttpRelay, NativePorts};

/// The module: 1,315 numbers, with a normalised residual block in the middle.
pub type Net = (
    (Linear<2, 32>, Tanh),
    Residual<(LayerNorm1D<32>, Linear<32, 32>, ReLU)>,
    Linear<32, 3>,
);
/// It, built on dfdx's CPU.
pub type Built = <Net as BuildOnDevice<Cpu, f32>>::Built;
/// It, as the model of a task.
pub type Federated = DfdxModel<Vectors<Built, 2, 3>>;

/// The module with fresh numbers.
///
/// # Errors
/// None, for this module.
pub fn model() -> Result<Federated, unsaid_engine::EngineError> {
    let module = Cpu::default().build_module::<Net, f32>();
    DfdxModel::new(Vectors(module), &[2], &[3], LossSpec::SoftmaxCrossEntropy)
}

/// The task, less its model.
const TASK: &str = r#"
task = "rings"
title = "Three rings"
seed = 1

[training]
epochs = 8
batch_size = 20
optimizer = { type = "sgd", learning_rate = 0.3 }

[update]
clip_l2 = 2.0
grid_step = 0.000244140625

[privacy]
mode = "local"
# For a demonstration with four clients; it protects nobody.
noise_multiplier = 0.01

[rounds]
min_clients = 2
target_clients = 4
deadline_ms = 30_000
"#;

/// What a federated run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Accuracy of the shared model on held-out examples, from the first model to the last.
    pub accuracy: Vec<f64>,
    /// ε that each client's ledger holds at the end.
    pub epsilon: Vec<f64>,
    /// Updates that each client was paid for.
    pub counted: Vec<u64>,
}

/// Clients of the task; each sees one sector of the rings.
pub const CLIENTS: usize = 4;

/// Runs `rounds` rounds with [`CLIENTS`] clients and a relay of its own, on this thread and the relay's. `overrides` are laid over
/// the task: `training.epochs=2`, for instance.
///
/// # Errors
/// Whatever went wrong first.
pub async fn federate(rounds: u32, overrides: &[String]) -> Result<Report, Box<dyn Error>> {
    let folder = tempfile::TempDir::new()?;
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&folder.path().join("relay.redb"))?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let model = BTreeMap::from([("model", model()?.model().spec().clone())]);
    let text = format!("{TASK}\n{}", toml::to_string(&model)?);
    let task = task_file::Task::parse("rings.toml", &text, overrides)?;
    let relay = Relay::open(vec![task], &store, &clock, RelayOptions::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let http = HttpRelay::new(&format!("http://{}", listener.local_addr()?), "rings".parse()?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(unsaid_relay::serve(listener, relay.clone(), async move {
        drop(stopped.await);
    }));

    let work = tokio::task::LocalSet::new();
    let report = work.run_until(clients(&http, rounds)).await;
    drop(work);
    let _ = stop.send(());
    tokio::time::timeout(Duration::from_secs(10), server).await??;
    tokio::task::spawn_blocking(move || relay.stop()).await?;
    report
}

/// The clients, and what became of the shared model.
async fn clients(http: &HttpRelay, rounds: u32) -> Result<Report, Box<dyn Error>> {
    let mut running = Vec::new();
    for client in 0..CLIENTS {
        let session = join(http, client).await?;
        running.push(tokio::task::spawn_local(async move {
            let ended = session.run(Some(rounds), &Abort::default()).await;
            let budget = session.budget().await;
            (ended, budget)
        }));
    }
    let mut report = Report {
        accuracy: Vec::new(),
        epsilon: Vec::new(),
        counted: Vec::new(),
    };
    for client in running {
        let (ended, budget) = client.await?;
        ended?;
        let budget = budget?;
        report.epsilon.push(budget.spent);
        report.counted.push(budget.rounds);
    }
    let mut net = model()?;
    let held_out = rings::everywhere(1, 3000)?;
    for metrics in http.published(rounds).await? {
        let parameters = http.parameters(metrics.model, net.model()).await?;
        report
            .accuracy
            .push(net.evaluate(&parameters, &held_out)?.accuracy);
    }
    Ok(report)
}

/// A session of client `client`, with its own sector of the data and its own copy of the module.
async fn join(http: &HttpRelay, client: usize) -> Result<Session<NativePorts>, Box<dyn Error>> {
    use unsaid::ports::Relay as _;
    let offered = http
        .manifest()
        .await
        .map_err(|fault| format!("no manifest: {fault:?}"))?;
    // What this demonstration asks for is below what a client agrees to by itself.
    let floors = ClientFloors {
        min_noise_multiplier: 0.0,
        ..ClientFloors::default()
    };
    let task = Task::new(&offered.bytes, offered.hash, &floors)?;
    let examples: Examples = rings::sector(client, CLIENTS, 400)?;
    let feed = Feed::default();
    tokio::task::spawn_local(http.clone().feed(feed.clone()));
    let ports = NativePorts::new(http.clone(), examples, model()?, client)?;
    let choice = BackendChoice::Cpu;
    Ok(Session::new(ports, task, feed, choice, Patience::default()))
}
