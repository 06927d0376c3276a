//! How rounds open, close, and go on after a restart.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use unsaid_protocol::{CheckInReply, ProblemKind, RoundMetrics, RoundPhase};
use unsaid_relay::{
    Relay, RelayOptions, StartError,
    clock::{Clock, SystemClock},
    live::OpenError,
    store::{RedbStore, Store},
};

use crate::harness::*;

#[tokio::test]
async fn check_in_is_idempotent_and_reporters_wait() {
    let relay = TestRelay::start(&[]).await;
    assert_eq!(relay.api.state().await.phase, RoundPhase::Idle);
    for _ in 0..3 {
        assert!(matches!(
            relay.api.check_in(1).await,
            Ok(CheckInReply::Train { round: 1, .. })
        ));
    }
    let state = relay.api.state().await;
    assert_eq!((state.phase, state.checked_in), (RoundPhase::Collecting, 1));
    assert!((1..=60_000).contains(&state.deadline_ms.unwrap()));
    relay.api.take_part(1).await;
    assert!(matches!(
        relay.api.check_in(1).await,
        Ok(CheckInReply::Wait { round: 1, .. })
    ));
}

#[tokio::test]
async fn the_deadline_closes_a_round_without_those_who_left() {
    let relay = TestRelay::start(&["rounds.deadline_ms=400"]).await;
    let before = relay.api.model(relay.api.state().await.model).await;
    relay.api.check_in(3).await.unwrap(); // and its tab is closed
    relay.api.take_part(1).await;
    relay.api.take_part(2).await;
    until("publication", async || relay.api.state().await.round == 2).await;
    let rounds = relay.api.rounds().await;
    assert_eq!((rounds[1].clients, rounds[1].checked_in), (2, 3));
    assert_eq!(rounds[1].model, expected_model(&before, &[1, 2]));
    assert!(rounds[1].duration_ms >= 400);
}

#[tokio::test]
async fn too_few_at_the_deadline_are_kept_and_none_makes_it_idle() {
    let relay = TestRelay::start(&["rounds.deadline_ms=150"]).await;
    let before = relay.api.model(relay.api.state().await.model).await;
    relay.api.check_in(1).await.unwrap();
    until("idle", async || relay.api.state().await.phase == RoundPhase::Idle).await;
    let frame = relay.api.frame(1).await;
    assert_eq!(
        relay.api.send(&frame).await,
        Ok(accepted(&frame)),
        "a slow client may still report"
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let state = relay.api.state().await;
    assert_eq!(
        (state.round, state.phase, state.received),
        (1, RoundPhase::Collecting, 1)
    );
    relay.api.take_part(2).await;
    until("publication", async || relay.api.state().await.round == 2).await;
    assert_eq!(relay.api.state().await.model, expected_model(&before, &[1, 2]));
}

/// Of rounds 0 to 4. Whatever is asked for that is no page is malformed.
pub async fn check_pages(api: &Api) {
    let numbers = async |query: &str| {
        let path = format!("/v1/tasks/tiny/rounds{query}");
        let rounds = answer::<Vec<RoundMetrics>>(api.get(&path).await).await.unwrap()?;
        Ok(rounds.iter().map(|metrics| metrics.round).collect::<Vec<_>>())
    };
    for (query, expected) in [
        ("", vec![0, 1, 2, 3, 4]),
        ("?limit=2", vec![3, 4]),
        ("?limit=2&before=3", vec![1, 2]),
        ("?before=1", vec![0]),
        ("?before=0", vec![]),
        ("?limit=1000&before=18446744073709551615", vec![0, 1, 2, 3, 4]),
    ] {
        assert_eq!(numbers(query).await, Ok(expected), "{query}");
    }
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=two",
        "?before=",
        "?before=18446744073709551616",
        "?limit=1&limit=2",
        "?from=1",
    ] {
        assert_eq!(numbers(query).await, Err(ProblemKind::Malformed), "{query}");
    }
}

#[tokio::test]
async fn rounds_are_told_page_by_page() {
    let relay = TestRelay::start(&["rounds.target_clients=2"]).await;
    for _ in 1..=4 {
        relay.api.take_part(1).await;
        relay.api.take_part(2).await;
    }
    check_pages(&relay.api).await;
}

#[tokio::test]
async fn a_task_ends_with_its_last_round() {
    let relay = TestRelay::start(&["rounds.limit=1", "rounds.target_clients=2"]).await;
    relay.api.take_part(1).await;
    relay.api.take_part(2).await;
    let state = relay.api.state().await;
    assert_eq!(
        (state.phase, state.round, state.deadline_ms),
        (RoundPhase::Finished, 1, None)
    );
    let reply = relay.api.check_in(3).await;
    assert_eq!(
        reply,
        Ok(CheckInReply::Finished {
            round: 1,
            model: state.model
        })
    );
    let frame = relay.api.frame(3).await;
    assert_eq!(relay.api.send(&frame).await, Err(ProblemKind::RoundClosed));
}

#[tokio::test]
async fn a_restarted_relay_goes_on_where_it_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deep/relay.redb");
    let relay = TestRelay::in_file(&path, &[]).await;
    let start = relay.api.state().await;
    let before = relay.api.model(start.model).await;
    let first = relay.api.take_part(1).await;
    relay.api.check_in(2).await.unwrap();
    relay.stop().await;

    let relay = TestRelay::in_file(&path, &[]).await;
    let state = relay.api.state().await;
    assert_eq!(
        (state.round, state.model, state.received, state.checked_in),
        (1, start.model, 1, 2)
    );
    assert!(state.deadline_ms.unwrap() <= 60_000);
    assert_eq!(relay.api.send(&first).await, Ok(duplicate(&first)));
    let second = relay.api.frame(2).await;
    assert_eq!(
        relay.api.send(&second).await,
        Ok(accepted(&second)),
        "its check-in was before the restart"
    );
    relay.api.take_part(3).await;
    assert_eq!(relay.api.state().await.model, expected_model(&before, &[1, 2, 3]));
    relay.stop().await;

    let relay = TestRelay::in_file(&path, &[]).await;
    assert_eq!(
        relay.api.send(&first).await,
        Ok(duplicate(&first)),
        "closed rounds are remembered"
    );
    assert_eq!(relay.api.rounds().await.len(), 2);
}

#[tokio::test]
async fn another_manifest_with_the_same_model_goes_on_and_another_model_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let relay = TestRelay::in_file(&path, &[]).await;
    let old = relay.api.state().await;
    relay.api.take_part(1).await;
    relay.stop().await;

    let open = |overrides: &[&str]| {
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&path).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Relay::open(vec![task(overrides)], &store, &clock, RelayOptions::default()).map(|_| ())
    };
    let grid = open(&["update.grid_step=0.001"]);
    assert!(matches!(
        grid,
        Err(StartError::Open {
            source: OpenError::OtherGrid { received: 1, .. },
            ..
        })
    ));
    let model = open(&["model.layers=[{type=\"dense\",units=3}]"]);
    assert!(matches!(
        model,
        Err(StartError::Open {
            source: OpenError::OtherModel,
            ..
        })
    ));

    let relay = TestRelay::in_file(&path, &["title=Other"]).await;
    let new = relay.api.state().await;
    assert_eq!((new.round, new.model, new.received), (1, old.model, 1));
    assert_ne!(new.manifest, old.manifest);
    assert_eq!(
        relay.api.try_check_in(2, old.manifest).await.unwrap(),
        Err(ProblemKind::WrongManifest)
    );
    relay.api.take_part(2).await;
}
