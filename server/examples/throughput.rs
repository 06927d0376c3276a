//! How many updates a relay takes per second, beside a bare axum handler that reads the same bodies and drops them.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example throughput [UPDATES] [CONNECTIONS,…] [signed]
//! ```
//!
//! Each server is a process of its own, on core 0 where `taskset` is there; the sender has the other cores. The relay commits
//! durably (a redb file in the temporary folder) before it acknowledges. Updates have 200,000 coordinates of four bytes. Connections
//! come from several addresses, as those of many browsers do, [`PER_ADDRESS`] from each. For each number of connections the two
//! servers, and with `signed` a third, whose task asks for an identity that signs every update, take turns, five times, and the
//! medians are printed, with what an update took of the server's core and, of the relay's, of the disk.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::post};
use ed25519_dalek::{Signer as _, SigningKey};
use unsaid_protocol::{
    CheckIn, ContentHash, Credential, PublicKey, RelayIdentity, RoundState, Signature, SignedUpdate,
    identity::{IDENTITY_HEADER, check_in_bytes, enrolment_bytes, update_bytes},
};
use unsaid_relay::{RelayOptions, key::RelayKey, store::RedbStore};

mod wide;

/// Connections from one address: fewer than the updates that it may send at the same time.
const PER_ADDRESS: usize = 16;

use wide::{Server, ask, ask_with, check_in, client, number, relay_with, sign, task_with, update};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at, otherwise| number(&arguments, at, otherwise);
    let signed = arguments.iter().any(|argument| argument == "signed");
    match arguments.first().map(String::as_str) {
        Some("bare") => serve_bare(),
        Some("relay") => serve(number(1, 1_000), signed),
        _ => {
            let connections = arguments.get(1).map_or("8", String::as_str).split(',');
            let connections: Vec<usize> = connections.map(|text| text.parse().unwrap()).collect();
            measure(number(0, 1_000), &connections, signed);
        }
    }
}

/// Reads bodies and drops them.
fn serve_bare() {
    let drop_it = |body: Body| async {
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        bytes.len().to_string()
    };
    let app = Router::new().route("/", post(drop_it));
    wide::serve(|listener| async { axum::serve(listener, app).await.unwrap() });
}

/// A relay whose rounds take so many clients, all of one identity where they have to sign.
fn serve(clients: usize, signed: bool) {
    let folder = tempfile::TempDir::new().unwrap();
    let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
    let identity = format!("identity = {{ required = \"open\", updates_per_round = {clients} }}");
    let task = task_with("wide", clients, if signed { &identity } else { "" });
    let options = RelayOptions {
        key: signed.then(|| RelayKey::create(&folder.path().join("relay.key")).unwrap()),
        ..RelayOptions::default()
    };
    let relay = relay_with(task, store, options);
    wide::serve(|listener| unsaid_relay::serve(listener, relay, std::future::pending()));
}

/// Whoever sends the updates, where they have to be signed.
struct Identity {
    key: SigningKey,
    relay: RelayIdentity,
}

impl Identity {
    fn enrol(server: &Server) -> Self {
        let mut stream = server.connect();
        let relay = ask(&mut stream, "GET /v1/identities", b"");
        let relay: RelayIdentity = serde_json::from_slice(&relay).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let one = Self { key, relay };
        let signature = one.sign(&enrolment_bytes(&one.relay.relay, &one.public(), None));
        let ask_for =
            serde_json::json!({ "public_key": one.public(), "invitation": null, "signature": signature });
        ask(&mut stream, "POST /v1/identities", ask_for.to_string().as_bytes());
        one
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(self.key.sign(bytes).to_bytes())
    }

    fn header(&self, signed: &[u8], time_ms: Option<u64>) -> String {
        let (key, signature) = (self.public(), self.sign(signed));
        let credential = Credential {
            key,
            signature,
            time_ms,
        };
        format!("{IDENTITY_HEADER}: {credential}\r\n")
    }

    fn check_in(&self, state: &RoundState, number: usize) -> String {
        let message = CheckIn {
            client: client(number),
            manifest: state.manifest,
        };
        let time_ms = self.relay.time_ms;
        self.header(
            &check_in_bytes(&self.relay.relay, &message, time_ms),
            Some(time_ms),
        )
    }

    fn update(&self, state: &RoundState, number: usize, frame: &[u8]) -> String {
        let update = SignedUpdate {
            manifest: state.manifest,
            round: state.round,
            client: client(number),
            frame: ContentHash::of(frame),
        };
        self.header(&update_bytes(&self.relay.relay, &update), None)
    }
}

