//! What a simulated client does in a round: the same steps as a browser's session.

use futures_util::FutureExt;
use unsaid_engine::{Device, EngineError, Examples, TrainSpec, Unobserved};
use unsaid_privacy::PrivacyError;
use unsaid_protocol::{ContentHash, UpdateFrame, UpdateId};

use super::{Purpose, Simulation, client_id};

/// A client that has trained.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its number among all clients.
    pub client: usize,
    /// Trained minus given, `[d]`.
    pub change: Vec<f32>,
    /// Its examples.
    pub examples: usize,
    /// The mean loss of its last epoch's steps, each before the step.
    pub loss: f32,
}

/// An update as it would be sent.
pub(super) struct Framed {
    pub(super) bytes: Vec<u8>,
    pub(super) clipped: bool,
}

impl Simulation {
    pub(super) fn train(&self, round: u64, client: usize, before: &[f32]) -> Result<Local, EngineError> {
        let examples = &self.data.clients[client];
        let seed = self.seed.order(Purpose::Order, round, client as u64);
        let (after, loss) = self.fit(before, examples, &self.spec, seed)?;
        let change = after.iter().zip(before).map(|(after, before)| after - before);
        Ok(Local {
            client,
            change: change.collect(),
            examples: examples.len(),
            loss,
        })
    }

    /// Trains on the CPU; the parameters, and the mean loss of the last epoch.
    pub(super) fn fit(
        &self,
        from: &[f32],
        examples: &Examples,
        spec: &TrainSpec,
        seed: u64,
    ) -> Result<(Vec<f32>, f32), EngineError> {
        let model = &self.config.model;
        let mut observer = Unobserved;
        let training = unsaid_engine::train(model, from, examples, spec, seed, &Device::Cpu, &mut observer);
        // The CPU computes without waiting for anything, and nobody watches who could make it wait.
        let trained = training.now_or_never().unwrap_or(Err(EngineError::Stopped))?;
        let steps = trained.losses.len() / spec.epochs.get() as usize;
        let last = &trained.losses[trained.losses.len() - steps..];
        let loss = last.iter().sum::<f32>() / steps as f32;
        Ok((trained.parameters, loss))
    }

    /// Clips, rounds, noises and frames a change, as `crate/src/protect.rs` does, but from the simulation's seed.
    pub(super) fn protect(
        &self,
        round: u64,
        model: ContentHash,
        local: &Local,
    ) -> Result<Framed, PrivacyError> {
        let client = local.client;
        let mut rng = self.seed.generator(Purpose::Protection, round, client as u64);
        let encoded = self.encoding.encode(&local.change, &mut rng)?;
        let mut coordinates = encoded.coordinates;
        if let Some(noise) = &self.noise {
            noise.add(&mut coordinates, &mut rng)?;
        }
        if let Some(most) = self.config.strategy.aggregation.max_weight() {
            let weight = local.examples.min(most as usize);
            coordinates.push(weight as i32); // at most 2²⁰
        }
        let mut update = [0; 16];
        update[..8].copy_from_slice(&round.to_le_bytes());
        update[8..].copy_from_slice(&(client as u64).to_le_bytes());
        let frame = UpdateFrame {
            update: UpdateId::from_bytes(update),
            client: client_id(client),
            manifest: self.config.manifest_hash,
            model,
            round,
            coordinates,
        };
        Ok(Framed {
            bytes: frame.encode(),
            clipped: encoded.clipped,
        })
    }
}
