//! Accounts: what each identity's updates have cost, and that they never say less.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::json;
use unsaid_privacy::{Adjacency, Cost, Encoding, LocalNoise};
use unsaid_protocol::{CheckIn, CheckInReply, ContentHash, ProblemKind, RoundState};
use unsaid_relay::{
    clock::{Clock, SystemClock},
    key::RelayKey,
};

use crate::{harness::*, identity::*, program::*};

/// What `updates` of the tiny task with this noise cost, by the client's own way of counting.
pub fn local_cost(noise_multiplier: f64, updates: u64) -> Cost {
    let encoding = Encoding::new(1.0, GRID_STEP, PARAMETERS).unwrap();
    let noise = LocalNoise::new(&encoding, noise_multiplier).unwrap();
    Cost::from(noise.rho(Adjacency::ReplaceOne)).times(updates)
}

#[tokio::test]
async fn the_relay_counts_what_updates_cost_and_takes_no_more_than_its_budget() {
    let folder = tempfile::TempDir::new().unwrap();
    let epsilon = |updates| local_cost(8.0, updates).epsilon(1e-6).unwrap();
    let max = format!("identity.max_epsilon={}", f64::midpoint(epsilon(2), epsilon(3)));
    let overrides = [
        OPEN,
        "privacy.mode=local",
        "privacy.noise_multiplier=8",
        &max,
        "identity.delta=1e-6",
        "rounds.min_clients=1",
        "rounds.target_clients=1",
    ];
    let relay = relay_in(folder.path(), &overrides).await;
    let api = &relay.api;
    let person = Person::of(1, api).await;
    person.enrol(api, None).await.unwrap();
    let enrolled = entry(api, person.id()).await;
    let nothing = json!({ "updates": 0, "epsilon": 0.0, "delta": 1e-5 });
    assert_eq!((&enrolled["tasks"], &enrolled["total"]), (&json!([]), &nothing));
    for updates in 1..=2_u64 {
        person.take_part(api, 1).await;
        let part = &entry(api, person.id()).await["tasks"][0];
        assert_eq!(part["updates"], updates);
        assert_eq!(
            part["epsilon"].as_f64(),
            Some(epsilon(updates)),
            "the client's own ledger says the same"
        );
        assert_eq!(part["delta"].as_f64(), Some(1e-6));
        let total = &entry(api, person.id()).await["total"];
        assert_eq!(total["updates"], updates);
        assert_eq!(
            total["epsilon"].as_f64(),
            local_cost(8.0, updates).epsilon(1e-5).ok()
        );
    }
    assert_eq!(person.check_in(api, 1).await, Err(ProblemKind::RelayBudgetSpent));
    relay.stop().await;
    let relay = relay_in(folder.path(), &overrides).await;
    assert_eq!(
        person.check_in(&relay.api, 1).await,
        Err(ProblemKind::RelayBudgetSpent)
    );
    let other = Person::of(2, &relay.api).await;
    other.enrol(&relay.api, None).await.unwrap();
    other.take_part(&relay.api, 1).await;
    let figures = relay.api.http.get(relay.api.url("/metrics")).bearer_auth(TOKEN);
    let figures = figures.send().await.unwrap().text().await.unwrap();
    for line in [
        "unsaid_identities_enrolled 2".to_owned(),
        "unsaid_identities_revoked 0".to_owned(),
        "unsaid_invitations_unused 0".to_owned(),
        format!("unsaid_task_identity_epsilon_max{{task=\"tiny\"}} {}", epsilon(1)),
    ] {
        assert!(figures.lines().any(|found| found == line), "{line} in {figures}");
    }
    assert!(!figures.contains(&person.id().to_string()));
}

