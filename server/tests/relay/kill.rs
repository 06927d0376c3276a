//! The real program, killed with SIGKILL at moments that a seed chooses, while clients report.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_protocol::{CheckInReply, CoordinateWidth, RoundState};

use crate::{harness::*, load::*, program::*};

const CLIENTS: u8 = 12;
const TOKEN: &str = "operator-0123456789";

/// The relay over one file, with rounds that need every client.
fn start(folder: &std::path::Path, extra: &[&str]) -> Program {
    let store = folder.join("relay.redb");
    let (target, min) = (
        format!("rounds.target_clients={CLIENTS}"),
        format!("rounds.min_clients={CLIENTS}"),
    );
    let token = token_file(folder, TOKEN);
    let mut arguments = vec![
        "--store",
        store.to_str().unwrap(),
        "--set",
        &target,
        "--set",
        &min,
    ];
    arguments.extend(["--admin-token-file", token.to_str().unwrap()]);
    arguments.extend(extra);
    Program::start(folder, &arguments)
}

/// Tries until the operator's call is answered; the status of the answer.
async fn operate(load: &Load, rng: &mut ChaCha8Rng, what: &str, body: &'static str) -> u16 {
    loop {
        let api = load.api(rng);
        let request = api
            .http
            .post(api.url(&format!("/v1/admin/tasks/tiny/{what}")))
            .bearer_auth(TOKEN)
            .header("content-type", "application/json")
            .body(body);
        match request.send().await.map(|answer| answer.status().as_u16()) {
            Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Ok(status) => return status,
        }
    }
}

/// Kills of each seed.
const KILLS: u32 = 60;

/// Kills while clients take part in round after round, and the operator goes back to an older model once.
async fn kill_while_clients_report(seed: u64, server: Server) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = folder_with_task();
    let mut program = start(folder.path(), server_flags(server));
    let state = program.api().state().await;
    let first = program.api().model(state.model).await;
    let load = Load::new(vec![program.base.clone()], state.manifest);
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(load.clone().client(client, seed)))
        .collect();
    let operator = tokio::spawn({
        let (load, mut rng) = (load.clone(), ChaCha8Rng::seed_from_u64(seed + 1_000));
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let api = load.api(&mut rng);
                let Ok(response) = api.http.get(api.url("/v1/tasks/tiny/round")).send().await else {
                    continue;
                };
                let Ok(state) = response.json::<RoundState>().await else {
                    continue;
                };
                if state.round >= 4 {
                    break;
                }
            }
            assert_eq!(operate(&load, &mut rng, "pause", "").await, 200);
            assert_eq!(operate(&load, &mut rng, "rollback", r#"{"round":2}"#).await, 200);
            assert_eq!(operate(&load, &mut rng, "resume", "").await, 200);
        }
    });
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 40)).await;
        drop(program);
        program = start(folder.path(), server_flags(server));
        load.addresses.write().unwrap()[0] = program.base.clone();
    }
    operator.await.unwrap();
    let last = load.finish();
    for client in clients {
        client.await.unwrap();
    }
    let rounds = program.api().rounds().await;
    check_rounds(&first, &rounds, CLIENTS, server);
    let back = rounds.iter().filter(|it| it.rolled_back_to == Some(2)).count();
    assert!(back >= 1, "seed {seed}: the operator went back");
    assert_eq!(
        rounds.len() as u64,
        last + 1,
        "no round is left open that has an update"
    );
    let acknowledged = load.acknowledged.lock().unwrap();
    for (round, id) in &*acknowledged {
        let metrics = &rounds[*round as usize];
        assert!(
            metrics.clients == u32::from(CLIENTS) || metrics.rolled_back_to.is_some(),
            "{id} of round {round} is in a sum, or was given up by the operator"
        );
    }
    eprintln!(
        "seed {seed}: {KILLS} kills, {last} rounds, {} updates",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_update_is_counted_exactly_once_whenever_the_relay_is_killed() {
    for seed in 0..4 {
        let server = if seed % 2 == 0 {
            Server::FedAdam
        } else {
            Server::FedAvg
        };
        kill_while_clients_report(seed, server).await;
    }
}

/// What an operator copies who stopped the relay first.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_relay_that_is_told_to_stop_leaves_everything_in_one_file() {
    let folder = folder_with_task();
    let mut program = start(folder.path(), &[]);
    program.api().take_part(1).await;
    let journals = ["relay.redb.tiny.0", "relay.redb.tiny.1"].map(|name| folder.path().join(name));
    assert!(journals.iter().all(|path| path.exists()));
    program.signal("TERM");
    assert!(program.child.wait().unwrap().success());
    assert!(!journals.iter().any(|path| path.exists()));
    program = start(folder.path(), &[]);
    assert_eq!(program.api().state().await.received, 1);
}

