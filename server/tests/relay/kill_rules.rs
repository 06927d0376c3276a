//! Kills under rules that keep more than a plain sum: one sum for each staleness, a sum with weights, and every update.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_protocol::{CheckInReply, ContentHash, ProblemKind};

use crate::{harness::*, program::*};

const CLIENTS: u8 = 12;
/// A round takes half of them: the others are stale, or too late.
const TARGET: usize = 6;
const KILLS: u32 = 15;

/// What a client was told of an update: the round that counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    counted: u64,
    /// The round whose model it starts from.
    base: u64,
    client: u8,
}

/// A rule, the coordinates of its clients, and its direction, in grid steps, computed from what clients were told.
struct Case {
    rule: &'static str,
    sent: fn(u8) -> Vec<i32>,
    direction: fn(&[Told], usize) -> f64,
}

const CASES: [Case; 3] = [
    Case {
        rule: "strategy.aggregation={ type = \"fed-buff\", max_staleness = 3 }",
        sent: coordinates,
        direction: |told, at| {
            let weighed = told.iter().map(|it| {
                let staleness = (it.counted - it.base) as f64;
                f64::from(coordinates(it.client)[at]) / (1.0 + staleness).sqrt()
            });
            weighed.sum::<f64>() / told.len() as f64
        },
    },
    Case {
        rule: "strategy.aggregation={ type = \"weighted-mean\", max_weight = 9 }",
        sent: |client| [coordinates(client), vec![weight(client)]].concat(),
        direction: |told, at| {
            let weighed = |it: &Told| weight(it.client) * coordinates(it.client)[at];
            let weights: i32 = told.iter().map(|it| weight(it.client)).sum();
            f64::from(told.iter().map(weighed).sum::<i32>()) / f64::from(weights)
        },
    },
    Case {
        rule: "strategy.aggregation={ type = \"trimmed-mean\", trim = 1 }",
        sent: coordinates,
        direction: |told, at| {
            let all = || told.iter().map(|it| coordinates(it.client)[at]);
            let ends = all().min().unwrap() + all().max().unwrap();
            f64::from(all().sum::<i32>() - ends) / (told.len() - 2) as f64
        },
    },
];

const fn weight(client: u8) -> i32 {
    1 + client as i32 % 9
}

struct Crowd {
    address: RwLock<String>,
    manifest: ContentHash,
    sent: fn(u8) -> Vec<i32>,
    told: Mutex<Vec<Told>>,
    over: AtomicBool,
}

impl Crowd {
    fn api(&self) -> Api {
        Api::new(&self.address.read().unwrap())
    }

    /// Takes part in round after round; each update is sent until the relay says what became of it.
    async fn client(self: Arc<Self>, client: u8, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed * 1_000 + u64::from(client));
        let mut pause = |below_ms: u64| tokio::time::sleep(Duration::from_millis(rng.next_u64() % below_ms));
        while !self.over.load(Ordering::SeqCst) {
            pause(20).await;
            let (base, model) = match self.api().try_check_in(client, self.manifest).await {
                Ok(Ok(CheckInReply::Train { round, model, .. })) => (round, model),
                Ok(Ok(CheckInReply::Wait { .. }) | Err(ProblemKind::Unavailable)) | Err(_) => continue,
                Ok(other) => panic!("client {client}: {other:?}"),
            };
            pause(40).await;
            let mut state = idle_state(self.manifest);
            (state.round, state.model) = (base, model);
            let mut frame = frame(&state, client);
            frame.coordinates = (self.sent)(client);
            let bytes = frame.encode();
            loop {
                match self.api().try_send(bytes.clone()).await {
                    Ok(Ok(reply)) => {
                        let counted = reply.round;
                        let told = Told {
                            counted,
                            base,
                            client,
                        };
                        self.told.lock().unwrap().push(told);
                        break;
                    }
                    Ok(Err(ProblemKind::RoundClosed)) => break, // it was not counted
                    Ok(Err(ProblemKind::Unavailable)) | Err(_) => pause(10).await,
                    Ok(Err(refused)) => panic!("client {client}, round {base}: {refused:?}"),
                }
            }
        }
    }
}

fn start(folder: &Path, rule: &str) -> Program {
    let store = folder.join("relay.redb");
    let (target, min) = (
        format!("rounds.target_clients={TARGET}"),
        format!("rounds.min_clients={TARGET}"),
    );
    let store = store.to_str().unwrap();
    let keep = "retention.keep_models=100000";
    Program::start(
        folder,
        &[
            "--store", store, "--set", rule, "--set", &target, "--set", &min, "--set", keep,
        ],
    )
}

/// Returns how many updates were counted in a later round than they start from.
async fn kill_while_clients_report(case: &Case, seed: u64) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = folder_with_task();
    let mut program = start(folder.path(), case.rule);
    let crowd = Arc::new(Crowd {
        address: RwLock::new(program.base.clone()),
        manifest: program.api().state().await.manifest,
        sent: case.sent,
        told: Mutex::default(),
        over: AtomicBool::new(false),
    });
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(crowd.clone().client(client, seed)))
        .collect();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 100)).await;
        drop(program);
        program = start(folder.path(), case.rule);
        *crowd.address.write().unwrap() = program.base.clone();
    }
    crowd.over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let api = program.api();
    let told = crowd.told.lock().unwrap().clone();
    let of_round = |round: u64| {
        told.iter()
            .copied()
            .filter(|it| it.counted == round)
            .collect::<Vec<_>>()
    };
    let rounds = api.rounds().await;
    assert!(rounds.len() > 5, "{} rounds", rounds.len());
    let model = task(&[]).model;
    let mut before = model.from_safetensors(&api.model(rounds[0].model).await).unwrap();
    for metrics in &rounds[1..] {
        let (round, seen) = (metrics.round, of_round(metrics.round));
        assert_eq!(
            metrics.clients as usize,
            seen.len(),
            "{} round {round}",
            case.rule
        );
        let after = model.from_safetensors(&api.model(metrics.model).await).unwrap();
        for at in 0..PARAMETERS {
            let expected = f64::from(before[at]) + (case.direction)(&seen, at) * GRID_STEP;
            // Rounded to f32 once, of numbers below 4. One update more or less is 2⁻¹⁰ / 12 in some coordinate at least.
            let off = (f64::from(after[at]) - expected).abs();
            assert!(off < 3e-7, "{} round {round}, {at}: off by {off}", case.rule);
        }
        before = after;
    }
    let open = api.state().await;
    assert_eq!(
        of_round(open.round).len(),
        open.received as usize,
        "and no other is counted"
    );
    let all: usize = rounds.iter().map(|metrics| metrics.clients as usize).sum();
    assert_eq!(
        all + open.received as usize,
        told.len(),
        "nobody was told what is not so"
    );
    eprintln!(
        "{} seed {seed}: {KILLS} kills, {} rounds, {} updates",
        case.rule,
        rounds.len() - 1,
        told.len()
    );
    told.iter().filter(|it| it.counted > it.base).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_rule_keeps_an_acknowledged_update_is_counted_once_whenever_the_relay_is_killed() {
    for case in &CASES {
        let mut stale = 0;
        for seed in 20..23 {
            let run = kill_while_clients_report(case, seed);
            let run = tokio::time::timeout(Duration::from_secs(90), run).await;
            stale += run.expect("it ends");
        }
        assert_eq!(
            stale > 0,
            case.rule.contains("fed-buff"),
            "{}: {stale} stale updates",
            case.rule
        );
    }
}
