//! Connections that say nothing, or say it slowly, and how many there may be.

use std::{net::SocketAddr, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use unsaid_protocol::Event;
use unsaid_relay::RelayOptions;

use crate::{
    events::Events,
    harness::*,
    program::{Program, folder_with_task},
};

const HEAD_TIMEOUT: Duration = Duration::from_millis(600);

async fn relay(max_connections: usize) -> TestRelay {
    let options = RelayOptions {
        head_timeout: HEAD_TIMEOUT,
        max_connections,
        ..RelayOptions::default()
    };
    TestRelay::over(FaultyStore::new(), &[], options).await
}

async fn connect(relay: &TestRelay) -> TcpStream {
    let address = relay.api.base.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Waits until the other side has closed.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
    let _ = end.await.expect("the relay closes the connection"); // with an end or a reset
}

const HEALTHY: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

async fn healthy(stream: &mut TcpStream) {
    stream.write_all(HEALTHY).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_and_holds_up_nobody() {
    let relay = relay(100).await;
    let begun = Instant::now();
    let slow = (0..20).map(|_| async {
        let mut stream = connect(&relay).await;
        let head = b"GET /v1/tasks/tiny/round HTTP/1.1\r\nhost: x\r\nx-slow: ";
        if stream.write_all(head).await.is_err() {
            return;
        }
        // A byte well within the time, again and again: it is the whole head that has a deadline.
        while begun.elapsed() < Duration::from_secs(5) && stream.write_all(b"a").await.is_ok() {
            sleep(HEAD_TIMEOUT / 6).await;
        }
        closed(&mut stream).await;
    });
    let slow = futures_util::future::join_all(slow);
    let others = async {
        for client in 1..=3 {
            relay.api.take_part(client).await;
        }
        assert_eq!(relay.api.state().await.round, 2);
        assert!(begun.elapsed() < Duration::from_secs(4), "they were held up");
    };
    futures_util::future::join(slow, others).await;
    let took = begun.elapsed();
    assert!(took >= HEAD_TIMEOUT, "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// The first connections read more at once than those that come after them.
#[tokio::test]
async fn the_bound_of_a_head_is_that_of_every_connection() {
    for (bytes, status) in [(20_000, b"HTTP/1.1 200"), (30_000, b"HTTP/1.1 431")] {
        let relay = relay(100).await;
        let mut open = Vec::new();
        for _ in 0..40 {
            open.push(connect(&relay).await);
        }
        let long = "a".repeat(bytes);
        let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n");
        for at in [0, 39] {
            open[at].write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            open[at].read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, status, "{bytes} bytes, connection {at}");
        }
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_before_and_after_a_request() {
    let relay = relay(100).await;
    let mut silent = connect(&relay).await;
    let mut kept = connect(&relay).await;
    healthy(&mut kept).await;
    closed(&mut silent).await;
    closed(&mut kept).await;
}

#[tokio::test]
async fn answers_that_take_long_are_not_cut_off() {
    let relay = relay(100).await;
    let mut events = Events::open(&relay.api).await;
    sleep(3 * HEAD_TIMEOUT).await;
    relay.api.check_in(1).await.unwrap();
    loop {
        if let Event::Round(state) = events.next().await.expect("the stream is still there")
            && state.checked_in == 1
        {
            break;
        }
    }
}

#[tokio::test]
async fn more_connections_than_there_are_places_wait_until_one_is_free() {
    let relay = relay(2).await;
    let begun = Instant::now();
    let _silent = (connect(&relay).await, connect(&relay).await);
    // Connections are taken in their order: this one once one of the silent two was closed.
    assert_eq!(relay.api.get("/healthz").await.status(), 200);
    assert!(begun.elapsed() >= HEAD_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_it_may() {
    let options = RelayOptions {
        connections_per_address: Some(2),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let mut kept = [connect(&relay).await, connect(&relay).await];
    closed(&mut connect(&relay).await).await;
    for stream in &mut kept {
        healthy(stream).await;
    }
    drop(kept);
    // Once the relay has noticed that one is gone, there is a place again.
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let mut stream = connect(&relay).await;
        if stream.write_all(HEALTHY).await.is_ok() && stream.read_u8().await.is_ok() {
            break;
        }
        assert!(Instant::now() < end, "no place is given back");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A relay with a file too large for the buffers between it and a client, and with little patience.
async fn with_a_large_file(folder: &TempDir) -> TestRelay {
    std::fs::write(folder.path().join("large.bin"), vec![7; LARGE]).unwrap();
    let options = RelayOptions {
        head_timeout: HEAD_TIMEOUT,
        answer_timeout: HEAD_TIMEOUT,
        page: Some(folder.path().to_owned()),
        ..RelayOptions::default()
    };
    TestRelay::over(FaultyStore::new(), &[], options).await
}

const LARGE: usize = 24 << 20;

#[tokio::test]
async fn an_answer_that_is_not_taken_is_given_up() {
    let folder = TempDir::new().unwrap();
    let relay = with_a_large_file(&folder).await;
    let mut stalled = connect(&relay).await;
    let begun = Instant::now();
    stalled
        .write_all(b"GET /large.bin HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(4 * HEAD_TIMEOUT).await;
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(5), stalled.read_to_end(&mut rest));
    let _ = end.await.expect("the relay has closed the connection");
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(rest.len() < LARGE, "all {} bytes came", rest.len());
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_is_not() {
    let folder = TempDir::new().unwrap();
    let relay = with_a_large_file(&folder).await;
    let mut slow = connect(&relay).await;
    slow.write_all(b"GET /large.bin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let (mut piece, mut taken) = (vec![0; LARGE / 24], 0);
    loop {
        let length = slow.read(&mut piece).await.unwrap();
        if length == 0 {
            break;
        }
        // It takes several times as long as one piece may, and each piece much less.
        let before = taken / (LARGE / 24);
        taken += length;
        if taken / (LARGE / 24) > before {
            sleep(HEAD_TIMEOUT / 6).await;
        }
    }
    assert!(taken > LARGE, "only {taken} bytes came");
}

/// As many connections as were asked for, or as this process may have files, from `address`.
async fn flood(base: &str, address: &str, wanted: usize) -> Vec<TcpStream> {
    let limit = unsaid_relay::open_files::raise().unwrap_or(u64::MAX);
    // Others' tests run in this process, too.
    let many = wanted.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(1_000));
    assert!(
        many >= 3_000,
        "this process may have only {limit} files open: raise the limit (ulimit -n)"
    );
    let begun = Instant::now();
    let to: SocketAddr = base.strip_prefix("http://").unwrap().parse().unwrap();
    let connect = |_| async {
        let socket = TcpSocket::new_v4().unwrap();
        // Closed by a reset: thousands that wait out their end would leave no ports to other tests.
        socket.set_zero_linger().unwrap();
        socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        socket.connect(to).await
    };
    let mut streams = Vec::with_capacity(many);
    // No more at once than the operating system queues for the relay.
    for first in (0..many).step_by(500) {
        let some = (first..many.min(first + 500)).map(connect);
        // One that is refused is an attempt, too.
        streams.extend(futures_util::future::join_all(some).await.into_iter().flatten());
    }
    println!("{} connections within {:?}", streams.len(), begun.elapsed());
    streams
}

/// Memory of a process in kB, as the kernel counts what is resident.
#[cfg(target_os = "linux")]
fn resident_kb(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ten_thousand_idle_connections_are_held_and_hold_up_nobody() {
    let folder = folder_with_task();
    let store = folder.path().join("relay.redb");
    let places = [
        "--max-connections",
        "12000",
        "--connections-per-address",
        "0",
        "--store",
    ];
    let arguments = [&places[..], &[store.to_str().unwrap()]].concat();
    let program = Program::start(folder.path(), &arguments);
    let api = program.api();
    api.take_part(1).await;
    let before = resident_kb(program.child.id());
    let mut idle = flood(&program.base, "127.0.0.1", 10_000).await;
    let begun = Instant::now();
    for client in 2..=3 {
        api.take_part(client).await;
    }
    assert_eq!(api.state().await.round, 2);
    let took = begun.elapsed();
    let each = (resident_kb(program.child.id()).saturating_sub(before)) as f64 / idle.len() as f64;
    println!("two clients took part within {took:?}; {each:.1} kB for each idle connection");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(each < 32.0, "{each:.1} kB for each idle connection");
    // They are held indeed: the first and the last can still ask.
    healthy(idle.first_mut().unwrap()).await;
    healthy(idle.last_mut().unwrap()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_flood_from_one_address_leaves_places_for_others() {
    let relay = TestRelay::over(FaultyStore::new(), &[], RelayOptions::default()).await;
    let idle = flood(&relay.api.base, "127.0.0.2", 6_000).await;
    let begun = Instant::now();
    assert_eq!(relay.api.get("/healthz").await.status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(idle);
}

#[tokio::test]
async fn a_relay_that_stops_waits_for_requests_and_not_for_silence() {
    let options = RelayOptions {
        head_timeout: Duration::from_secs(60),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let api = relay.api.clone();
    assert_eq!(api.get("/healthz").await.status(), 200); // its connection is kept
    let _silent = connect(&relay).await;
    api.check_in(1).await.unwrap();
    let frame = api.frame(1).await.encode();
    let (head, tail) = frame.split_at(100);
    let mut upload = connect(&relay).await;
    let header = format!(
        "POST /v1/tasks/tiny/updates HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
         content-type: application/vnd.unsaid.update\r\n\r\n",
        frame.len()
    );
    upload.write_all(header.as_bytes()).await.unwrap();
    upload.write_all(head).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let finish = async {
        sleep(Duration::from_millis(300)).await; // the relay has been told to stop by then
        upload.write_all(tail).await.unwrap();
        let mut answer = [0; 12];
        upload.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    };
    futures_util::future::join(relay.stop(), finish).await;
    let refused = api.http.get(api.url("/healthz")).send().await;
    assert!(refused.is_err(), "nobody listens any more");
}
