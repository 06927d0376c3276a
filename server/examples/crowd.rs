//! A thousand clients at the same time: how long control calls take while models and updates flow, and what the relay holds.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example crowd [CLIENTS…] [over CONNECTIONS]
//! ```
//!
//! Each client has a connection. Within ten seconds it comes at a time of its own: it checks in, downloads the model, sends its
//! update, all but at once, and from then on asks for the round every second, as a page does that waits without events. With `over`
//! there are so many connections, from several addresses, whatever the number of clients: over each comes one client after the other, and
//! each asks for the round once. Check-ins and questions for the round are the control calls. The relay is a process of its own, on core 0 where `taskset` is there, and
//! commits durably to a redb file; the clients are one process on the other cores.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use unsaid_protocol::RoundState;
use unsaid_relay::store::RedbStore;

mod wide;

use wide::{PARAMETERS, Server, body_of, check_in, head, relay, sign, task, update};

/// Clients come within this.
const COMING_MS: u64 = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some("relay") {
        return serve(arguments[1].parse().unwrap());
    }
    let mut arguments = arguments.split(|argument| argument == "over");
    let sizes = arguments.next().unwrap_or(&[]).iter();
    let sizes: Vec<usize> = sizes.map(|text| text.parse().unwrap()).collect();
    let sizes = if sizes.is_empty() { vec![250, 1_000] } else { sizes };
    let over: Option<usize> = arguments.next().map(|rest| rest[0].parse().unwrap());
    let coming = match over {
        None => format!("come within {COMING_MS} ms"),
        Some(connections) => format!("come one after the other over {connections} connections"),
    };
    println!("clients with updates of {PARAMETERS} coordinates, who {coming}; times in ms, sizes in MiB");
    println!(
        "clients  control calls   p50     p99     max   updates p50     p99   all done s  relay at start  at most"
    );
    for clients in sizes {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(measure(clients, over));
    }
}

fn serve(clients: usize) {
    let folder = tempfile::TempDir::new().unwrap();
    let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
    let relay = relay(task("wide", clients), store);
    wide::serve(|listener| unsaid_relay::serve(listener, relay, std::future::pending()));
}

/// One request; the body of the answer, and how long it took.
async fn ask(stream: &mut TcpStream, line: &str, start: &[u8], rest: &[u8]) -> (Vec<u8>, Duration) {
    let begun = Instant::now();
    let head = head(line, start, start.len() + rest.len());
    stream
        .write_all(&[head.as_bytes(), start].concat())
        .await
        .unwrap();
    stream.write_all(rest).await.unwrap();
    let mut answer = Vec::new();
    loop {
        if let Some((start, length)) = body_of(&answer)
            && answer.len() >= start + length
        {
            return (answer.split_off(start), begun.elapsed());
        }
        assert!(
            stream.read_buf(&mut answer).await.unwrap() > 0,
            "the connection ended"
        );
    }
}

/// A connection from one of the addresses that this machine has for itself, 16 from each; from any where there are no others.
async fn connect(address: &str, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if cfg!(target_os = "linux") {
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + number as u32 / 16);
        socket.bind(SocketAddr::from((source, 0))).unwrap();
    }
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What all clients know, and how long they waited.
struct Crowd {
    state: RoundState,
    encoded: Vec<u8>,
    control: Mutex<Vec<Duration>>,
    updates: Mutex<Vec<Duration>>,
}

impl Crowd {
    /// One client takes part.
    async fn take_part(&self, stream: &mut TcpStream, number: usize) {
        let body = check_in(&self.state, number);
        let (_, took) = ask(stream, "POST /v1/tasks/wide/check-in", body.as_bytes(), b"").await;
        self.control.lock().unwrap().push(took);
        let line = format!("GET /v1/tasks/wide/models/{}", self.state.model);
        ask(stream, &line, b"", b"").await;
        let mut start = self.encoded[..64].to_vec();
        sign(&mut start, number);
        let (_, took) = ask(stream, "POST /v1/tasks/wide/updates", &start, &self.encoded[64..]).await;
        self.updates.lock().unwrap().push(took);
    }

    /// Asks for the round; whether it is over.
    async fn is_over(&self, stream: &mut TcpStream) -> bool {
        let (now, took) = ask(stream, "GET /v1/tasks/wide/round", b"", b"").await;
        self.control.lock().unwrap().push(took);
        let now: RoundState = serde_json::from_slice(&now).unwrap();
        now.round > self.state.round
    }

    /// A client who comes at a time of its own, and waits for the end of the round.
    async fn come(&self, address: &str, number: usize, clients: usize) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // Spread evenly, in an order that is not theirs.
        let at = (number as u64 * 7_919) % clients as u64 * COMING_MS / clients as u64;
        tokio::time::sleep(Duration::from_millis(at)).await;
        self.take_part(&mut stream, number).await;
        while !self.is_over(&mut stream).await {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn measure(clients: usize, over: Option<usize>) {
    let server = Server::start(&["relay".to_owned(), clients.to_string()], true);
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let (state, _) = ask(&mut stream, "GET /v1/tasks/wide/round", b"", b"").await;
    let state: RoundState = serde_json::from_slice(&state).unwrap();
    let at_start = server.memory_mib("VmRSS:");
    let crowd = Arc::new(Crowd {
        encoded: update(&state),
        state,
        control: Mutex::default(),
        updates: Mutex::default(),
    });
    let begun = Instant::now();
    let tasks: Vec<_> = (0..over.unwrap_or(clients))
        .map(|number| {
            let (crowd, address) = (crowd.clone(), server.address.clone());
            tokio::spawn(async move {
                let Some(connections) = over else {
                    return crowd.come(&address, number, clients).await;
                };
                let mut stream = connect(&address, number).await;
                for number in (number..clients).step_by(connections) {
                    crowd.take_part(&mut stream, number).await;
                    crowd.is_over(&mut stream).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let took = begun.elapsed();
    let calls = crowd.control.lock().unwrap().len();
    let at = |times: &Mutex<Vec<Duration>>, share: f64| {
        let mut times = times.lock().unwrap();
        times.sort();
        times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0
    };
    println!(
        "{clients:7} {:14} {:7.1} {:7.1} {:7.1} {:11.1} {:9.1} {:12.1} {at_start:15.1} {:8.1}",
        calls,
        at(&crowd.control, 0.5),
        at(&crowd.control, 0.99),
        at(&crowd.control, 1.0),
        at(&crowd.updates, 0.5),
        at(&crowd.updates, 0.99),
        took.as_secs_f64(),
        server.memory_mib("VmHWM:"),
    );
}
