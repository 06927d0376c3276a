//! Selection by chance, and what is kept of a task: over real HTTP, over a restart, and on two relays of one database.

use std::collections::BTreeSet;

use tempfile::TempDir;
use unsaid_protocol::{CheckInReply, ProblemKind, RoundPhase};
use unsaid_relay::{
    RelayOptions,
    http::admin::AdminToken,
    store::{RedbStore, Store},
};

use crate::harness::*;

const BY_CHANCE: [&str; 1] = ["rounds.selection={ type = \"chance\", probability = 0.5 }"];
const TOKEN: &str = "the operator's own token";

/// Who of the first hundred clients is let in, of a hundred that ask one of `relays` in turn.
async fn drawn(relays: &[&Api]) -> BTreeSet<u8> {
    let mut drawn = BTreeSet::new();
    for (client, relay) in (1..=100).zip(relays.iter().cycle()) {
        match relay.check_in(client).await.unwrap() {
            CheckInReply::Train { .. } => drop(drawn.insert(client)),
            CheckInReply::Wait { retry_after_ms, .. } => {
                assert!((50_000..=75_000).contains(&retry_after_ms), "{retry_after_ms}");
            }
            other => panic!("{other:?}"),
        }
    }
    drawn
}

#[tokio::test]
async fn who_was_drawn_is_drawn_after_a_restart_too_and_nothing_shows_the_key() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let start = async || {
        let options = RelayOptions {
            admin_token: AdminToken::new(TOKEN),
            ..RelayOptions::default()
        };
        let store = std::sync::Arc::new(RedbStore::open(&path).unwrap());
        TestRelay::over(store, &BY_CHANCE, options).await
    };
    let relay = start().await;
    assert_eq!(relay.api.state().await.phase, RoundPhase::Idle);
    let first = drawn(&[&relay.api]).await;
    assert!((1..100).contains(&first.len()), "{first:?}"); // all or none: once in 2⁹⁹
    assert_eq!(drawn(&[&relay.api]).await, first, "asking again does not help");
    relay.stop().await;
    let relay = start().await;
    assert_eq!(drawn(&[&relay.api]).await, first);
    assert_eq!(relay.api.state().await.checked_in as usize, first.len());
    let other = (1..=100).find(|client| !first.contains(client)).unwrap();
    let frame = relay.api.frame(other).await;
    assert_eq!(relay.api.send(&frame).await, Err(ProblemKind::NotCheckedIn));

    let mut told = String::new();
    for path in [
        "/v1/tasks",
        "/v1/tasks/tiny/manifest",
        "/v1/tasks/tiny/round",
        "/v1/tasks/tiny/rounds",
        "/v1/admin/status",
        "/metrics",
        "/readyz",
    ] {
        let request = relay.api.http.get(relay.api.url(path)).bearer_auth(TOKEN);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        told += &answer.text().await.unwrap();
    }
    relay.stop().await;
    let head = RedbStore::open(&path).unwrap().load(&task(&[]).manifest.task);
    let head = head.unwrap().unwrap().head;
    let key = head.draw_key.clone().expect("it is kept with the head");
    let as_numbers = serde_json::to_string(&key).unwrap();
    let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for form in [&as_numbers, &hex, &as_numbers[1..20], &hex[..8]] {
        assert!(!told.contains(form), "{form}");
        assert!(
            !format!("{head:?}").contains(form),
            "nor is it logged with the head"
        );
    }
    // The control: it is where it has to be.
    assert!(serde_json::to_string(&head).unwrap().contains(&as_numbers));
}

/// Over five rounds of a hundred clients, which are closed by three of those that are in: of 500 draws 250 are expected, with a deviation of
/// 11.2; six of them are a false alarm in 500 million, and two rounds are alike once in 2¹⁰⁰.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_of_one_database_draw_alike_and_each_round_anew() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let one = crate::postgres::relay(&database, &BY_CHANCE).await;
    let two = crate::postgres::relay(&database, &BY_CHANCE).await;
    let mut rounds = Vec::new();
    for round in 1..=5 {
        let asked = drawn(&[&one.api, &two.api]).await;
        assert_eq!(drawn(&[&two.api, &one.api]).await, asked, "at the other relay");
        for client in asked.iter().take(3) {
            let frame = frame(&two.api.state().await, *client);
            two.api.send(&frame).await.unwrap();
        }
        until("both follow", async || {
            one.api.state().await.round == round + 1 && two.api.state().await.round == round + 1
        })
        .await;
        rounds.push(asked);
    }
    let all: usize = rounds.iter().map(BTreeSet::len).sum();
    assert!((183..=317).contains(&all), "{all}");
    assert!(
        rounds.windows(2).all(|pair| pair[0] != pair[1]),
        "each round draws anew"
    );
}

async fn kept(api: &Api) -> Vec<bool> {
    let mut kept = Vec::new();
    for round in api.rounds().await {
        let path = format!("/v1/tasks/tiny/models/{}", round.model);
        kept.push(api.get(&path).await.status() == 200);
    }
    kept
}

async fn publish_five(api: &Api) {
    for _ in 0..5 {
        for client in 1..=3 {
            api.take_part(client).await;
        }
    }
}

#[tokio::test]
async fn as_many_models_are_kept_as_the_task_says_whatever_the_relay_does_otherwise() {
    for (overrides, relays_own, expected) in [
        (
            &["retention.keep_models=2"][..],
            64,
            [false, false, false, false, true, true],
        ),
        (&["retention.keep_models=9"], 1, [true; 6]),
        (&[], 3, [false, false, false, true, true, true]),
    ] {
        let folder = TempDir::new().unwrap();
        let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
        let store = std::sync::Arc::new(store.keeping(relays_own));
        let relay = TestRelay::over(store, overrides, RelayOptions::default()).await;
        publish_five(&relay.api).await;
        assert_eq!(kept(&relay.api).await, expected, "{overrides:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_keeps_as_many_models_as_the_task_says() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let relay = crate::postgres::relay(&database, &["retention.keep_models=2"]).await;
    publish_five(&relay.api).await;
    assert_eq!(kept(&relay.api).await, [false, false, false, false, true, true]);
}