/// A client that tries until it is acknowledged, and then never sends again.
async fn report(
    client: u8,
    address: Arc<RwLock<String>>,
    state: RoundState,
    delay: Duration,
    width: Option<CoordinateWidth>,
) {
    let api = || Api::new(&address.read().unwrap());
    tokio::time::sleep(delay).await;
    loop {
        match api().try_check_in(client, state.manifest).await {
            Ok(Ok(CheckInReply::Train { round, .. })) if round == state.round => break,
            Ok(other) => panic!("client {client}: {other:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    tokio::time::sleep(delay / 2).await;
    let bytes = frame(&state, client).encode_in(width);
    loop {
        match api().try_send(bytes.clone()).await {
            Ok(Ok(_)) => return,
            Ok(Err(refused)) => panic!("client {client}: {refused:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_that_are_kept_one_by_one_survive_kills_too() {
    let rule = ["--set", "strategy.aggregation.type=coordinate-median"];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut pick = |below_ms: u64| Duration::from_millis(rng.next_u64() % below_ms);
    let folder = folder_with_task();
    let mut program = start(folder.path(), &rule);
    let state = program.api().state().await;
    let before = program.api().model(state.model).await;
    let address = Arc::new(RwLock::new(program.base.clone()));
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(report(client, address.clone(), state.clone(), pick(1_200), None)))
        .collect();
    for _ in 0..8 {
        tokio::time::sleep(pick(250)).await;
        drop(program);
        program = start(folder.path(), &rule);
        *address.write().unwrap() = program.base.clone();
    }
    for client in clients {
        client.await.unwrap();
    }
    let rounds = program.api().rounds().await;
    assert_eq!((rounds.len(), rounds[1].clients), (2, u32::from(CLIENTS)));
    let all: Vec<u8> = (1..=CLIENTS).collect();
    assert_eq!(rounds[1].model, expected_median(&before, &all));
}

const CENTRAL: [&str; 6] = [
    "--set",
    "privacy.mode=central",
    "--set",
    "privacy.adjacency=replace-one",
    "--set",
    "privacy.delta=1e-5",
];
const TREE: [&str; 6] = [
    "--set",
    "privacy.mechanism=tree-aggregation",
    "--set",
    "privacy.tree.restart_every=2",
    "--set",
    "privacy.tree.min_separation=1",
];

/// A relay that published a sum with two noises would tell the difference of the two, and their mean: half of the noise's variance.
/// Whatever is ever seen of a round is seen while the relay is killed and started again. With a tree, whose state is committed with the
/// models, over its end and the beginning of the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_is_never_seen_with_two_noises_whenever_the_relay_is_killed() {
    for seed in 10..14 {
        // Rounds, and what they cost in all in nodes of Δ²/2σ².
        sums_are_seen_once(seed, &CENTRAL, &[1.0, 2.0]).await;
        sums_are_seen_once(seed, &[CENTRAL, TREE].concat(), &[1.0, 6.0, 7.0]).await;
    }
}

async fn sums_are_seen_once(seed: u64, terms: &[&str], cost: &[f64]) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = |below_ms: u64| Duration::from_millis(rng.next_u64() % below_ms);
    let folder = folder_with_task();
    let overrides: Vec<&str> = terms.iter().copied().filter(|it| *it != "--set").collect();
    let width = width(&overrides);
    let mut program = start(folder.path(), terms);
    let state = program.api().state().await;
    let before = program.api().model(state.model).await;
    let address = Arc::new(RwLock::new(program.base.clone()));
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (watched, found) = (address.clone(), seen.clone());
    let watcher = tokio::spawn(async move {
        loop {
            let api = Api::new(&watched.read().unwrap());
            if let Ok(answer) = reqwest::get(api.url("/v1/tasks/tiny/round")).await
                && let Ok(state) = answer.json::<RoundState>().await
                && state.round > 1
            {
                found.lock().unwrap().insert((state.round - 1, state.model));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let mut open = state;
    for round in 1..=cost.len() as u64 {
        assert_eq!(open.round, round);
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|client| tokio::spawn(report(client, address.clone(), open.clone(), pick(200), width)))
            .collect();
        // Until well after the round has closed.
        for _ in 0..8 {
            tokio::time::sleep(pick(100)).await;
            drop(program);
            program = start(folder.path(), terms);
            *address.write().unwrap() = program.base.clone();
        }
        for client in clients {
            client.await.unwrap();
        }
        open = program.api().state().await;
    }
    let rounds = program.api().rounds().await;
    watcher.abort();
    assert_eq!(rounds.len(), cost.len() + 1, "seed {seed}");
    let mut seen = seen.lock().unwrap().clone();
    for (metrics, nodes) in rounds[1..].iter().zip(cost) {
        assert_eq!(metrics.clients, u32::from(CLIENTS), "seed {seed}");
        seen.insert((metrics.round, metrics.model));
        // Paid for once.
        let rho = metrics.privacy.unwrap().rho;
        assert!(
            (rho / (nodes * 0.5 / 1.5_f64.powi(2)) - 1.0).abs() < 1e-3,
            "{rho} {nodes}"
        );
    }
    assert_eq!(seen.len(), cost.len(), "seed {seed}: {seen:?}");
    // It is noised.
    let all: Vec<u8> = (1..=CLIENTS).collect();
    assert_ne!(rounds[1].model, expected_model(&before, &all));
}

#[test]
fn a_terminated_program_ends_in_good_order() {
    let folder = folder_with_task();
    let mut program = start(folder.path(), &[]);
    let stopped = Command::new("kill")
        .arg(program.child.id().to_string())
        .status()
        .unwrap();
    assert!(stopped.success());
    assert!(program.child.wait().unwrap().success());
}
