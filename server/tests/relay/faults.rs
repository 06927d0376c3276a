//! A store that fails, and clients that stall.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use unsaid_protocol::{CheckInReply, Event, ProblemKind};
use unsaid_relay::RelayOptions;

use crate::{events::Events, harness::*};

#[tokio::test]
async fn a_failed_commit_is_not_acknowledged_and_counts_nothing() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[], RelayOptions::default()).await;
    let api = &relay.api;
    let before = api.model(api.state().await.model).await;
    api.take_part(1).await;
    api.check_in(2).await.unwrap();
    let second = api.frame(2).await;
    for fault in [Fault::BeforeCommit, Fault::Everything] {
        store.set(fault);
        assert_eq!(
            api.send(&second).await,
            Err(ProblemKind::Unavailable),
            "{fault:?}"
        );
        assert_eq!(api.check_in(3).await, Err(ProblemKind::Unavailable), "{fault:?}");
        assert_eq!(api.state().await.received, 1, "{fault:?}");
        assert_eq!(api.get("/readyz").await.status(), 503, "{fault:?}");
        assert_eq!(api.get("/healthz").await.status(), 200, "{fault:?}");
    }
    store.set(Fault::None);
    assert_eq!(
        api.send(&second).await,
        Ok(accepted(&second)),
        "the same bytes are new: nothing was counted"
    );
    assert_eq!(api.get("/readyz").await.status(), 200);
    api.take_part(3).await;
    assert_eq!(api.state().await.model, expected_model(&before, &[1, 2, 3]));
}

#[tokio::test]
async fn a_commit_that_was_written_but_reported_as_failed_is_counted_once() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[], RelayOptions::default()).await;
    let api = &relay.api;
    let before = api.model(api.state().await.model).await;
    for client in 1..=3 {
        api.check_in(client).await.unwrap();
    }
    let frames = [api.frame(1).await, api.frame(2).await, api.frame(3).await];
    for frame in &frames {
        store.set(Fault::AfterCommit);
        assert_eq!(api.send(frame).await, Err(ProblemKind::Unavailable));
        store.set(Fault::None);
        assert_eq!(api.send(frame).await, Ok(duplicate(frame)), "it is on disk, once");
    }
    // The last one published the round, and readers know.
    assert_eq!(api.state().await.round, 2);
    assert_eq!(api.state().await.model, expected_model(&before, &[1, 2, 3]));
    assert_eq!(api.rounds().await[1].clients, 3);
}

#[tokio::test]
async fn a_round_whose_publication_fails_publishes_later() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(
        store.clone(),
        &["rounds.deadline_ms=300"],
        RelayOptions::default(),
    )
    .await;
    store.set(Fault::BeforePublication); // from the start: the deadline may come right after the second update
    relay.api.take_part(1).await;
    relay.api.take_part(2).await;
    until("a failure", async || store.struck() > 0).await;
    assert_eq!(relay.api.state().await.round, 1);
    store.set(Fault::None);
    until("publication", async || relay.api.state().await.round == 2).await;
    assert_eq!(relay.api.rounds().await[1].clients, 2);
}

#[tokio::test]
async fn a_round_that_was_published_unnoticed_is_told_as_soon_as_the_rounds_can_be_read() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[], RelayOptions::default()).await;
    let api = &relay.api;
    api.take_part(1).await;
    api.take_part(2).await;
    api.check_in(3).await.unwrap();
    let third = api.frame(3).await;
    store.set(Fault::AfterCommit);
    assert_eq!(api.send(&third).await, Err(ProblemKind::Unavailable));
    store.set(Fault::UnreadableRounds);
    assert_eq!(
        api.send(&third).await,
        Ok(duplicate(&third)),
        "the state could be read"
    );
    let mut events = Events::open(api).await;
    assert!(store.struck() >= 2, "and the rounds could not");
    store.set(Fault::None);
    let published = loop {
        match events.next().await.unwrap() {
            Event::Published(metrics) if metrics.round == 1 => break metrics,
            _ => {}
        }
    };
    assert_eq!((published.clients, published.model), (3, api.state().await.model));
}

#[tokio::test]
async fn figures_that_were_stored_unnoticed_are_told() {
    let (_folder, options) = folders();
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &["evaluation.shard=test.shard"], options).await;
    let api = &relay.api;
    until("figures", async || api.rounds().await[0].accuracy.is_some()).await;
    let mut events = Events::open(api).await;
    store.set(Fault::AfterFigures);
    for client in 1..=3 {
        api.take_part(client).await;
    }
    until("a failure", async || store.struck() > 0).await;
    store.set(Fault::None);
    loop {
        if let Some(Event::Evaluated(metrics)) = events.next().await
            && metrics.round == 1
        {
            break;
        }
    }
}

#[tokio::test]
async fn stalled_uploads_are_ended_and_let_others_through() {
    let options = RelayOptions {
        max_uploads: 1,
        upload_timeout: Duration::from_millis(2_000),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let address = relay.api.base.strip_prefix("http://").unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/tasks/tiny/updates HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\
                content-type: application/vnd.unsaid.update\r\n\r\nUNSU";
    slow.write_all(head.as_bytes()).await.unwrap();
    // It holds the only place by now, and gives it back a second before one who asks now would have waited too long.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(
        matches!(relay.api.check_in(1).await, Ok(CheckInReply::Train { .. })),
        "control calls do not wait"
    );
    relay.api.take_part(1).await;
    let mut text = vec![0; 4_096];
    let length = slow.read(&mut text).await.unwrap();
    assert!(
        text[..length].starts_with(b"HTTP/1.1 503"),
        "{}",
        String::from_utf8_lossy(&text[..length])
    );
}

#[tokio::test]
async fn concurrent_copies_of_one_update_are_counted_once() {
    let relay = TestRelay::start(&["rounds.target_clients=9", "rounds.min_clients=9"]).await;
    relay.api.check_in(1).await.unwrap();
    let frame = relay.api.frame(1).await;
    let sends = (0..32).map(|_| {
        let (api, frame) = (relay.api.clone(), frame.clone());
        tokio::spawn(async move { api.send(&frame).await.unwrap() })
    });
    let mut fresh = 0;
    for send in sends.collect::<Vec<_>>() {
        fresh += usize::from(!send.await.unwrap().duplicate);
    }
    assert_eq!(fresh, 1);
    assert_eq!(relay.api.state().await.received, 1);
}
