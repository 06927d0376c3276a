//! Strategies through the relay: what they remember survives a restart, and what they keep does not outlive its round.

use std::{path::Path, sync::Arc};

use tempfile::TempDir;
use unsaid_protocol::{ContentHash, ProblemKind, TaskId, UpdateFrame, UpdateReply};
use unsaid_relay::{
    Relay, RelayOptions, StartError,
    clock::{Clock, SystemClock},
    live::OpenError,
    store::{RedbStore, Store},
};

use crate::harness::*;

const ADAM: [&str; 2] = [
    "strategy.server.type=fed-adam",
    "strategy.server.learning_rate=0.1",
];

const SCAFFOLD: [&str; 3] = [
    "strategy.aggregation.type=scaffold",
    "strategy.aggregation.population=10",
    "training.steps_per_epoch=5",
];

/// The file of the model that comes out of `before` when these three clients are counted, with the shared control variate that
/// Karimireddy et al. 2020, algorithm 1, gives: they are 3 of 10, and K·η is 5 · 0.1.
fn with_control(before: &[u8], clients: [u8; 3]) -> Vec<u8> {
    let model = task(&SCAFFOLD).model;
    let (x, c) = model.from_safetensors_with_control(before).unwrap();
    let mean = |at: usize| {
        let sum: i32 = clients.iter().map(|&client| coordinates(client)[at]).sum();
        f64::from(sum) * GRID_STEP / 3.0
    };
    let reach = 5.0 * f64::from(0.1_f32);
    let next = |at: usize| (f64::from(x[at]) + mean(at)) as f32;
    let control = |at: usize| {
        let c = c.get(at).map_or(0.0, |&c| f64::from(c));
        (c + 3.0 / 10.0 * (-c - mean(at) / reach)) as f32
    };
    let all = |of: &dyn Fn(usize) -> f32| (0..PARAMETERS).map(of).collect::<Vec<_>>();
    model
        .to_safetensors_with_control(&all(&next), &all(&control))
        .unwrap()
}

#[tokio::test]
async fn the_control_variate_is_in_the_models_file_and_goes_with_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    // A task that has had no control variates yet: they begin as zeros.
    let relay = TestRelay::in_file(&path, &[]).await;
    let first = relay.api.model(relay.api.state().await.model).await;
    relay.stop().await;
    let relay = TestRelay::in_file(&path, &SCAFFOLD).await;
    let mut files = vec![first];
    for _ in 0..3 {
        for client in 1..=3 {
            relay.api.take_part(client).await;
        }
        let state = relay.api.state().await;
        let file = relay.api.model(state.model).await;
        assert_eq!(file, with_control(files.last().unwrap(), [1, 2, 3]));
        assert_eq!(
            relay.api.rounds().await.last().unwrap().model_bytes,
            file.len() as u64
        );
        files.push(file);
    }
    relay.stop().await;
    // The clients keep theirs: so neither the rule can go, nor the population change.
    let more = [&SCAFFOLD[..], &["strategy.aggregation.population=20"]].concat();
    for other in [&[][..], &ADAM, &more] {
        let refused = open(&path, other).err().unwrap();
        assert!(
            matches!(
                &refused,
                StartError::Open {
                    source: OpenError::OtherControl,
                    ..
                }
            ),
            "{refused}"
        );
    }
    // Other things can: the control.
    let longer = [&SCAFFOLD[..], &["training.steps_per_epoch=6"]].concat();
    assert!(open(&path, &longer).is_ok());
}

fn open(path: &Path, overrides: &[&str]) -> Result<Arc<Relay>, StartError> {
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(path).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Relay::open(vec![task(overrides)], &store, &clock, RelayOptions::default())
}

#[tokio::test]
async fn local_training_cannot_change_under_updates_that_make_a_control_variate() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let relay = TestRelay::in_file(&path, &SCAFFOLD).await;
    relay.api.take_part(1).await;
    relay.stop().await;
    let other = [&SCAFFOLD[..], &["training.steps_per_epoch=6"]].concat();
    let refused = open(&path, &other).err().unwrap();
    assert!(
        matches!(
            &refused,
            StartError::Open {
                source: OpenError::OtherTraining { received: 1 },
                ..
            }
        ),
        "{refused}"
    );
    assert!(open(&path, &SCAFFOLD).is_ok());
}

/// The model after each of four rounds, in a relay that is stopped and started after every `every` of them.
async fn models(overrides: &[&str], every: u32) -> Vec<ContentHash> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let mut relay = TestRelay::in_file(&path, overrides).await;
    let mut models = Vec::new();
    for round in 1..=4 {
        for client in 1..=3 {
            if round % every == 0 && client == 3 {
                // In the middle of the round, too: what was gathered goes on.
                relay.stop().await;
                relay = TestRelay::in_file(&path, overrides).await;
            }
            relay.api.take_part(client * round as u8).await;
        }
        models.push(relay.api.state().await.model);
    }
    relay.stop().await;
    models
}

