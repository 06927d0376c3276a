//! Updates that come slowly, or not at all: what they may hold, and for how long.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use unsaid_protocol::ProblemKind;
use unsaid_relay::RelayOptions;

use crate::harness::*;

/// An upload of so many bytes from `address`, of which none is sent yet.
async fn upload(relay: &TestRelay, address: &str, task: &str, length: usize) -> TcpStream {
    let to: SocketAddr = relay.api.base.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let head = format!(
        "POST /v1/tasks/{task}/updates HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\
         content-type: application/vnd.unsaid.update\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The status that an upload is answered.
async fn status(stream: &mut TcpStream) -> String {
    let mut answer = [0; 12];
    let answered = timeout(Duration::from_secs(20), stream.read_exact(&mut answer));
    answered.await.expect("it is answered in time").unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

/// The places of uploads that are free, as operators are told.
async fn free(relay: &TestRelay) -> usize {
    let page = relay.api.get("/metrics").await.text().await.unwrap();
    let mut lines = page.lines();
    let line = lines.find_map(|line| line.strip_prefix("unsaid_uploads_free "));
    line.unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_memory_that_one_address_holds_leaves_some_for_another_address_and_task() {
    let options = RelayOptions {
        upload_memory: 64 << 10,
        upload_silence: Duration::from_secs(60), // they are not given up while this test looks
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    // 4,002 parameters: four updates of it are all the memory.
    relay
        .relay
        .add(task(&["task=wide", "model.input=[2000]"]))
        .unwrap();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut stream = upload(&relay, "127.0.0.2", "wide", 116 + 4 * 4_002).await;
        stream.write_all(b"u").await.unwrap();
        stalled.push(stream);
    }
    until("they are received", async || free(&relay).await < 128).await;
    sleep(Duration::from_millis(300)).await;
    let other = Api {
        http: reqwest::Client::builder()
            .local_address("127.0.0.3".parse::<std::net::IpAddr>().unwrap())
            .build()
            .unwrap(),
        ..relay.api.clone()
    };
    timeout(Duration::from_secs(10), other.take_part(1))
        .await
        .expect("another address is not held up");
    assert_eq!(
        free(&relay).await,
        127,
        "one of them has its turn, and the others no place"
    );
    drop(stalled);
}

#[tokio::test]
async fn an_upload_that_falls_silent_is_given_up_and_one_that_trickles_in_is_not() {
    const SILENCE: Duration = Duration::from_millis(600);
    let options = RelayOptions {
        upload_silence: SILENCE,
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    relay.api.check_in(1).await.unwrap();
    let frame = relay.api.frame(1).await.encode();

    let begun = Instant::now();
    let mut silent = upload(&relay, "127.0.0.1", "tiny", frame.len()).await;
    silent.write_all(&frame[..100]).await.unwrap();
    assert_eq!(
        status(&mut silent).await,
        ProblemKind::Unavailable.status().to_string()
    );
    let took = begun.elapsed();
    assert!((SILENCE..Duration::from_secs(15)).contains(&took), "{took:?}");

    let begun = Instant::now();
    let mut slow = upload(&relay, "127.0.0.1", "tiny", frame.len()).await;
    for part in frame.chunks(frame.len() / 12) {
        slow.write_all(part).await.unwrap();
        sleep(SILENCE / 6).await;
    }
    assert_eq!(status(&mut slow).await, "200");
    assert!(
        begun.elapsed() > 2 * SILENCE,
        "it took longer than one silence may"
    );
}

#[tokio::test]
async fn an_update_whose_client_is_gone_has_its_place_and_memory_until_it_is_counted() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[], RelayOptions::default()).await;
    relay.api.check_in(1).await.unwrap();
    let frame = relay.api.frame(1).await.encode();
    // After a commit that failed the task's thread reads the store, and here it does so for as long as this test likes.
    store.set(Fault::BeforeCommit);
    assert_eq!(relay.api.check_in(2).await, Err(ProblemKind::Unavailable));
    store.set(Fault::HeldLoading);
    until("the thread is busy", async || store.struck() > 0).await;

    let mut gone = upload(&relay, "127.0.0.1", "tiny", frame.len()).await;
    gone.write_all(&frame).await.unwrap();
    until("it is received", async || free(&relay).await == 127).await;
    sleep(Duration::from_millis(300)).await;
    drop(gone);
    sleep(Duration::from_millis(300)).await;
    let meanwhile = free(&relay).await;
    store.set(Fault::None); // first: a relay whose thread is held would not end
    assert_eq!(meanwhile, 127, "its coordinates were still here");
    until("it is counted", async || relay.api.state().await.received == 1).await;
    until("its place is free", async || free(&relay).await == 128).await;
}
