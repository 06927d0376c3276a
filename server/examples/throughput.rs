//! How many updates a relay takes per second, beside a bare axum handler that reads the same bodies and drops them.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example throughput [UPDATES] [CONNECTIONS]
//! ```
//!
//! Each server is a process of its own, on core 0 where `taskset` is there; the sender has the other cores. The relay commits
//! durably (a redb file in the temporary folder) before it acknowledges. Updates have 200,000 coordinates of four bytes. The two
//! servers take turns, five times, and the medians are printed, with what an update took of the server's core and, of the relay's, of
//! the disk.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::post};
use unsaid_protocol::RoundState;
use unsaid_relay::store::RedbStore;

mod wide;

use wide::{Server, ask, check_in, number, relay, sign, task, update};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at, otherwise| number(&arguments, at, otherwise);
    match arguments.first().map(String::as_str) {
        Some("bare") => serve(None),
        Some("relay") => serve(Some(number(1, 1_000))),
        _ => measure(number(0, 1_000), number(1, 8)),
    }
}

/// The bare handler, or a relay whose rounds take so many clients.
fn serve(clients: Option<usize>) {
    let Some(clients) = clients else {
        let drop_it = |body: Body| async {
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            bytes.len().to_string()
        };
        let app = Router::new().route("/", post(drop_it));
        return wide::serve(|listener| async { axum::serve(listener, app).await.unwrap() });
    };
    let folder = tempfile::TempDir::new().unwrap();
    let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
    let relay = relay(task("wide", clients), store);
    wide::serve(|listener| unsaid_relay::serve(listener, relay, std::future::pending()));
}

/// Sends `updates` bodies over `connections` connections; how long it took.
fn send(
    server: &Server,
    path: &str,
    connections: usize,
    bodies: usize,
    body: impl Fn(usize) -> Vec<u8> + Sync,
) -> Duration {
    let next = AtomicUsize::new(0);
    // Bodies are made while another is under way: the sender is not what is measured.
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut stream = server.connect();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= bodies {
                        break;
                    }
                    ask(&mut stream, &format!("POST {path}"), &body(at));
                }
            });
        }
    });
    begun.elapsed()
}

/// What one turn took, for each update.
struct Turn {
    wall_us: f64,
    processor_us: f64,
    written_bytes: f64,
}

/// Times `work` of so many updates on a server.
fn turn(server: &Server, updates: usize, work: impl FnOnce() -> Duration) -> Turn {
    let (processor, written) = (server.processor(), server.written_bytes());
    let took = work();
    let each = |total: f64| total / updates as f64;
    Turn {
        wall_us: each(took.as_secs_f64() * 1e6),
        processor_us: each((server.processor() - processor).as_secs_f64() * 1e6),
        written_bytes: each((server.written_bytes() - written) as f64),
    }
}

fn measure(updates: usize, connections: usize) {
    let (mut bare, mut relay, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        let server = Server::start(&["relay".to_owned(), updates.to_string()], true);
        let mut stream = server.connect();
        let state = ask(&mut stream, "GET /v1/tasks/wide/round", b"");
        let state: RoundState = serde_json::from_slice(&state).unwrap();
        for number in 0..updates {
            let body = check_in(&state, number);
            ask(&mut stream, "POST /v1/tasks/wide/check-in", body.as_bytes());
        }
        let encoded = update(&state);
        bytes = encoded.len();
        let body = |number: usize| {
            let mut body = encoded.clone();
            sign(&mut body, number);
            body
        };
        let path = "/v1/tasks/wide/updates";
        relay.push(turn(&server, updates, || {
            send(&server, path, connections, updates, body)
        }));
        let rounds = ask(&mut stream, "GET /v1/tasks/wide/rounds", b"");
        let rounds: serde_json::Value = serde_json::from_slice(&rounds).unwrap();
        assert_eq!(
            rounds[1]["clients"], updates,
            "every one of them is in the published model"
        );
        drop(server);
        let server = Server::start(&["bare".to_owned()], true);
        bare.push(turn(&server, updates, || {
            send(&server, "/", connections, updates, body)
        }));
    }
    println!("{updates} updates of {bytes} bytes over {connections} connections, medians of 5 turns");
    println!("                   updates/s     MB/s  core µs/update  kB written/update");
    let mut rates = [("bare axum handler", bare), ("relay, durable", relay)].map(|(name, mut turns)| {
        turns.sort_by(|a, b| a.wall_us.total_cmp(&b.wall_us));
        let middle = &turns[turns.len() / 2];
        let rate = 1e6 / middle.wall_us;
        let (mb, core, kb) = (
            rate * bytes as f64 / 1e6,
            middle.processor_us,
            middle.written_bytes / 1e3,
        );
        println!("{name:<18} {rate:9.1} {mb:8.1} {core:15.1} {kb:18.1}");
        rate
    });
    rates.reverse();
    println!("relay / bare {:.2}", rates[0] / rates[1]);
}