#[tokio::test]
async fn a_restart_changes_no_bit_of_what_a_strategy_makes() {
    let clipping = [
        "strategy.aggregation.type=centred-clipping",
        "strategy.aggregation.radius_l2=0.01",
        ADAM[0],
        ADAM[1],
    ];
    let median = ["strategy.aggregation.type=geometric-median"];
    for overrides in [&ADAM[..], &clipping, &median, &SCAFFOLD] {
        let without = models(overrides, 100).await;
        let with = models(overrides, 1).await;
        assert_eq!(without, with, "{overrides:?}");
    }
    let plain = models(&[], 100).await;
    let adam = models(&ADAM, 100).await;
    assert_ne!(plain[3], adam[3], "the control: the strategy is used");
}

#[tokio::test]
async fn updates_are_kept_on_disk_until_their_round_closes_and_no_longer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let median = ["strategy.aggregation.type=coordinate-median"];
    let relay = TestRelay::in_file(&path, &median).await;
    let before = relay.api.model(relay.api.state().await.model).await;
    relay.api.take_part(1).await;
    relay.api.take_part(2).await;
    relay.stop().await;
    let task: TaskId = "tiny".parse().unwrap();
    let kept = |path| {
        let store = RedbStore::open(path).unwrap();
        store.load(&task).unwrap().unwrap().updates
    };
    let mut expected = vec![
        (update_id(1, 1), coordinates(1)),
        (update_id(1, 2), coordinates(2)),
    ];
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(kept(&path), expected);
    let relay = TestRelay::in_file(&path, &median).await;
    relay.api.take_part(3).await;
    let state = relay.api.state().await;
    assert_eq!(
        (state.round, state.model),
        (2, expected_median(&before, &[1, 2, 3]))
    );
    relay.stop().await;
    assert_eq!(kept(&path), []);
    // With a mean, nothing is kept at all.
    let path = folder.path().join("mean.redb");
    let relay = TestRelay::in_file(&path, &[]).await;
    relay.api.take_part(1).await;
    relay.stop().await;
    assert_eq!(kept(&path), []);
}

#[tokio::test]
async fn the_rule_cannot_change_under_updates_that_were_gathered_for_another() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let relay = TestRelay::in_file(&path, &[]).await;
    relay.api.take_part(1).await;
    relay.stop().await;
    let median = ["strategy.aggregation.type=coordinate-median"];
    let refused = open(&path, &median).err().unwrap();
    assert!(
        matches!(
            &refused,
            StartError::Open {
                source: OpenError::OtherRule { received: 1 },
                ..
            }
        ),
        "{refused}"
    );
    // The optimiser may: it is asked only when the round closes.
    let relay = TestRelay::in_file(&path, &ADAM).await;
    assert_eq!(relay.api.state().await.received, 1);
}

#[tokio::test]
async fn a_weighted_update_needs_its_weight() {
    let relay = TestRelay::start(&[
        "strategy.aggregation.type=weighted-mean",
        "strategy.aggregation.max_weight=600",
    ])
    .await;
    relay.api.check_in(1).await.unwrap();
    let plain = relay.api.frame(1).await;
    let weighing = |weight: i32| UpdateFrame {
        coordinates: [&plain.coordinates[..], &[weight]].concat(),
        ..plain.clone()
    };
    for bad in [
        plain.clone(),
        weighing(0),
        weighing(-1),
        weighing(601),
        weighing(i32::MAX),
    ] {
        assert_eq!(
            relay.api.send(&bad).await,
            Err(ProblemKind::Unacceptable),
            "{bad:?}"
        );
    }
    assert_eq!(relay.api.state().await.received, 0);
    let good = weighing(600);
    assert_eq!(relay.api.send(&good).await, Ok(accepted(&good)));
}

#[tokio::test]
async fn an_asynchronous_round_counts_what_started_from_an_older_model() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let buffered = [
        "strategy.aggregation.type=fed-buff",
        "strategy.aggregation.max_staleness=2",
        "rounds.min_clients=3",
    ];
    let relay = TestRelay::in_file(&path, &buffered).await;
    // One that comes early and takes its time.
    relay.api.check_in(9).await.unwrap();
    let slow = relay.api.frame(9).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    for client in 4..=5 {
        relay.api.take_part(client).await;
    }
    relay.stop().await;
    let relay = TestRelay::in_file(&path, &buffered).await;
    let state = relay.api.state().await;
    assert_eq!((state.round, state.received), (2, 2));
    let before = relay.api.model(state.model).await;
    let reply = UpdateReply {
        round: 2,
        ..accepted(&slow)
    };
    assert_eq!(relay.api.send(&slow).await, Ok(reply), "the open round counts it");
    let expected = moved_model(&before, |at| {
        let fresh = f64::from(coordinates(4)[at]) + f64::from(coordinates(5)[at]);
        (fresh + 2_f64.powf(-0.5) * f64::from(coordinates(9)[at])) * GRID_STEP / 3.0
    });
    assert_eq!(relay.api.rounds().await[2].model, expected);
    assert_eq!(relay.api.rounds().await[2].clients, 3);
    // Without a check-in there is nothing to be late for.
    let mut stranger = slow.clone();
    (stranger.client, stranger.update) = (client_id(8), update_id(1, 8));
    assert_eq!(relay.api.send(&stranger).await, Err(ProblemKind::RoundClosed));
    relay.stop().await;
}