/// Sends `bodies` bodies, with the header lines that go with them, over `connections` connections; how long it took.
fn send(
    server: &Server,
    path: &str,
    connections: usize,
    bodies: usize,
    body: impl Fn(usize) -> Vec<u8> + Sync,
    lines: &[String],
) -> Duration {
    let next = AtomicUsize::new(0);
    // Bodies are made while another is under way: the sender is not what is measured.
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for one in 0..connections {
            let next = &next;
            let body = &body;
            scope.spawn(move || {
                let mut stream = server.connect_from(one / PER_ADDRESS);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= bodies {
                        break;
                    }
                    let lines = lines.get(at).map_or("", String::as_str);
                    ask_with(&mut stream, &format!("POST {path}"), lines, &body(at));
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

/// A relay's turn, and the update's bytes.
fn relay_turn(updates: usize, connections: usize, signed: bool) -> (Turn, Vec<u8>) {
    let mut arguments = vec!["relay".to_owned(), updates.to_string()];
    arguments.extend(signed.then(|| "signed".to_owned()));
    let server = Server::start(&arguments, true);
    let mut stream = server.connect();
    let state = ask(&mut stream, "GET /v1/tasks/wide/round", b"");
    let state: RoundState = serde_json::from_slice(&state).unwrap();
    let encoded = update(&state);
    let body = |number: usize| {
        let mut body = encoded.clone();
        sign(&mut body, number);
        body
    };
    let identity = signed.then(|| Identity::enrol(&server));
    let lines = |line: &dyn Fn(&Identity, usize) -> String| -> Vec<String> {
        let all = identity
            .iter()
            .flat_map(|one| (0..updates).map(|number| line(one, number)));
        all.collect()
    };
    let check_ins = lines(&|one, number| one.check_in(&state, number));
    let check_in = |number| check_in(&state, number).into_bytes();
    send(
        &server,
        "/v1/tasks/wide/check-in",
        connections,
        updates,
        check_in,
        &check_ins,
    );
    let headers = lines(&|one, number| one.update(&state, number, &body(number)));
    let turn = turn(&server, updates, || {
        send(
            &server,
            "/v1/tasks/wide/updates",
            connections,
            updates,
            body,
            &headers,
        )
    });
    let rounds = ask(&mut stream, "GET /v1/tasks/wide/rounds", b"");
    let rounds: serde_json::Value = serde_json::from_slice(&rounds).unwrap();
    assert_eq!(
        rounds[1]["clients"], updates,
        "every one of them is in the published model"
    );
    (turn, encoded)
}

/// What is measured, by the names that are printed.
const SERVERS: [&str; 3] = ["bare axum handler", "relay, durable", "the same, signed"];

fn measure(updates: usize, connections: &[usize], signed: bool) {
    let mut turns: Vec<[Vec<Turn>; 3]> = connections.iter().map(|_| Default::default()).collect();
    let mut bytes = 0;
    for _ in 0..5 {
        for (&connections, turns) in connections.iter().zip(&mut turns) {
            let (turn_of_relay, encoded) = relay_turn(updates, connections, false);
            turns[1].push(turn_of_relay);
            if signed {
                turns[2].push(relay_turn(updates, connections, true).0);
            }
            bytes = encoded.len();
            let server = Server::start(&["bare".to_owned()], true);
            turns[0].push(turn(&server, updates, || {
                send(&server, "/", connections, updates, |_| encoded.clone(), &[])
            }));
        }
    }
    println!("{updates} updates of {bytes} bytes, medians of 5 turns");
    println!(
        "connections                    updates/s     MB/s  core µs/update  kB written/update  of bare  (5 turns)"
    );
    for (connections, turns) in connections.iter().zip(turns) {
        let mut of_bare = None;
        for (name, mut turns) in SERVERS.into_iter().zip(turns) {
            turns.sort_by(|a, b| a.wall_us.total_cmp(&b.wall_us));
            let Some(middle) = turns.get(turns.len() / 2) else {
                continue;
            };
            let rate = 1e6 / middle.wall_us;
            let (mb, core, kb) = (
                rate * bytes as f64 / 1e6,
                middle.processor_us,
                middle.written_bytes / 1e3,
            );
            let share = rate / *of_bare.get_or_insert(rate);
            let all: Vec<String> = turns
                .iter()
                .map(|turn| format!("{:.0}", 1e6 / turn.wall_us))
                .collect();
            println!(
                "{connections:11} {name:<18} {rate:9.1} {mb:8.1} {core:15.1} {kb:18.1} {share:8.2}  ({})",
                all.join(" ")
            );
        }
    }
}
