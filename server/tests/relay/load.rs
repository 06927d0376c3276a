//! Clients that take part in round after round through relays that are killed, and what must be true of the rounds afterwards.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_engine::Model;
use unsaid_protocol::{CheckInReply, ContentHash, ProblemKind, RoundMetrics, UpdateId};

use crate::harness::*;

/// How the server moves the model in these rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    FedAvg,
    /// With state that has to survive, too.
    FedAdam,
}

pub struct Load {
    /// Addresses of the relays, which change as they are killed.
    pub addresses: RwLock<Vec<String>>,
    /// Rounds and ids of updates that were acknowledged.
    pub acknowledged: Mutex<BTreeSet<(u64, UpdateId)>>,
    /// Updates that were counted although their answer was lost.
    pub duplicates: AtomicU64,
    /// The manifest, which no kill changes.
    pub manifest: ContentHash,
    /// What a client's updates say.
    coordinates: fn(u8) -> Vec<i32>,
    /// The last round that clients take part in.
    last: AtomicU64,
}

impl Load {
    pub fn new(addresses: Vec<String>, manifest: ContentHash) -> Arc<Self> {
        Self::of(addresses, manifest, coordinates)
    }

    /// With other coordinates than those of the harness.
    pub fn of(addresses: Vec<String>, manifest: ContentHash, coordinates: fn(u8) -> Vec<i32>) -> Arc<Self> {
        Arc::new(Self {
            coordinates,
            addresses: RwLock::new(addresses),
            acknowledged: Mutex::default(),
            duplicates: AtomicU64::new(0),
            manifest,
            last: AtomicU64::new(u64::MAX),
        })
    }

    /// Has clients leave once a round is over that none of them has reached yet. Returns its number.
    pub fn finish(&self) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap();
        let last = acknowledged.last().map_or(0, |(round, _)| *round) + 2;
        self.last.store(last, Ordering::SeqCst);
        last
    }

    /// Any of the relays.
    pub fn api(&self, rng: &mut ChaCha8Rng) -> Api {
        let addresses = self.addresses.read().unwrap();
        Api::new(&addresses[rng.next_u64() as usize % addresses.len()])
    }

    /// A client that takes part until the last round is over; in each round it reports once, and tries until it is acknowledged.
    pub async fn client(self: Arc<Self>, client: u8, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed * 1_000 + u64::from(client));
        loop {
            tokio::time::sleep(Duration::from_millis(rng.next_u64() % 20)).await;
            let last = self.last.load(Ordering::SeqCst);
            let (round, model) = match self.api(&mut rng).try_check_in(client, self.manifest).await {
                Ok(Ok(CheckInReply::Train { round, .. })) if round > last => return,
                Ok(Ok(CheckInReply::Train { round, model, .. })) => (round, model),
                Ok(Ok(CheckInReply::Wait { round, .. })) if round > last => return,
                Ok(Ok(CheckInReply::Wait { .. }) | Err(ProblemKind::Unavailable)) | Err(_) => continue,
                Ok(other) => panic!("client {client}: {other:?}"),
            };
            let mut state = idle_state(self.manifest);
            (state.round, state.model) = (round, model);
            let mut frame = frame(&state, client);
            frame.coordinates = (self.coordinates)(client);
            let bytes = frame.encode();
            loop {
                match self.api(&mut rng).try_send(bytes.clone()).await {
                    Ok(Ok(reply)) => {
                        assert_eq!((reply.round, reply.update), (round, frame.update));
                        self.duplicates
                            .fetch_add(reply.duplicate.into(), Ordering::SeqCst);
                        self.acknowledged.lock().unwrap().insert((round, frame.update));
                        break;
                    }
                    // The operator went back to an older model: what was sent for the one before counts no more.
                    Ok(Err(ProblemKind::RoundClosed)) => break,
                    Ok(Err(ProblemKind::Unavailable)) | Err(_) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Ok(Err(refused)) => panic!("client {client}, round {round}: {refused:?}"),
                }
            }
        }
    }
}

/// That each round counts each of `clients` exactly once, or none where it went back to an older model: a client that was lost
/// would have kept its round open, one that was counted twice would have made another model. Begins at `first`, the model of
/// round 0.
pub fn check_rounds(first: &[u8], rounds: &[RoundMetrics], clients: u8, server: Server) {
    let model: Model = task(&[]).model;
    let all: Vec<u8> = (1..=clients).collect();
    let direction: Vec<f64> = (0..PARAMETERS)
        .map(|at| {
            let sum: i64 = all.iter().map(|&client| i64::from(coordinates(client)[at])).sum();
            sum as f64 * GRID_STEP / f64::from(clients)
        })
        .collect();
    let mut models = vec![model.from_safetensors(first).unwrap()];
    let fresh = || (vec![0.0_f32; PARAMETERS], vec![1e-6_f32; PARAMETERS]); // v = τ²
    let mut state = fresh();
    for (at, metrics) in rounds.iter().enumerate().skip(1) {
        assert_eq!(metrics.round, at as u64);
        let next = if let Some(to) = metrics.rolled_back_to {
            assert_eq!(metrics.clients, 0, "round {at}");
            state = fresh();
            models[to as usize].clone()
        } else {
            assert_eq!(metrics.clients, u32::from(clients), "round {at}");
            let before = models.last().unwrap();
            (0..PARAMETERS)
                .map(|i| {
                    let step = match server {
                        Server::FedAvg => direction[i],
                        Server::FedAdam => adam(&mut state.0[i], &mut state.1[i], direction[i]),
                    };
                    (f64::from(before[i]) + step) as f32
                })
                .collect()
        };
        let expected = ContentHash::of(&model.to_safetensors(&next).unwrap());
        assert_eq!(metrics.model, expected, "round {at}");
        models.push(next);
    }
}

/// The flags for [`Server`].
pub fn server_flags(server: Server) -> &'static [&'static str] {
    match server {
        Server::FedAvg => &[],
        Server::FedAdam => &[
            "--set",
            "strategy.server.type=fed-adam",
            "--set",
            "strategy.server.learning_rate=0.1",
        ],
    }
}

/// FedAdam (Reddi et al. 2021, algorithm 2) with η = 0.1, β₁ = 0.9, β₂ = 0.99 and τ = 10⁻³, its state as `f32`.
fn adam(m: &mut f32, v: &mut f32, direction: f64) -> f64 {
    let mean = 0.9 * f64::from(*m) + (1.0 - 0.9) * direction;
    let squares = 0.99 * f64::from(*v) + (1.0 - 0.99) * (direction * direction);
    (*m, *v) = (mean as f32, squares as f32);
    0.1 * mean / (squares.sqrt() + 1e-3)
}
