//! How many updates one, two and three relays over one PostgreSQL database take per second, and what an update costs each part.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example scaling [UPDATES] [CONNECTIONS] [RELAYS,…] [pin]
//! ```
//!
//! Starts a PostgreSQL server with its files in the temporary folder (`TMPDIR`), and for each number of relays (1,2,3 unless others are
//! named) as many processes of this program. The server's programs are those of the folder that `UNSAID_POSTGRES` names, else those on
//! the path or Debian's; nothing needs root. Updates have 199,998 coordinates of four bytes, and every client sends one; each connection is to
//! one relay. Relays, database and senders share the machine, so more relays can only take more where cores are left: what each part
//! used of them is printed beside.
//!
//! With `pin` each relay has a core of its own, from core 0 on (by `taskset`, without which nothing is pinned). The database and the
//! senders run where this program may: `taskset -c 8-15 … scaling 3000 96 1,2,4,8 pin` keeps them off the relays' cores.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use unsaid_protocol::RoundState;
use unsaid_relay::store::PostgresStore;

#[path = "../tests/relay/database.rs"]
#[allow(dead_code)] // the tests use more of it
mod database;
mod wide;

use database::Database;
use wide::{PARAMETERS, Server, ask, check_in, number, processor, relay, sign, task, update};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at, otherwise| number(&arguments, at, otherwise);
    match arguments.first().map(String::as_str) {
        Some("relay") => serve(&arguments[1], &arguments[2], number(3, 1)),
        _ => {
            let relays = arguments.get(2).map_or("1,2,3", String::as_str);
            let relays: Vec<usize> = relays
                .split(',')
                .map(|it| it.parse().expect("a number"))
                .collect();
            let pin = arguments.get(3).is_some_and(|it| it == "pin");
            measure(number(0, 600), number(1, 24), &relays, pin);
        }
    }
}

/// One of the relays.
fn serve(database: &str, name: &str, clients: usize) {
    let relay = relay(task(name, clients), PostgresStore::open(database, None).unwrap());
    wide::serve(|listener| unsaid_relay::serve(listener, relay, std::future::pending()));
}

/// Processor time of PostgreSQL, in seconds: of the process that was started and of its children, those that ended included.
fn of_database(pid: u32) -> f64 {
    // Clock ticks (proc(5)): a child's time is its parent's once it has ended.
    let fields = |pid: &str| -> Option<Vec<u64>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest = text.rsplit_once(") ")?.1;
        Some(rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
    };
    let parent = fields(&pid.to_string()).unwrap();
    let mut ticks: u64 = parent[11..15].iter().sum();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if let Some(child) = fields(&name).filter(|it| it[1] == u64::from(pid)) {
            ticks += child[11] + child[12];
        }
    }
    ticks as f64 / 100.0
}

struct Figures {
    took: Duration,
    p50: Duration,
    p99: Duration,
    relays: f64,
    database: f64,
    senders: f64,
    commits: i64,
    log_bytes: f64,
}

fn measure(updates: usize, connections: usize, numbers: &[usize], pin: bool) {
    let database = Database::start().expect("PostgreSQL");
    println!(
        "{updates} updates of {PARAMETERS} coordinates over {connections} connections; times of processors per update"
    );
    println!(
        "relays  updates/s  p50 ms  p99 ms  relays ms  database ms  senders ms  updates/commit  log kB/update"
    );
    // Twice, the first time unseen: files and caches are there then.
    let seen = (1..=3).flat_map(|turn| numbers.iter().map(move |&relays| (turn, relays)));
    for (turn, relays) in [(0, 1)].into_iter().chain(seen) {
        let name = format!("wide-{turn}-{relays}");
        let figures = run(&database, &name, (relays, pin), updates, connections);
        let each = |seconds: f64| 1_000.0 * seconds / updates as f64;
        if turn > 0 {
            println!(
                "{relays:6} {:10.1} {:7.1} {:7.1} {:10.2} {:12.2} {:11.2} {:15.1} {:14.0}",
                updates as f64 / figures.took.as_secs_f64(),
                1e3 * figures.p50.as_secs_f64(),
                1e3 * figures.p99.as_secs_f64(),
                each(figures.relays),
                each(figures.database),
                each(figures.senders),
                updates as f64 / figures.commits as f64,
                figures.log_bytes / updates as f64 / 1e3,
            );
        }
    }
}

fn run(
    database: &Database,
    name: &str,
    (relays, pin): (usize, bool),
    updates: usize,
    connections: usize,
) -> Figures {
    let (address, clients) = (database.address(), updates.to_string());
    let arguments = ["relay", &address, name, &clients].map(str::to_owned);
    let servers: Vec<Server> = (0..relays)
        .map(|core| Server::start_on(&arguments, pin.then_some(core)))
        .collect();
    let connect = |at: usize| servers[at % relays].connect();
    let state = ask(&mut connect(0), &format!("GET /v1/tasks/{name}/round"), b"");
    let state: RoundState = serde_json::from_slice(&state).unwrap();
    let shared = |work: &(dyn Fn(&mut TcpStream, usize) + Sync)| {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for at in 0..connections {
                let (next, connect) = (&next, &connect);
                scope.spawn(move || {
                    let mut stream = connect(at);
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= updates {
                            break;
                        }
                        work(&mut stream, number);
                    }
                });
            }
        });
    };
    shared(&|stream, number| {
        let head = format!("POST /v1/tasks/{name}/check-in");
        ask(stream, &head, check_in(&state, number).as_bytes());
    });
    let encoded = update(&state);
    let times = || {
        let relays = servers
            .iter()
            .map(|server| server.processor().as_secs_f64())
            .sum();
        let senders = processor(std::process::id()).as_secs_f64();
        [relays, of_database(database.process()), senders]
    };
    let before = (times(), logged(database, name));
    let begun = Instant::now();
    let answered = Mutex::new(Vec::new());
    shared(&|stream, number| {
        let mut body = encoded.clone();
        sign(&mut body, number);
        let sent = Instant::now();
        ask(stream, &format!("POST /v1/tasks/{name}/updates"), &body);
        answered.lock().unwrap().push(sent.elapsed());
    });
    let took = begun.elapsed();
    let mut answered = answered.into_inner().unwrap();
    answered.sort();
    let after = (times(), logged(database, name));
    let rounds = ask(&mut connect(0), &format!("GET /v1/tasks/{name}/rounds"), b"");
    let rounds: serde_json::Value = serde_json::from_slice(&rounds).unwrap();
    assert_eq!(
        rounds[1]["clients"], updates,
        "every one of them is in the published model"
    );
    let used = |at: usize| after.0[at] - before.0[at];
    let share = |of: f64| answered[((answered.len() - 1) as f64 * of) as usize];
    Figures {
        took,
        p50: share(0.5),
        p99: share(0.99),
        relays: used(0),
        database: used(1),
        senders: used(2),
        commits: after.1.0 - before.1.0,
        log_bytes: after.1.1 - before.1.1,
    }
}

/// The task's commits, and the bytes of the database's log.
fn logged(database: &Database, name: &str) -> (i64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let sql = "SELECT version, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 FROM unsaid.tasks WHERE task = $1";
        let row = database.connect().await.query_one(sql, &[&name]).await.unwrap();
        (row.get(0), row.get(1))
    })
}