/// Nothing is acknowledged whose cost is not in the account, and an account that cannot be read is not taken for an empty one.
#[tokio::test]
async fn a_failed_commit_is_in_no_account() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[OPEN], options(folder.path())).await;
    let api = &relay.api;
    let person = Person::of(1, api).await;
    person.enrol(api, None).await.unwrap();
    person.check_in(api, 1).await.unwrap();
    let frame = api.frame(1).await;
    store.set(Fault::BeforeCommit);
    assert_eq!(person.send(api, &frame).await, Err(ProblemKind::Unavailable));
    store.set(Fault::AfterCommit);
    assert_eq!(person.send(api, &frame).await, Err(ProblemKind::Unavailable));
    store.set(Fault::None);
    until("it is counted", async || {
        person.send(api, &frame).await == Ok(duplicate(&frame))
    })
    .await;
    assert_eq!(entry(api, person.id()).await["tasks"][0]["updates"], 1);
}

const KILLS: u32 = 30;

/// The program is killed while identities take part: every account holds exactly the updates that were acknowledged, or that were
/// counted in the commit whose answer was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_never_counts_less_than_was_acknowledged_whenever_the_relay_is_killed() {
    let folder = folder_with_task();
    RelayKey::create(&folder.path().join("relay.key")).unwrap();
    token_file(folder.path(), TOKEN);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (store, key, token) = (path("relay.redb"), path("relay.key"), path("token"));
    let arguments = [
        "--store",
        &store,
        "--key",
        &key,
        "--admin-token-file",
        &token,
        "--set",
        OPEN,
        "--set",
        "privacy.mode=local",
        "--set",
        "privacy.noise_multiplier=8",
        "--set",
        "rounds.min_clients=3",
        "--set",
        "rounds.target_clients=3",
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut program = Program::start(folder.path(), &arguments);
    let base = Arc::new(Mutex::new(program.base.clone()));
    let manifest = program.api().state().await.manifest;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut people = Vec::new();
    for seed in 1..=3 {
        let person = Person::of(seed, &program.api()).await;
        person.enrol(&program.api(), None).await.unwrap();
        let acknowledged = tokio::spawn(report(person.clone(), seed, base.clone(), manifest, stop.clone()));
        people.push((person, acknowledged));
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 40)).await;
        drop(program);
        program = Program::start(folder.path(), &arguments);
        *base.lock().unwrap() = program.base.clone();
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    for (person, acknowledged) in people {
        let acknowledged = acknowledged.await.unwrap();
        assert!(acknowledged > 3, "{acknowledged}");
        let part = &entry(&program.api(), person.id()).await["tasks"][0];
        assert_eq!(part["updates"].as_u64(), Some(acknowledged));
        let expected = local_cost(8.0, 1);
        let expected = (0..acknowledged).fold(Cost::NOTHING, |sum, _| sum + expected);
        let (found, expected) = (part["epsilon"].as_f64().unwrap(), expected.epsilon(1e-5).unwrap());
        // What is read from JSON may be a neighbour of what was written: `serde_json` says so of its default.
        assert!(
            [expected.next_down(), expected, expected.next_up()].contains(&found),
            "{found} {expected}"
        );
    }
}

/// Takes part until it is told to stop, and tries each update until it is acknowledged. How many were.
async fn report(
    person: Person,
    client: u8,
    base: Arc<Mutex<String>>,
    manifest: ContentHash,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> u64 {
    let mut acknowledged = 0;
    let message = CheckIn {
        client: client_id(client),
        manifest,
    };
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let api = || Api::new(&base.lock().unwrap());
        let header = person.check_in_header(&message, SystemClock.now_ms());
        let (round, model) = match check_in(&api(), &message, &header).await {
            Ok(Ok(CheckInReply::Train { round, model, .. })) => (round, model),
            Ok(Ok(CheckInReply::Wait { .. }) | Err(ProblemKind::Unavailable)) | Err(_) => continue,
            Ok(other) => panic!("client {client}: {other:?}"),
        };
        let state = RoundState {
            round,
            model,
            ..idle_state(manifest)
        };
        let frame = frame(&state, client);
        let header = person.update_header(&frame);
        loop {
            match send(&api(), &frame, &header).await {
                Ok(Ok(_)) => break acknowledged += 1,
                Ok(Err(ProblemKind::Unavailable)) | Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Ok(Err(refused)) => panic!("client {client}, round {round}: {refused:?}"),
            }
        }
    }
    acknowledged
}
