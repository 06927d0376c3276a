//! Central differential privacy through the relay: what it refuses, what it tells, and what a restart changes.

use std::sync::Arc;

use tempfile::TempDir;
use unsaid_protocol::{CheckInReply, ProblemKind, UpdateFrame};
use unsaid_relay::{
    Relay, RelayOptions, StartError,
    clock::{Clock, SystemClock},
    key::RelayKey,
    live::OpenError,
    store::{RedbStore, Store},
};

use crate::harness::*;

const CENTRAL: [&str; 3] = [
    "privacy.mode=central",
    "privacy.adjacency=add-remove",
    "privacy.delta=1e-5",
];

const ADAPTIVE: [&str; 5] = [
    CENTRAL[0],
    CENTRAL[1],
    CENTRAL[2],
    "privacy.adaptive_clip.initial_l2=0.1",
    "privacy.adaptive_clip.count_noise=2",
];

#[tokio::test]
async fn a_client_that_does_not_clip_is_refused_and_counts_nothing() {
    for terms in [&CENTRAL[..], &ADAPTIVE] {
        let relay = TestRelay::start(terms).await;
        relay.api.check_in(1).await.unwrap();
        let state = relay.api.state().await;
        let mut coordinates = coordinates(1);
        // 1,024 steps are the clip norm; the bound is a little above.
        coordinates[0] = 1_100;
        let long = UpdateFrame {
            coordinates,
            ..frame(&state, 1)
        };
        let refused = relay.api.send(&long).await.unwrap_err();
        assert_eq!(refused, ProblemKind::Unacceptable);
        assert_eq!(relay.api.state().await.received, 0);
        relay.api.send(&frame(&state, 1)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_told_of_a_round_beside_its_model_is_the_same_whatever_is_in_the_updates() {
    for terms in [&CENTRAL[..], &ADAPTIVE, &TREE] {
        let mut told = Vec::new();
        // Of a width of one and of two bytes, were it the least that holds them.
        for largest in [127, 128] {
            let relay = TestRelay::start(terms).await;
            for client in 1..=3 {
                relay.api.check_in(client).await.unwrap();
                let mut frame = relay.api.frame(client).await;
                if client == 2 {
                    frame.coordinates[3] = largest;
                }
                // Whoever picks the width by what is in the update is refused.
                let least = relay.api.try_send(frame.encode()).await.unwrap();
                assert_eq!(least.is_err(), client != 2 || largest < 128);
                if least.is_err() {
                    relay.api.send(&frame).await.unwrap();
                }
            }
            let last = relay.api.rounds().await.pop().unwrap();
            let fixed = (UpdateFrame::HEADER_LEN + 2 * PARAMETERS) as u64;
            assert_eq!((last.round, last.clients, last.bytes_up), (1, 3, 3 * fixed));
            told.push((last.bytes_up, last.checked_in, last.model_bytes));
        }
        assert_eq!(told[0], told[1]);
    }
}

/// The whole noise is checked where it is made (`src/central/tests.rs`); here, that it is added at all, once for a round, and paid for.
#[tokio::test]
async fn rounds_are_noised_and_their_cost_adds_up_over_restarts() {
    for terms in [&CENTRAL[..], &ADAPTIVE] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("relay.redb");
        let mut relay = TestRelay::in_file(&path, terms).await;
        for round in 1..=4 {
            let before = relay.api.model(relay.api.state().await.model).await;
            for client in 1..=3 {
                if client == 3 && round % 2 == 0 {
                    // In the middle of a round: what was gathered, and the number of short updates, go on.
                    relay.stop().await;
                    relay = TestRelay::in_file(&path, terms).await;
                }
                relay.api.take_part(client).await;
            }
            let rounds = relay.api.rounds().await;
            let last = rounds.last().unwrap();
            assert_eq!((last.round, last.clients), (round, 3));
            assert_ne!(last.model, expected_model(&before, &[1, 2, 3]), "there is noise");
            let privacy = last.privacy.unwrap();
            // s²/2z² a round, add/remove, z = 1.5.
            let rho = round as f64 / 4.5;
            assert!(
                (privacy.rho / rho - 1.0).abs() < 1e-3,
                "round {round}: {privacy:?}"
            );
            assert!(
                privacy
                    .epsilon
                    .is_some_and(|epsilon| epsilon > 0.0 && epsilon < 20.0)
            );
            let adapts = terms.len() > CENTRAL.len();
            assert_eq!(privacy.next_clip_l2 == 1.0, !adapts);
        }
        let figures = relay.api.get("/metrics").await.text().await.unwrap();
        let told = figures
            .lines()
            .find(|line| line.starts_with("unsaid_task_epsilon{"));
        assert!(told.is_some_and(|line| !line.ends_with("NaN")), "{told:?}");
        relay.stop().await;
    }
}

const TREE: [&str; 6] = [
    CENTRAL[0],
    CENTRAL[1],
    CENTRAL[2],
    "privacy.mechanism=tree-aggregation",
    "privacy.tree.restart_every=4",
    "privacy.tree.min_separation=3",
];

#[tokio::test]
async fn a_tree_goes_on_over_restarts_and_ends_with_its_rounds_or_its_terms() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let mut relay = TestRelay::in_file(&path, &TREE).await;
    // Three apart, nodes of 1, 2 and 4 rounds: 1; 1+1; 1+1; 2+2+4. Then another tree.
    for (round, nodes) in (1_u8..).zip([1.0, 2.0, 2.0, 8.0, 9.0]) {
        for client in 1..=3 {
            relay.api.take_part(10 * (round % 3) + client).await;
        }
        let rounds = relay.api.rounds().await;
        let last = rounds.last().unwrap();
        assert_eq!((last.round, last.clients), (round.into(), 3));
        let rho = last.privacy.unwrap().rho;
        assert!((rho / (nodes / 4.5) - 1.0).abs() < 1e-3, "round {round}: {rho}");
        relay.stop().await;
        relay = TestRelay::in_file(&path, &TREE).await;
    }
    // Round 6 would be the second leaf. Under other terms it is a first one, and what was spent stays spent.
    relay.stop().await;
    let other = [&TREE[..5], &["privacy.tree.min_separation=2"]].concat();
    relay = TestRelay::in_file(&path, &other).await;
    for client in 101..=103 {
        relay.api.take_part(client).await;
    }
    let rho = relay.api.rounds().await.last().unwrap().privacy.unwrap().rho;
    assert!((rho / (10.0 / 4.5) - 1.0).abs() < 1e-3, "{rho}");
    relay.stop().await;
}

#[tokio::test]
async fn a_round_of_a_tree_that_a_put_back_store_repeats_has_other_noise() {
    let folder = TempDir::new().unwrap();
    let [path, copy] = ["relay.redb", "copy.redb"].map(|name| folder.path().join(name));
    let relay = TestRelay::in_file(&path, &TREE).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    relay.stop().await;
    std::fs::copy(&path, &copy).unwrap();
    let mut told = Vec::new();
    for path in [&path, &copy] {
        let relay = TestRelay::in_file(path, &TREE).await;
        for client in 11..=13 {
            relay.api.take_part(client).await;
        }
        told.push(relay.api.rounds().await.pop().unwrap());
        relay.stop().await;
    }
    // The same updates: were the noise the same, so would be the models, and with other updates their difference would be bare.
    assert_eq!((told[0].round, told[1].round), (2, 2));
    assert_ne!(told[0].model, told[1].model);
}

#[tokio::test]
async fn a_client_waits_out_the_separation_whatever_restarts_come_between() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let mut relay = TestRelay::in_file(&path, &TREE).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    for round in 2..=4_u8 {
        let asked = relay.api.check_in(1).await.unwrap();
        if round < 4 {
            assert!(
                matches!(asked, CheckInReply::Wait { .. }),
                "round {round}: {asked:?}"
            );
            let state = relay.api.state().await;
            let refused = relay.api.send(&frame(&state, 1)).await.unwrap_err();
            assert_eq!(refused, ProblemKind::NotCheckedIn);
        } else {
            assert!(
                matches!(asked, CheckInReply::Train { .. }),
                "round {round}: {asked:?}"
            );
        }
        for client in 1..=3 {
            relay.api.take_part(10 * round + client).await;
        }
        relay.stop().await;
        relay = TestRelay::in_file(&path, &TREE).await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn after_a_round_without_the_noise_no_epsilon_of_all_rounds_is_told_and_what_was_spent_stays_spent() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    let mut told = Vec::new();
    for (round, terms) in (1_u8..).zip([&CENTRAL[..], &[], &CENTRAL, &TREE]) {
        let relay = TestRelay::in_file(&path, terms).await;
        for client in 1..=3 {
            relay.api.take_part(10 * round + client).await;
        }
        told.push(relay.api.rounds().await.pop().unwrap().privacy);
        relay.stop().await;
    }
    let [first, none, third, tree] = told[..] else {
        panic!("{told:?}")
    };
    assert!(first.unwrap().epsilon.is_some() && none.is_none());
    for (told, rounds) in [(first, 1.0), (third, 2.0), (tree, 3.0)] {
        assert!(
            (told.unwrap().rho / (rounds / 4.5) - 1.0).abs() < 1e-3,
            "{told:?}"
        );
    }
    assert_eq!([third, tree].map(|told| told.unwrap().epsilon), [None; 2]);
}

#[tokio::test]
async fn the_terms_cannot_change_under_updates_that_were_promised_others() {
    // A relay that may ask for identities.
    let options = |folder: &TempDir| {
        let key = folder.path().join("relay.key");
        let key = RelayKey::read(&key).or_else(|_| RelayKey::create(&key));
        RelayOptions {
            key: Some(key.unwrap()),
            ..RelayOptions::default()
        }
    };
    let cases: [(&[&str], &[&str]); 7] = [
        // The same client would have another name.
        (
            &CENTRAL,
            &[CENTRAL[0], CENTRAL[1], CENTRAL[2], "identity.required=open"],
        ),
        (&[], &CENTRAL),
        (&CENTRAL, &[]),
        (&CENTRAL, &ADAPTIVE),
        (
            &CENTRAL,
            &[CENTRAL[0], CENTRAL[1], CENTRAL[2], "privacy.noise_multiplier=0.1"],
        ),
        (
            &CENTRAL,
            &[CENTRAL[0], CENTRAL[1], CENTRAL[2], "update.clip_l2=0.5"],
        ),
        (
            &CENTRAL,
            &[CENTRAL[0], CENTRAL[1], CENTRAL[2], "rounds.target_clients=2"],
        ),
    ];
    for (old, new) in cases {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("relay.redb");
        let relay = TestRelay::in_file(&path, old).await;
        relay.api.take_part(1).await;
        relay.stop().await;
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&path).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let refused = Relay::open(vec![task(new)], &store, &clock, options(&folder));
        let refused = refused.err().unwrap();
        let open = matches!(
            &refused,
            StartError::Open {
                source: OpenError::OtherPrivacy { received: 1 },
                ..
            }
        );
        assert!(open, "{new:?}: {refused}");
        drop(store);
        // Under its own terms the round goes on.
        let relay = TestRelay::in_file(&path, old).await;
        assert_eq!(relay.api.state().await.received, 1);
        relay.stop().await;
    }
}
