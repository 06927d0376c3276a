//! How many updates a relay takes per second, beside a bare axum handler that reads the same bodies and drops them.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example throughput [UPDATES] [CONNECTIONS]
//! ```
//!
//! Each server is a process of its own, on core 0 where `taskset` is there; the sender has the other cores. The relay commits
//! durably (a redb file in the temporary folder) before it acknowledges. Updates have 200,000 coordinates of four bytes. The two
//! servers take turns, three times, and the medians are printed.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::post};
use unsaid_protocol::{ClientId, RoundState, UpdateFrame, UpdateId};
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    store::{RedbStore, Store},
    task_file::Task,
};

/// 40 features × 4,878 units and as many biases: as near to 200,000 as a dense layer comes.
const UNITS: usize = 4_878;
const PARAMETERS: usize = 41 * UNITS;

fn task(clients: usize) -> Task {
    let text = format!(
        r#"
        task = "wide"
        title = "Wide"
        model = {{ input = [40], layers = [{{ type = "dense", units = {UNITS} }}], loss = "softmax-cross-entropy" }}
        training = {{ epochs = 1, batch_size = 10, optimizer = {{ type = "sgd", learning_rate = 0.1 }} }}
        update = {{ clip_l2 = 1.0, grid_step = 5.960464477539063e-8 }}
        privacy = {{ mode = "none" }}
        rounds = {{ min_clients = {clients}, target_clients = {clients}, deadline_ms = 600_000 }}
        "#
    );
    Task::parse("wide", &text, &[]).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise| {
        arguments
            .get(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    match arguments.first().map(String::as_str) {
        Some("bare") => serve(None),
        Some("relay") => serve(Some(number(1, 1_000))),
        _ => measure(number(0, 1_000), number(1, 8)),
    }
}

/// Serves on a free port, says which, and goes on until it is killed.
fn serve(clients: Option<usize>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let Some(clients) = clients else {
            let drop_it = |body: Body| async {
                let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                bytes.len().to_string()
            };
            return axum::serve(listener, Router::new().route("/", post(drop_it)))
                .await
                .unwrap();
        };
        let folder = tempfile::TempDir::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&folder.path().join("relay.redb")).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let relay = Relay::open(vec![task(clients)], &store, &clock, RelayOptions::default()).unwrap();
        unsaid_relay::serve(listener, relay, std::future::pending()).await;
    });
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[String]) -> Self {
        let program = std::env::current_exe().unwrap();
        let pinned = Command::new("taskset").arg("--version").output().is_ok();
        let mut command = if pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Self {
            child,
            address: address.trim().to_owned(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request over a connection that is kept; the body of the answer, which must be 200.
fn ask(stream: &mut TcpStream, head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let head = head.replacen(
        "\r\nhost",
        "\r\ncontent-type: application/json\r\nhost",
        usize::from(body.first() == Some(&b'{')),
    );
    let head = head.replacen(
        "\r\nhost",
        "\r\ncontent-type: application/vnd.unsaid.update\r\nhost",
        usize::from(body.starts_with(b"UNSU")),
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 65_536];
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ")
                    .and_then(|length| length.parse::<usize>().ok())
            });
            if rest.len() >= length.unwrap() {
                return rest.as_bytes().to_vec();
            }
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the connection ended");
        answer.extend_from_slice(&piece[..read]);
    }
}

fn client(number: usize) -> ClientId {
    ClientId::from_bytes((number as u128).to_le_bytes())
}

/// Sends `updates` bodies over `connections` connections; how long it took.
fn send(
    address: &str,
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
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
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

fn measure(updates: usize, connections: usize) {
    let mut template = UpdateFrame {
        update: UpdateId::from_bytes([0; 16]),
        client: client(0),
        manifest: unsaid_protocol::ContentHash::of(b""),
        model: unsaid_protocol::ContentHash::of(b""),
        round: 1,
        coordinates: (0..PARAMETERS as i32).map(|at| at % 1_000 - 500).collect(),
    };
    template.coordinates[0] = 1 << 23; // needs four bytes
    let bytes = template.encode().len();
    let (mut bare, mut relay) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let server = Server::start(&["bare".to_owned()]);
        let encoded = template.encode();
        bare.push(send(&server.address, "/", connections, updates, |_| {
            encoded.clone()
        }));
        drop(server);
        let server = Server::start(&["relay".to_owned(), updates.to_string()]);
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let state = ask(&mut stream, "GET /v1/tasks/wide/round", b"");
        let state: RoundState = serde_json::from_slice(&state).unwrap();
        for number in 0..updates {
            let body =
                serde_json::json!({ "client": client(number), "manifest": state.manifest }).to_string();
            ask(&mut stream, "POST /v1/tasks/wide/check-in", body.as_bytes());
        }
        (template.manifest, template.model) = (state.manifest, state.model);
        let encoded = template.encode();
        // The ids lie at bytes 8 and 24 (PROTOCOL.md, section 5).
        let body = |number: usize| {
            let mut body = encoded.clone();
            body[8..24].copy_from_slice(&(number as u128).to_le_bytes());
            body[24..40].copy_from_slice(client(number).as_bytes());
            body
        };
        relay.push(send(
            &server.address,
            "/v1/tasks/wide/updates",
            connections,
            updates,
            body,
        ));
        let rounds = ask(&mut stream, "GET /v1/tasks/wide/rounds", b"");
        let rounds: serde_json::Value = serde_json::from_slice(&rounds).unwrap();
        assert_eq!(
            rounds[1]["clients"], updates,
            "every one of them is in the published model"
        );
    }
    let rate = |times: &mut Vec<Duration>| {
        times.sort();
        updates as f64 / times[1].as_secs_f64()
    };
    let (bare, relay) = (rate(&mut bare), rate(&mut relay));
    println!("{updates} updates of {bytes} bytes over {connections} connections, median of 3 turns");
    for (name, rate) in [("bare axum handler", bare), ("relay, durable", relay)] {
        println!(
            "{name:<18} {rate:8.1} updates/s {:8.1} MB/s",
            rate * bytes as f64 / 1e6
        );
    }
    println!("relay / bare {:.2}", relay / bare);
}
