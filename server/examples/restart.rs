//! How long a relay takes from its start until it answers, with a thousand rounds in its store.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example restart [ROUNDS]
//! ```
//!
//! The model has 199,998 parameters, of which the store keeps the 64 newest, and each round counts 100 updates.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{path::Path, sync::Arc, time::Instant};

use unsaid_protocol::{ContentHash, UpdateId};
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    live::{Live, TaskConfig},
    round::{Counted, FrameDigest, Head},
    store::{Changes, RedbStore, Store},
};

mod wide;

use wide::{Server, ask, client, task};

/// Updates of a round.
const CLIENTS: u64 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some("relay") {
        return serve(Path::new(&arguments[1]));
    }
    let rounds = arguments.first().map_or(1_000, |text| text.parse().unwrap());
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("relay.redb");
    fill(&file, rounds);
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            let server = Server::start(&["relay".to_owned(), file.display().to_string()], false);
            assert_eq!(ask(&mut server.connect(), "GET /readyz", b""), b"ready\n");
            begun.elapsed().as_secs_f64() * 1_000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let size = std::fs::metadata(&file).unwrap().len() as f64 / f64::from(1 << 20);
    println!(
        "{rounds} rounds, a file of {size:.0} MiB: ready after {:.1} ms (median of 9; at most {:.1})",
        times[4], times[8]
    );
}

fn serve(file: &Path) {
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(file).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let task = task("wide", CLIENTS as usize);
    let relay = Relay::open(vec![task], &store, &clock, RelayOptions::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        unsaid_relay::serve(listener, relay, std::future::pending()).await;
    });
}

/// Writes as many rounds as a relay would have.
fn fill(file: &Path, rounds: u64) {
    let store = RedbStore::open(file).unwrap();
    let config = TaskConfig::new(task("wide", CLIENTS as usize));
    let id = config.manifest.task.clone();
    let (live, first) = Live::first(&config, 0).unwrap();
    store.commit(&id, &first).unwrap();
    let mut parameters = live.parameters().to_vec();
    for round in 1..=rounds {
        parameters[0] += 1.0;
        let bytes = config.model.to_safetensors(&parameters).unwrap();
        let model = ContentHash::of(&bytes);
        let counted = (0..CLIENTS).map(|number| Counted {
            update: UpdateId::from_bytes(u128::from(round * CLIENTS + number).to_le_bytes()),
            round,
            client: client(number as usize),
            digest: FrameDigest::of(&number.to_le_bytes()),
        });
        let metrics = first.rounds[0].clone();
        let changes = Changes {
            head: Some(Head {
                round: round + 1,
                model,
                ..live.rounds.head()
            }),
            counted: counted.collect(),
            rounds: vec![
                unsaid_protocol::RoundMetrics {
                    round,
                    model,
                    clients: CLIENTS as u32,
                    checked_in: CLIENTS as u32,
                    ..metrics.metrics
                }
                .into(),
            ],
            models: vec![(model, bytes)],
            ..Changes::default()
        };
        store.commit(&id, &changes).unwrap();
    }
}
