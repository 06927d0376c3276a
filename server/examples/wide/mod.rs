//! What the measurements share: a task with updates of 199,998 coordinates, servers that are processes of their own, and requests.

// Not every measurement uses all of it. What fails here ends the measurement.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;
use unsaid_protocol::{ClientId, RoundState, UpdateFrame, UpdateId};
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    store::Store,
    task_file::Task,
};

/// 40 features × 4,878 units and as many biases: as near to 200,000 as a dense layer comes.
const UNITS: usize = 4_878;
pub const PARAMETERS: usize = 41 * UNITS;

/// A task whose rounds take this many clients.
pub fn task(name: &str, clients: usize) -> Task {
    task_with(name, clients, "")
}

/// The same, with more lines in its file.
pub fn task_with(name: &str, clients: usize, more: &str) -> Task {
    let text = format!(
        r#"
        task = "{name}"
        title = "Wide"
        model = {{ input = [40], layers = [{{ type = "dense", units = {UNITS} }}], loss = "softmax-cross-entropy" }}
        training = {{ epochs = 1, batch_size = 10, optimizer = {{ type = "sgd", learning_rate = 0.1 }} }}
        update = {{ clip_l2 = 1.0, grid_step = 5.960464477539063e-8 }}
        privacy = {{ mode = "none" }}
        rounds = {{ min_clients = {clients}, target_clients = {clients}, deadline_ms = 600_000 }}
        {more}
        "#
    );
    Task::parse("wide", &text, &[]).unwrap()
}

/// The numbers that a measurement is asked for on the command line, by their place.
pub fn number(arguments: &[String], at: usize, otherwise: usize) -> usize {
    arguments
        .get(at)
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Runs a server of one thread on a free port, which it says first, until it is killed.
pub fn serve<F: Future<Output = ()>>(server: impl FnOnce(TcpListener) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        server(listener).await;
    });
}

/// A relay with this task over this store.
pub fn relay(task: Task, store: impl Store + 'static) -> Arc<Relay> {
    relay_with(task, store, RelayOptions::default())
}

/// The same, with these options.
pub fn relay_with(task: Task, store: impl Store + 'static, options: RelayOptions) -> Arc<Relay> {
    let store: Arc<dyn Store> = Arc::new(store);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Relay::open(vec![task], &store, &clock, options).unwrap()
}

/// This program in another process, which says its address first.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    /// Starts it, on core 0 alone where asked for and where `taskset` is there.
    pub fn start(arguments: &[String], on_core_0: bool) -> Self {
        Self::start_on(arguments, on_core_0.then_some(0))
    }

    /// Starts it, on one core alone where asked for and where `taskset` is there.
    pub fn start_on(arguments: &[String], core: Option<usize>) -> Self {
        let program = std::env::current_exe().unwrap();
        let core = core.filter(|_| Command::new("taskset").arg("--version").output().is_ok());
        let mut command = if let Some(core) = core {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(program);
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

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection from one of the addresses that this machine has for itself, by their number; from any where there are no others.
    pub fn connect_from(&self, number: usize) -> TcpStream {
        #[cfg(target_os = "linux")]
        {
            use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
            use std::net::{Ipv4Addr, SocketAddrV4};

            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + number as u32);
            bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
            connect(&socket, &self.address.parse::<SocketAddrV4>().unwrap()).unwrap();
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true).unwrap();
            stream
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = number;
            self.connect()
        }
    }

    /// The processor time that it has taken.
    pub fn processor(&self) -> Duration {
        processor(self.child.id())
    }

    /// Bytes that it has had written to disks.
    pub fn written_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.unwrap().parse().unwrap()
    }

    /// A size of /proc/PID/status, `VmRSS` for what it holds and `VmHWM` for the most that it held, in MiB.
    pub fn memory_mib(&self, name: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kib = line.trim_matches(|c: char| !c.is_ascii_digit());
        kib.parse::<f64>().unwrap() / 1_024.0
    }
}

/// The processor time that a process has taken, of all its threads.
pub fn processor(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of_thread = |path: std::path::PathBuf| -> Option<u64> {
        // Nanoseconds on a processor come first (the kernel's documentation of the scheduler's statistics).
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(|thread| of_thread(thread.path())).sum())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head of a request, whose body is of the kind that its first bytes say.
pub fn head(line: &str, body_start: &[u8], length: usize) -> String {
    let kind = match body_start {
        [b'{', ..] => "content-type: application/json\r\n",
        [b'U', b'N', b'S', b'U', ..] => "content-type: application/vnd.unsaid.update\r\n",
        _ => "",
    };
    format!("{line} HTTP/1.1\r\nhost: x\r\n{kind}content-length: {length}\r\n\r\n")
}

/// Where an answer's body begins and how long it is, once its head is whole. It must be 200.
pub fn body_of(answer: &[u8]) -> Option<(usize, usize)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(
        head.starts_with("http/1.1 200"),
        "{}",
        String::from_utf8_lossy(answer)
    );
    let length = head.lines().find_map(|line| {
        line.strip_prefix("content-length: ")
            .and_then(|length| length.parse().ok())
    });
    Some((end + 4, length.unwrap()))
}

/// One request over a connection that is kept; the body of the answer.
pub fn ask(stream: &mut TcpStream, line: &str, body: &[u8]) -> Vec<u8> {
    ask_with(stream, line, "", body)
}

/// The same, with more header lines.
pub fn ask_with(stream: &mut TcpStream, line: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut head = head(line, body, body.len());
    head.insert_str(head.len() - 2, lines);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 65_536];
    loop {
        if let Some((start, length)) =
            body_of(&answer).filter(|(start, length)| answer.len() >= start + length)
        {
            return answer[start..start + length].to_vec();
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the connection ended");
        answer.extend_from_slice(&piece[..read]);
    }
}

pub fn client(number: usize) -> ClientId {
    ClientId::from_bytes((number as u128).to_le_bytes())
}

pub fn check_in(state: &RoundState, number: usize) -> String {
    serde_json::json!({ "client": client(number), "manifest": state.manifest }).to_string()
}

/// An update for the round, encoded, of nobody yet.
pub fn update(state: &RoundState) -> Vec<u8> {
    let mut template = UpdateFrame {
        update: UpdateId::from_bytes([0; 16]),
        client: client(0),
        manifest: state.manifest,
        model: state.model,
        round: state.round,
        coordinates: (0..PARAMETERS as i32).map(|at| at % 1_000 - 500).collect(),
    };
    template.coordinates[0] = 1 << 23; // needs four bytes
    template.encode()
}

/// Makes it a client's: the ids lie at bytes 8 and 24 (PROTOCOL.md, section 5).
pub fn sign(update: &mut [u8], number: usize) {
    update[8..24].copy_from_slice(&(number as u128).to_le_bytes());
    update[24..40].copy_from_slice(client(number).as_bytes());
}
