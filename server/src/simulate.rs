//! The simulator: a task's rounds on this machine, by the code that the relay and the browser run, without HTTP.
//!
//! A simulated client trains with the engine, and clips, rounds and noises with the same functions as one in a browser; its
//! update is a frame of the protocol. A simulated relay is [`Live`]: the round machine, the exact sum and the strategies of the
//! real one, on a clock that the simulation moves.
//!
//! **Reproducible.** Everything that is drawn comes from one seed: which clients a round chooses, the order of their examples,
//! how updates are rounded, the noise. Clients are trained on several threads, and their updates handed over in their own order:
//! the same seed gives the same bits, whatever the number of threads (on one kind of machine: the matrix kernels differ).
//!
//! **Seeded noise protects nobody**, and is for simulations alone. The mechanisms of `unsaid-privacy` own no generator: theirs
//! is passed in. The one that can be seeded is made in `simulate/random.rs`, which is private to this module; the client's
//! (`crate/src/random.rs`) has no constructor but the platform's.

use std::collections::BTreeMap;

use unsaid_engine::{EngineError, Examples, control_variate_after};
use unsaid_privacy::{
    AccountingError, Adjacency, Encoding, ExampleNoise, LocalNoise, PrivacyError, Rho,
    accounting::CompositionError,
};
use unsaid_protocol::{CheckIn, CheckInReply, ClientId, Privacy, RoundMetrics};

use crate::{
    central::Central,
    live::{Live, OpenError, TaskConfig},
    round::Refusal,
    store::Changes,
    strategy::Aggregation,
    task_file::Task,
};

pub mod attack;
pub mod baselines;
pub mod data;
mod flight;
mod local;
pub mod partition;
mod pool;
mod random;
pub mod record;
pub mod report;
#[cfg(test)]
mod tests;

pub use self::{
    attack::Attack,
    baselines::Baseline,
    data::TrainingData,
    partition::Partition,
    record::{Fairness, Line, Protection, RoundLine},
};
use self::{
    flight::{Flight, Start},
    local::Local,
    random::{Purpose, Seed},
};

/// Examples of one piece of the held-out set: evaluated on its own, so that the result does not depend on the threads.
const EVALUATED_TOGETHER: usize = 1_000;

/// What to simulate.
#[derive(Debug)]
pub struct Settings {
    /// Rounds.
    pub rounds: u64,
    /// Clients that each round chooses; in asynchronous rounds the updates that fill the buffer.
    pub cohort: usize,
    /// Clients that train at the same time in asynchronous rounds.
    pub concurrency: usize,
    /// Whether clients take turns, so that each is in as many rounds as any other, to within one. Otherwise each round chooses anew.
    pub turns: bool,
    /// The seed of everything.
    pub seed: u64,
    /// Threads that train clients.
    pub threads: usize,
    /// δ at which ε is told.
    pub delta: f64,
    /// The held-out set is evaluated after every so many rounds, and after the last.
    pub evaluate_every: u64,
    /// Stop once the held-out accuracy is at least this.
    pub stop_at: Option<f64>,
    /// What malicious clients do, and how many of all clients they are: the first so many.
    pub attack: Option<(Attack, usize)>,
    /// What to compare with.
    pub baselines: Vec<Baseline>,
}

