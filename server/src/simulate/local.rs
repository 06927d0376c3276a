//! What a simulated client does in a round: the same steps as a browser's session.

use futures_util::FutureExt;
use rand_chacha::ChaCha20Rng;
use unsaid_engine::{Chance, Device, EngineError, Examples, PrivateSteps, TrainSpec, Training, Unobserved};
use unsaid_privacy::{ExampleNoise, PrivacyError};
use unsaid_protocol::{ContentHash, UpdateFrame, UpdateId};

use super::{Noise, Purpose, Simulation, client_id};

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
    /// What is sent of the change, `[d]`, in the model's units; only where there are control variates.
    pub(super) sent: Vec<f32>,
}

/// The chance of a client's private training, from the simulation's seed.
struct Seeded<'a> {
    noise: &'a ExampleNoise,
    rng: ChaCha20Rng,
}

/// A simulation's GPU is never lost: no step is asked for again.
impl Chance for Seeded<'_> {
    fn lot(&mut self, _: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        self.noise.lot(examples, lot, &mut self.rng);
        Ok(())
    }

    fn noise(&mut self, _: u32, noise: &mut [i32]) -> Result<(), EngineError> {
        let drawn = self.noise.noise(noise, &mut self.rng);
        drawn.map_err(|error| EngineError::Chance(error.to_string()))
    }
}

impl Simulation {
    /// A client's training from `before`, with its `correction` where there are control variates.
    pub(super) fn train(
        &self,
        round: u64,
        client: usize,
        before: &[f32],
        correction: &[f32],
    ) -> Result<Local, EngineError> {
        let examples = &self.data.clients[client];
        let seed = self.seed.order(Purpose::Order, round, client as u64);
        let (after, loss) = match &self.noise {
            Noise::Gradients(noise, clip_l2) => {
                let mut chance = Seeded {
                    noise,
                    rng: self.seed.generator(Purpose::Lots, round, client as u64),
                };
                self.fit_privately(before, examples, *clip_l2, &mut chance, correction)?
            }
            _ => self.fit(before, examples, &self.spec, seed, correction)?,
        };
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
        correction: &[f32],
    ) -> Result<(Vec<f32>, f32), EngineError> {
        let model = &self.config.model;
        let mut observer = Unobserved;
        let training = Training::new(model, examples, spec)
            .seed(seed)
            .correction(correction);
        let training = training.run(from, &Device::Cpu, &mut observer);
        // The CPU computes without waiting for anything, and nobody watches who could make it wait.
        let trained = training.now_or_never().unwrap_or(Err(EngineError::Stopped))?;
        let steps = trained.losses.len() / spec.epochs.get() as usize;
        let last = &trained.losses[trained.losses.len() - steps..];
        let loss = last.iter().sum::<f32>() / steps as f32;
        Ok((trained.parameters, loss))
    }

    /// As [`Simulation::fit`], privately for each example, as a browser's session does.
    fn fit_privately(
        &self,
        from: &[f32],
        examples: &Examples,
        clip_l2: f32,
        chance: &mut Seeded<'_>,
        correction: &[f32],
    ) -> Result<(Vec<f32>, f32), EngineError> {
        let mut spec = self.spec.clone();
        spec.clip_examples_l2 = Some(clip_l2);
        let steps = PrivateSteps {
            steps_per_epoch: chance.noise.steps_per_epoch(),
            grid_step: ExampleNoise::grid_step(clip_l2),
            bound_squared: chance.noise.bound_squared(),
        };
        let mut observer = Unobserved;
        let training = Training::new(&self.config.model, examples, &spec).correction(correction);
        let training = training.run_private(from, steps, chance, &Device::Cpu, &mut observer);
        let trained = training.now_or_never().unwrap_or(Err(EngineError::Stopped))?;
        // Some lots are empty, and have no loss.
        let steps = trained.losses.len().div_ceil(spec.epochs.get() as usize);
        let last = &trained.losses[trained.losses.len() - steps..];
        let loss = last.iter().sum::<f32>() / steps.max(1) as f32;
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
        let sent = match self.config.control {
            Some(_) => self.encoding.decode(&coordinates),
            None => Vec::new(),
        };
        if let Noise::Update(noise) = &self.noise {
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
            bytes: frame.encode_in(self.config.fixed_width()),
            clipped: encoded.clipped,
            sent,
        })
    }
}
