//! Server-sent events.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt};
use unsaid_protocol::{Event, RoundPhase};

use crate::harness::*;

pub struct Events {
    bytes: Pin<Box<dyn Stream<Item = Vec<u8>>>>,
    text: String,
}

impl Events {
    pub async fn open(api: &Api) -> Self {
        let response = api.get("/v1/tasks/tiny/events").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let bytes = response
            .bytes_stream()
            .filter_map(async |part| part.ok().map(|part| part.to_vec()));
        Self {
            bytes: Box::pin(bytes),
            text: String::new(),
        }
    }

    /// The next block, or none at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let part = tokio::time::timeout(Duration::from_secs(10), self.bytes.next())
                .await
                .expect("an event comes")?;
            self.text.push_str(std::str::from_utf8(&part).unwrap());
        }
    }

    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::trim)
            };
            if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                return Some(Event::read(name, data).unwrap().expect("a known event"));
            }
        }
    }
}

#[tokio::test]
async fn events_tell_the_story_of_a_round_in_order() {
    let relay = TestRelay::start(&[]).await;
    let mut events = Events::open(&relay.api).await;
    assert!(matches!(events.next().await, Some(Event::Round(state)) if state.phase == RoundPhase::Idle));
    assert!(matches!(events.next().await, Some(Event::Published(metrics)) if metrics.round == 0));
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    let mut received = 0;
    let published = loop {
        match events.next().await.unwrap() {
            Event::Round(state) => {
                assert_eq!(state.round, 1);
                assert!(state.received >= received, "counts only grow");
                received = state.received;
            }
            Event::Published(metrics) => break metrics,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((published.round, published.clients), (1, 3));
    let Some(Event::Round(state)) = events.next().await else {
        panic!("the next round opens")
    };
    assert_eq!(
        (state.round, state.phase, state.model),
        (2, RoundPhase::Idle, published.model)
    );
}

#[tokio::test]
async fn counts_reach_readers_even_when_nothing_follows() {
    let relay = TestRelay::start(&[]).await;
    let mut events = Events::open(&relay.api).await;
    relay.api.check_in(1).await.unwrap();
    relay.api.check_in(2).await.unwrap();
    loop {
        if let Some(Event::Round(state)) = events.next().await
            && state.checked_in == 2
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_reader_that_connects_again_is_sent_where_things_stand() {
    let relay = TestRelay::start(&[]).await;
    drop(Events::open(&relay.api).await);
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    relay.api.take_part(1).await;
    let mut events = Events::open(&relay.api).await;
    let Some(Event::Round(state)) = events.next().await else {
        panic!("the round comes first")
    };
    assert_eq!((state.round, state.received), (2, 1));
    assert!(matches!(events.next().await, Some(Event::Published(metrics)) if metrics.round == 1));
}

#[tokio::test]
async fn shutdown_ends_the_stream() {
    let relay = TestRelay::start(&[]).await;
    let mut events = Events::open(&relay.api).await;
    events.next().await.unwrap();
    relay.stop().await;
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn an_idle_stream_is_kept_open_by_comments() {
    let store = FaultyStore::new();
    let options = unsaid_relay::RelayOptions {
        keep_alive: Duration::from_millis(50),
        ..unsaid_relay::RelayOptions::default()
    };
    let relay = TestRelay::over(store, &[], options).await;
    let mut events = Events::open(&relay.api).await;
    loop {
        if events.block().await.unwrap().starts_with(':') {
            break;
        }
    }
}