/// Why a simulation ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The task cannot begin.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Training or evaluation failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An update cannot be protected.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    /// A cost cannot be computed.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
    /// The cost of sampled steps cannot be computed.
    #[error(transparent)]
    Composition(#[from] CompositionError),
    /// The round machine refused what a client of a simulation does.
    #[error("the relay refused: {0}")]
    Refused(#[from] Refusal),
    /// A round did not publish.
    #[error("round {round} had {received} updates and did not publish")]
    Stuck {
        /// The round.
        round: u64,
        /// Its updates.
        received: u32,
    },
    /// Settings that cannot be followed.
    #[error("{0}")]
    Settings(String),
}

/// A simulation that can be run.
pub struct Simulation {
    config: TaskConfig,
    spec: unsaid_engine::TrainSpec,
    encoding: Encoding,
    noise: Noise,
    data: TrainingData,
    held_out: Vec<Examples>,
    settings: Settings,
    seed: Seed,
}

/// The control variates of the clients that took part, `[d]` each; those of the others are zeros.
type OwnVariates = BTreeMap<usize, Vec<f32>>;

/// What protects the clients.
enum Noise {
    None,
    /// Noise on each update.
    Update(LocalNoise),
    /// Noise on each sum of gradients, so clipped.
    Gradients(ExampleNoise, f32),
}

impl Simulation {
    /// Prepares the rounds of `task` among the clients of `data`. The task's round policy is the cohort, its deadline is that of
    /// the task on a clock of its own, and it has no last round but the settings'.
    ///
    /// # Errors
    /// [`SimulateError::Settings`] where the cohort is larger than the clients are many, or is too small for the task's rule, or where
    /// that rule counts on another number of clients; and where more clients are malicious than there are.
    pub fn new(
        mut task: Task,
        data: TrainingData,
        held_out: &Examples,
        settings: Settings,
    ) -> Result<Self, SimulateError> {
        let clients = data.clients.len();
        if settings.cohort == 0 || settings.cohort > clients {
            let message = format!(
                "a cohort of {} cannot be chosen from {clients} clients",
                settings.cohort
            );
            return Err(SimulateError::Settings(message));
        }
        if let Some((_, malicious)) = settings.attack
            && malicious > clients
        {
            let message = format!("{malicious} malicious clients are more than the {clients} that there are");
            return Err(SimulateError::Settings(message));
        }
        if settings.turns && !clients.is_multiple_of(settings.cohort) {
            let message = format!(
                "{clients} clients cannot take turns in cohorts of {}: whole rounds must make a pass",
                settings.cohort
            );
            return Err(SimulateError::Settings(message));
        }
        let rule = task.strategy.aggregation;
        if rule.max_staleness() > 0 && settings.concurrency.saturating_add(settings.cohort) > clients {
            let message = format!(
                "{} clients that train and {} that have reported are more than {clients}",
                settings.concurrency, settings.cohort
            );
            return Err(SimulateError::Settings(message));
        }
        if rule.least_updates() > settings.cohort as u64 {
            let message = format!(
                "{} needs at least {} updates in a round, the cohort is {}",
                rule.name(),
                rule.least_updates(),
                settings.cohort
            );
            return Err(SimulateError::Settings(message));
        }
        if let Aggregation::Scaffold { population } = rule
            && population.get() as usize != clients
        {
            let message = format!(
                "the task says that there are {population} clients, and there are {clients}: set strategy.aggregation.population"
            );
            return Err(SimulateError::Settings(message));
        }
        let cohort = u32::try_from(settings.cohort)
            .map_err(|_| SimulateError::Settings("the cohort is too large".into()))?;
        let policy = &mut task.manifest.rounds;
        policy.target_clients = cohort;
        policy.min_clients = policy.min_clients.min(cohort);
        task.round_limit = None;
        if let Privacy::Central(terms) = &task.manifest.privacy {
            let central = Central::new(terms, &task.encoding, cohort);
            task.central = Some(central.map_err(|error| SimulateError::Settings(error.to_string()))?);
        }
        let noise = match task.manifest.privacy {
            Privacy::None | Privacy::Central(_) => Noise::None,
            Privacy::Local { noise_multiplier } => {
                let noise = LocalNoise::new(&task.encoding, noise_multiplier);
                Noise::Update(noise.map_err(PrivacyError::from)?)
            }
            Privacy::Example {
                clip_l2,
                noise_multiplier,
                sampling_rate,
            } => {
                let noise = ExampleNoise::new(noise_multiplier, sampling_rate, task.encoding.dimension());
                Noise::Gradients(noise.map_err(PrivacyError::from)?, clip_l2 as f32)
            }
            _ => {
                let message = "the simulator does not know this privacy mode".to_owned();
                return Err(SimulateError::Settings(message));
            }
        };
        let spec = serde_json::from_value(task.manifest.training.clone())
            .map_err(|error| SimulateError::Settings(error.to_string()))?;
        Ok(Self {
            encoding: task.encoding,
            config: TaskConfig {
                // Of this seed, and so it protects nobody.
                randomness: Seed::new(settings.seed).aggregation(),
                identity: None, // its clients are the relay's own
                chance: None,   // and its cohorts are drawn by its own seed
                ..TaskConfig::new(task)
            },
            spec,
            noise,
            held_out: data::pieces(held_out, EVALUATED_TOGETHER).map_err(EngineError::from)?,
            data,
            seed: Seed::new(settings.seed),
            settings,
        })
    }

    /// Runs all rounds and the baselines. `hear` is told of everything as it happens.
    ///
    /// # Errors
    /// [`SimulateError`]
    pub fn run(&self, hear: &mut dyn FnMut(&Line)) -> Result<Vec<Line>, SimulateError> {
        let mut lines = Vec::new();
        let mut tell = |line: Line| {
            hear(&line);
            lines.push(line);
        };
        tell(self.start_line());
        let (mut live, _) = Live::first(&self.config, 0)?;
        let mut taken_part = BTreeMap::<usize, u32>::new();
        let mut flight = Flight::default();
        let mut own = OwnVariates::new();
        let mut accuracy = self.evaluate(live.parameters())?.0;
        let mut epsilon = None;
        for round in 1..=self.settings.rounds {
            let line = self.round(round, &mut live, &mut taken_part, &mut flight, &mut own)?;
            accuracy = line.accuracy.unwrap_or(accuracy);
            epsilon = line.epsilon;
            let reached = self.settings.stop_at.is_some_and(|goal| accuracy >= goal);
            tell(Line::Round(line));
            if reached {
                break;
            }
        }
        let parameters = live.parameters();
        for &baseline in &self.settings.baselines {
            let accuracies = self.baseline(baseline, live.rounds.round() - 1)?;
            let federated = (baseline == Baseline::Centralised).then_some(accuracy);
            tell(Line::Baseline(record::BaselineLine::new(
                baseline,
                &accuracies,
                federated,
            )));
        }
        let own = pool::map(self.settings.threads, &self.data.clients, |examples| {
            self.config.model.evaluate(parameters, examples)
        });
        let own: Vec<f64> = own
            .into_iter()
            .map(|figures| figures.map(|figures| figures.accuracy))
            .collect::<Result<_, _>>()?;
        tell(Line::End(record::EndLine {
            rounds: live.rounds.round() - 1,
            model: live.rounds.model(),
            accuracy,
            privacy: Protection::of(&self.config.manifest.privacy),
            epsilon,
            delta: self.settings.delta,
            fairness: Fairness::of(&own),
            clients: own,
        }));
        Ok(lines)
    }

    fn start_line(&self) -> Line {
        let manifest = &self.config.manifest;
        let sizes = self.data.clients.iter().map(Examples::len);
        Line::Start(record::StartLine {
            task: manifest.task.to_string(),
            title: manifest.title.clone(),
            parameters: manifest.parameters,
            aggregation: self.config.strategy.aggregation.name(),
            server: self.config.strategy.server.name(),
            privacy: Protection::of(&manifest.privacy),
            noise_multiplier: match manifest.privacy {
                Privacy::Local { noise_multiplier } | Privacy::Example { noise_multiplier, .. } => {
                    Some(noise_multiplier)
                }
                Privacy::Central(terms) => Some(terms.noise_multiplier),
                _ => None,
            },
            partition: self.data.partition.clone(),
            clients: self.data.clients.len(),
            examples: sizes.sum(),
            cohort: self.settings.cohort,
            rounds: self.settings.rounds,
            seed: self.settings.seed,
            delta: self.settings.delta,
            attack: self.settings.attack.map(|(attack, _)| attack.to_string()),
            malicious: self.settings.attack.map_or(0, |(_, malicious)| malicious),
        })
    }

    /// One round: check-in, training, reports, publication.
    fn round(
        &self,
        round: u64,
        live: &mut Live,
        taken_part: &mut BTreeMap<usize, u32>,
        flight: &mut Flight,
        own: &mut OwnVariates,
    ) -> Result<RoundLine, SimulateError> {
        let mut changes = Changes::default(); // what a store would be told
        let now_ms = (round - 1).saturating_mul(self.config.manifest.rounds.deadline_ms.saturating_add(1));
        let is_asynchronous = self.config.strategy.aggregation.max_staleness() > 0;
        let starts = if is_asynchronous {
            self.arrivals(live, &mut changes, flight, (self.settings.cohort, now_ms))?
        } else {
            self.cohort(round, live, &mut changes, now_ms)?
        };
        let shared = live.control().to_vec();
        let trained = pool::map(self.settings.threads, &starts, |start| {
            let correction: Vec<f32> = match own.get(&start.client) {
                Some(own) => shared.iter().zip(own).map(|(shared, own)| shared - own).collect(),
                None => shared.clone(),
            };
            self.train(start.round, start.client, &start.parameters, &correction)
        });
        let mut locals = trained.into_iter().collect::<Result<Vec<Local>, _>>()?;
        if let Some((attack, malicious)) = self.settings.attack {
            attack.apply(&mut locals, malicious);
        }
        let pairs: Vec<(&Start, &Local)> = starts.iter().zip(&locals).collect();
        let frames = pool::map(self.settings.threads, &pairs, |(start, local)| {
            self.protect(start.round, start.model, local)
        });
        let (mut bytes_up, mut clipped) = (0, 0);
        for (start, frame) in starts.iter().zip(frames) {
            let frame = frame?;
            if let Some(control) = &self.config.control {
                let own = own.entry(start.client).or_default();
                *own = control_variate_after(own, &shared, frame.sent, control.reach);
            }
            bytes_up += frame.bytes.len() as u64;
            clipped += u32::from(frame.clipped);
            let submission = self
                .config
                .examine(&frame.bytes)
                .map_err(|error| SimulateError::Settings(error.to_string()))?;
            live.update(&self.config, submission, now_ms, &mut changes)?;
        }
        let Some(metrics) = changes.rounds.last().filter(|metrics| metrics.round == round) else {
            return Err(self.stuck(round, live));
        };
        for start in &starts {
            *taken_part.entry(start.client).or_default() += 1;
        }
        let staleness = starts
            .iter()
            .map(|start| (round - start.round) as f64)
            .sum::<f64>();
        let is_due = round.is_multiple_of(self.settings.evaluate_every) || round == self.settings.rounds;
        let figures = if is_due {
            Some(self.evaluate(live.parameters())?)
        } else {
            None
        };
        let train_loss = locals.iter().map(|local| f64::from(local.loss)).sum::<f64>() / locals.len() as f64;
        Ok(RoundLine {
            round,
            clients: metrics.clients,
            accuracy: figures.map(|(accuracy, _)| accuracy),
            loss: figures.map(|(_, loss)| loss),
            train_loss,
            staleness: is_asynchronous.then_some(staleness / starts.len() as f64),
            clipped,
            epsilon: self.epsilon(taken_part, metrics)?,
            clip_l2: metrics.privacy.map(|privacy| privacy.next_clip_l2),
            bytes_up,
            bytes_down: metrics.model_bytes * u64::from(metrics.clients),
        })
    }

    /// The clients that the round chooses, checked in.
    fn cohort(
        &self,
        round: u64,
        live: &mut Live,
        changes: &mut Changes,
        now_ms: u64,
    ) -> Result<Vec<Start>, SimulateError> {
        let parameters: std::sync::Arc<[f32]> = live.parameters().into();
        let mut starts = Vec::new();
        // Where clients have to stay away for some rounds, the next ones in the order drawn come in their place.
        let stay_away = self.config.central.as_ref().is_some_and(Central::has_tree);
        let candidates = if stay_away && !self.settings.turns {
            self.shuffled(round, self.data.clients.len())
        } else {
            self.choose(round)
        };
        for client in candidates {
            if starts.len() == self.settings.cohort {
                break;
            }
            let ask = CheckIn {
                client: client_id(client),
                manifest: self.config.manifest_hash,
            };
            match live.check_in(&ask, now_ms, changes)? {
                CheckInReply::Train {
                    round: asked, model, ..
                } if asked == round => starts.push(Start {
                    client,
                    round,
                    model,
                    parameters: parameters.clone(),
                }),
                CheckInReply::Wait { .. } if stay_away => {}
                _ => return Err(self.stuck(round, live)),
            }
        }
        if starts.len() < self.settings.cohort {
            return Err(self.stuck(round, live));
        }
        starts.sort_unstable_by_key(|start| start.client);
        Ok(starts)
    }

    fn stuck(&self, round: u64, live: &Live) -> SimulateError {
        let received = live.rounds.received();
        SimulateError::Stuck { round, received }
    }

    /// The round's clients, in ascending order: each set of this size is as likely (McMahan et al. 2017, algorithm 1). Or, where they
    /// take turns, those whose turn it is in an order that is drawn anew whenever all have had theirs.
    fn choose(&self, round: u64) -> Vec<usize> {
        let (clients, cohort) = (self.data.clients.len(), self.settings.cohort);
        let mut chosen = if self.settings.turns {
            // Whole rounds make a pass: `new` saw to it.
            let rounds = (clients / cohort) as u64;
            let first = ((round - 1) % rounds) as usize * cohort;
            self.shuffled((round - 1) / rounds, clients)[first..first + cohort].to_vec()
        } else {
            let mut all = self.shuffled(round, cohort);
            all.truncate(cohort);
            all
        };
        chosen.sort_unstable();
        chosen
    }

    /// All clients, of which the first `count` were drawn one by one by the generator of `number`.
    fn shuffled(&self, number: u64, count: usize) -> Vec<usize> {
        let mut rng = self.seed.generator(Purpose::Cohort, number, 0);
        let mut all: Vec<usize> = (0..self.data.clients.len()).collect();
        for at in 0..count {
            let other = at + random::below(&mut rng, all.len() - at);
            all.swap(at, other);
        }
        all
    }

    /// Accuracy and loss on the held-out examples.
    fn evaluate(&self, parameters: &[f32]) -> Result<(f64, f64), EngineError> {
        let pieces = pool::map(self.settings.threads, &self.held_out, |piece| {
            self.config.model.evaluate(parameters, piece)
        });
        let (mut right, mut loss, mut count) = (0.0, 0.0, 0.0);
        for figures in pieces {
            let figures = figures?;
            let examples = figures.examples as f64;
            right += (figures.accuracy * examples).round();
            loss += figures.loss * examples;
            count += examples;
        }
        Ok((right / count, loss / count))
    }

    /// ε of the client that took part most often; none in a task without noise. With noise on updates it is that of one update in place
    /// of any other, with noise on gradients that of one example that is there or is not. Where the relay adds the noise it is that of the
    /// rounds which that client was in, each at its share of what all rounds cost: they cost the same. With a tree it is that of a client that was
    /// in as many as are allowed.
    fn epsilon(
        &self,
        taken_part: &BTreeMap<usize, u32>,
        published: &RoundMetrics,
    ) -> Result<Option<f64>, SimulateError> {
        let most = taken_part.values().max().copied().unwrap_or(0);
        let delta = self.settings.delta;
        match &self.noise {
            Noise::None => match (&self.config.central, &published.privacy) {
                // Whichever of its rounds a client was in: what the tree costs those who came as often as they could.
                (Some(central), Some(all)) if central.has_tree() => {
                    Ok(Some(central.epsilon(Rho::new(all.rho)?, delta)?))
                }
                (Some(central), Some(all)) => {
                    let spent = Rho::new(all.rho / published.round as f64 * f64::from(most))?;
                    Ok(Some(central.epsilon(spent, delta)?))
                }
                _ => Ok(None),
            },
            Noise::Update(noise) => {
                let round = noise.rho(Adjacency::ReplaceOne);
                let spent: Rho = std::iter::repeat_n(round, most as usize).sum();
                Ok(Some(spent.epsilon(delta)?))
            }
            Noise::Gradients(noise, _) => {
                let steps = self.spec.epochs.get() * noise.steps_per_epoch();
                let spent = noise.curve(steps)?.times(most.into());
                Ok(Some(spent.epsilon(delta)?.0))
            }
        }
    }
}

/// A simulated client's id: its number.
fn client_id(client: usize) -> ClientId {
    ClientId::from_bytes((client as u128).to_le_bytes())
}
