//! Identities at several relays of one database.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde_json::json;
use unsaid_protocol::{Invitation, ProblemKind};
use unsaid_relay::{RelayOptions, http::identities::EnrolmentLimits};

use crate::{accounts::local_cost, harness::*, identity::*};

/// Two relays of one database: what one was told the other knows at once, and a revocation reaches a client between its check-in and its
/// update.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_of_one_database_know_the_same_identities() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let overrides = [
        INVITED,
        "privacy.mode=local",
        "privacy.noise_multiplier=8",
        "identity.updates_per_day=2",
        "rounds.min_clients=1",
        "rounds.target_clients=1",
    ];
    let start = async || {
        let store = crate::postgres::open(database.address(), None).await.unwrap();
        TestRelay::over(store, &overrides, options(folder.path())).await
    };
    let (here, there) = (start().await, start().await);
    let (person, another) = (Person::of(1, &here.api).await, Person::of(2, &there.api).await);
    let made = invitations(&here.api, 2).await;
    person.enrol(&there.api, Some(made[0])).await.unwrap();
    assert_eq!(
        person.enrol(&here.api, Some(made[0])).await,
        Ok(person.enrol(&there.api, None).await.unwrap())
    );
    assert_eq!(
        another.enrol(&here.api, Some(made[0])).await,
        Err(ProblemKind::BadInvitation)
    );
    another.enrol(&here.api, Some(made[1])).await.unwrap();
    let unknown = Invitation::from_bytes([9; 16]);
    assert_eq!(
        Person::of(3, &here.api)
            .await
            .enrol(&here.api, Some(unknown))
            .await,
        Err(ProblemKind::BadInvitation)
    );

    // One account, whichever relay counts.
    let first = person.take_part(&here.api, 1).await;
    until("the other opens the round", async || {
        there.api.state().await.round == 2
    })
    .await;
    let second = person.take_part(&there.api, 1).await;
    for relay in [&here, &there] {
        let api = &relay.api;
        until("the round opens", async || api.state().await.round == 3).await;
        assert_eq!(person.check_in(api, 1).await, Err(ProblemKind::QuotaSpent));
        for frame in [&first, &second] {
            assert_eq!(person.send(api, frame).await, Ok(duplicate(frame)));
        }
        let part = &entry(api, person.id()).await["tasks"][0];
        assert_eq!(part["updates"], 2);
        assert_eq!(part["epsilon"].as_f64(), local_cost(8.0, 2).epsilon(1e-5).ok());
    }

    // It checks in here, is revoked there, and reports here.
    another.check_in(&here.api, 2).await.unwrap();
    let frame = here.api.frame(2).await;
    let path = format!("identities/{}/revoke", another.id());
    let revoked = operate(&there.api, &path, json!({})).await.unwrap();
    assert_eq!(operate(&here.api, &path, json!({})).await.unwrap(), revoked);
    assert_eq!(
        another.send(&here.api, &frame).await,
        Err(ProblemKind::IdentityRevoked)
    );
    assert_eq!(
        another.check_in(&there.api, 2).await,
        Err(ProblemKind::IdentityRevoked)
    );
    assert_eq!(
        another.enrol(&there.api, None).await,
        Err(ProblemKind::IdentityRevoked)
    );
    let all = listed(&there.api).await;
    assert_eq!((all.len(), &all), (2, &listed(&here.api).await));
    let client = database.connect().await;
    let census = client.query_one(
        "SELECT enrolled, revoked, uninvited, invitations FROM unsaid.census",
        &[],
    );
    let census = census.await.unwrap();
    let counts: Vec<i64> = (0..4).map(|column| census.get(column)).collect();
    assert_eq!(counts, [2, 1, 0, 0]);
}

/// The manifest does not say what a task takes of one identity, and relays that share it must agree all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_other_shares_of_identities_stops_where_another_was_started_with_new_ones() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let start = async |share: &str| {
        let store = crate::postgres::open(database.address(), None).await.unwrap();
        TestRelay::over(store, &[OPEN, share], options(folder.path())).await
    };
    let old = start("identity.updates_per_day=5").await;
    let person = Person::of(1, &old.api).await;
    person.enrol(&old.api, None).await.unwrap();
    let same = start("identity.updates_per_day=5").await;
    person.check_in(&same.api, 1).await.unwrap();
    person.check_in(&old.api, 1).await.unwrap();
    let new = start("identity.updates_per_day=1").await;
    assert_eq!(new.api.state().await.manifest, old.api.state().await.manifest);
    for outdated in [&old, &same] {
        assert_eq!(
            person.check_in(&outdated.api, 1).await,
            Err(ProblemKind::Unavailable)
        );
    }
    person.check_in(&new.api, 1).await.unwrap();
    let agreeing = start("identity.updates_per_day=1").await;
    person.check_in(&agreeing.api, 1).await.unwrap();
    person.check_in(&new.api, 1).await.unwrap();
}

/// Open enrolments that come at the same time through two relays do not pass their bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_layout_before_goes_on_and_its_bounds_hold_for_all_relays() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let before = include_str!("../../src/store/postgres/layout.sql");
    let client = database.connect().await;
    client.batch_execute(before).await.unwrap();
    client
        .batch_execute("INSERT INTO unsaid.meta (layout) VALUES (2)")
        .await
        .unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let mut relays = Vec::new();
    for _ in 0..2 {
        let store = crate::postgres::open(database.address(), None).await.unwrap();
        let bounded = RelayOptions {
            enrolment: EnrolmentLimits {
                per_address_and_day: None,
                most: 5,
            },
            ..options(folder.path())
        };
        relays.push(TestRelay::over(store, &[OPEN], bounded).await);
    }
    let layout: i64 = client
        .query_one("SELECT layout FROM unsaid.meta", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(layout, 4);
    let person = Person::of(0, &relays[0].api).await;
    let asking = (1..=12_u8).map(|seed| {
        let (api, relay) = (relays[usize::from(seed % 2)].api.clone(), person.relay);
        let key = SigningKey::from_bytes(&[seed; 32]);
        tokio::spawn(async move {
            let person = Person { key, relay };
            loop {
                // More may want to use the database at a time than it lets.
                match person.enrol(&api, None).await {
                    Err(ProblemKind::Unavailable) => tokio::time::sleep(Duration::from_millis(20)).await,
                    answer => return answer,
                }
            }
        })
    });
    let mut enrolled = 0;
    for one in asking.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => enrolled += 1,
            Err(kind) => assert_eq!(kind, ProblemKind::EnrolmentLimited),
        }
    }
    assert_eq!((enrolled, listed(&relays[0].api).await.len()), (5, 5));
}
