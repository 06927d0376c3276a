//! SIGKILL with half a million coordinates: a commit writes megabytes, and is cut off in the middle of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{LazyLock, atomic::Ordering},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_engine::Model;
use unsaid_protocol::{ContentHash, RoundMetrics, UpdateId};
use unsaid_relay::{
    round::{Counted, REMEMBERED_ROUNDS},
    store::{RedbStore, Saved, Store},
};

use crate::{harness::*, load::Load, program::*};

const CLIENTS: u8 = 8;
const KILLS: u32 = 30;

/// 499 × 1,000 weights and 1,000 biases.
const LARGE: [&str; 2] = [
    "model.input=[499]",
    "model.layers=[{ type = \"dense\", units = 1000 }]",
];
const COORDINATES: usize = 500_000;

/// −1, 0 or 1 by a hash of client and place: within the bound, since √500,000 steps of 2⁻¹⁰ are below the clip norm of 1; and no two
/// sets of clients have the same sum.
fn large(client: u8) -> Vec<i32> {
    static ALL: LazyLock<Vec<Vec<i32>>> = LazyLock::new(|| {
        let of = |client: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(client);
            (0..COORDINATES)
                .map(|_| (rng.next_u32() % 3) as i32 - 1)
                .collect()
        };
        (0..=u64::from(CLIENTS)).map(of).collect()
    });
    ALL[usize::from(client)].clone()
}

/// The sum of some clients' updates.
fn sum(clients: impl IntoIterator<Item = u8>) -> Vec<i64> {
    let mut sum = vec![0; COORDINATES];
    for client in clients {
        let step = large(client);
        sum.iter_mut()
            .zip(step)
            .for_each(|(sum, step)| *sum += i64::from(step));
    }
    sum
}

fn start(folder: &Path) -> Program {
    let (target, min) = (
        format!("rounds.target_clients={CLIENTS}"),
        format!("rounds.min_clients={CLIENTS}"),
    );
    let store = folder.join("relay.redb");
    let mut arguments = vec!["--store", store.to_str().unwrap()];
    for value in LARGE.into_iter().chain([target.as_str(), min.as_str()]) {
        arguments.extend(["--set", value]);
    }
    Program::start(folder, &arguments)
}

/// What a relay that was killed has left.
fn left(folder: &Path) -> Saved {
    let store = RedbStore::open(&folder.join("relay.redb")).unwrap();
    store.load(&"tiny".parse().unwrap()).unwrap().unwrap()
}

/// That the sum on the disk is that of the updates beside it, that these are each there once, and that all which were acknowledged are
/// among them, or in a round that counts every client. Returns how many the open round has.
fn check(saved: &Saved, acknowledged: &BTreeSet<(u64, UpdateId)>) -> usize {
    let mut rounds: BTreeMap<u64, BTreeSet<u8>> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for entry in &saved.counted {
        let client = entry.client.as_bytes()[0];
        assert!(
            rounds.entry(entry.round).or_default().insert(client),
            "client {client} is in round {} once",
            entry.round
        );
        assert!(
            counted.insert((entry.round, entry.update)),
            "{} is counted once",
            entry.update
        );
    }
    // What the relay still remembers; that rounds before are whole, too, is seen in their models at the end.
    let remembered = |(round, _): &&(u64, UpdateId)| round + REMEMBERED_ROUNDS > saved.head.round;
    let lost: Vec<_> = acknowledged.difference(&counted).filter(remembered).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are nowhere");
    let open = rounds.remove(&saved.head.round).unwrap_or_default();
    for (round, clients) in rounds {
        assert_eq!(
            clients.len(),
            usize::from(CLIENTS),
            "round {round} is published and whole"
        );
    }
    let expected = (!open.is_empty()).then(|| sum(open.iter().copied()));
    assert!(saved.sum == expected, "the open round's sum is that of {open:?}");
    open.len()
}

/// That every published model is the one before it and the mean of all clients' updates.
fn check_published(first: &[u8], rounds: &[RoundMetrics]) {
    let model: Model = task(&LARGE).model;
    let mut parameters = model.from_safetensors(first).unwrap();
    let sum = sum(1..=CLIENTS);
    for metrics in &rounds[1..] {
        assert_eq!(metrics.clients, u32::from(CLIENTS), "round {}", metrics.round);
        for (parameter, step) in parameters.iter_mut().zip(&sum) {
            *parameter = (f64::from(*parameter) + *step as f64 * GRID_STEP / f64::from(CLIENTS)) as f32;
        }
        let expected = ContentHash::of(&model.to_safetensors(&parameters).unwrap());
        assert_eq!(metrics.model, expected, "round {}", metrics.round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_update_of_half_a_million_coordinates_is_in_one_sum_whenever_the_relay_is_killed()
{
    let seed = 5;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = folder_with_task();
    let mut program = start(folder.path());
    let state = program.api().state().await;
    let first = program.api().model(state.model).await;
    let load = Load::of(vec![program.base.clone()], state.manifest, large);
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(load.clone().client(client, seed)))
        .collect();
    let (mut in_part, mut last_in_part) = (0, None);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 250)).await;
        drop(program);
        // Whoever is told of a commit notes it a moment later: these are some of those that were acknowledged.
        let acknowledged = load.acknowledged.lock().unwrap().clone();
        let saved = left(folder.path());
        if check(&saved, &acknowledged) > 0 {
            in_part += 1;
            last_in_part = Some((saved, acknowledged));
        }
        program = start(folder.path());
        load.addresses.write().unwrap()[0] = program.base.clone();
    }
    let last = load.finish();
    for client in clients {
        client.await.unwrap();
    }
    let rounds = program.api().rounds().await;
    drop(program);
    let acknowledged = load.acknowledged.lock().unwrap();
    assert_eq!(check(&left(folder.path()), &acknowledged), 0);
    check_published(&first, &rounds);
    assert_eq!(rounds.len() as u64, last + 1);
    assert_eq!(acknowledged.len(), usize::from(CLIENTS) * last as usize);
    let again = load.duplicates.load(Ordering::SeqCst);
    eprintln!(
        "{KILLS} kills, {in_part} of them with a round in part; {last} rounds, {} updates, {again} sent again",
        acknowledged.len()
    );
    assert!(in_part > 0 && last > 2, "{in_part} rounds in part, {last} in all");
    drop(acknowledged);
    notices(last_in_part.unwrap());
}

/// What [`check`] is there for: an update that is lost, one that is in the sum twice, and one that is counted twice.
fn notices((saved, acknowledged): (Saved, BTreeSet<(u64, UpdateId)>)) {
    let fails = |saved: &Saved, acknowledged: &BTreeSet<_>| {
        std::panic::catch_unwind(|| check(saved, acknowledged)).unwrap_err();
    };
    let mut more = acknowledged.clone();
    more.insert((saved.head.round, UpdateId::from_bytes([250; 16])));
    fails(&saved, &more);
    let open = |entry: &&Counted| entry.round == saved.head.round;
    let again = *saved.counted.iter().find(open).unwrap();
    let mut twice = saved.clone();
    twice.counted.push(again);
    fails(&twice, &acknowledged);
    let mut added = saved.clone();
    let step = large(again.client.as_bytes()[0]);
    let steps = added.sum.iter_mut().flatten();
    steps.zip(step).for_each(|(sum, step)| *sum += i64::from(step));
    fails(&added, &acknowledged);
}
