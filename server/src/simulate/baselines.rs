//! What the federated model is compared with, on the same data and with as many passes over it.

use std::num::NonZeroU32;

use unsaid_engine::{EngineError, Examples, TrainSpec};

use super::{Purpose, Simulation, pool};

/// A way to learn without federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Baseline {
    /// One model, trained on the examples of all clients in one place: V_SUM.
    #[value(name = "centralised")]
    Centralised,
    /// A model for each client, trained on its examples alone.
    #[value(name = "local")]
    LocalOnly,
    /// A model for each client, trained on public examples first and then on its own.
    #[value(name = "proxy")]
    LocalWithProxy,
}

impl Baseline {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Centralised => "centralised",
            Self::LocalOnly => "local only",
            Self::LocalWithProxy => "local with proxy",
        }
    }
}

impl Simulation {
    /// The held-out accuracies of a baseline's models, after as many passes over the examples as `rounds` rounds made on average.
    pub(super) fn baseline(&self, baseline: Baseline, rounds: u64) -> Result<Vec<f64>, EngineError> {
        let start = self.config.model.initial_parameters(self.config.seed);
        let spec = self.as_many_passes(rounds);
        let seed = |client: u64| self.seed.order(Purpose::Baseline, baseline as u64, client);
        let alone = |from: &[f32]| {
            let numbered: Vec<(u64, &Examples)> = (1..).zip(&self.data.clients).collect();
            let trained = pool::map(self.settings.threads, &numbered, |&(client, examples)| {
                self.fit(from, examples, &spec, seed(client), &[])
            });
            trained
                .into_iter()
                .map(|trained| Ok(self.evaluate(&trained?.0)?.0))
                .collect()
        };
        match baseline {
            Baseline::Centralised => {
                let (parameters, _) = self.fit(&start, &self.everything()?, &spec, seed(0), &[])?;
                Ok(vec![self.evaluate(&parameters)?.0])
            }
            Baseline::LocalOnly => alone(&start),
            Baseline::LocalWithProxy => {
                let Some(proxy) = &self.data.proxy else {
                    return Ok(Vec::new());
                };
                let (public, _) = self.fit(&start, proxy, &spec, seed(0), &[])?;
                alone(&public)
            }
        }
    }

    /// The task's local training, with as many passes as a client has done in `rounds` rounds on average; without the proximal
    /// term, which is a tie to a shared model. An epoch is a pass, also where that of a round is a fixed number of steps.
    fn as_many_passes(&self, rounds: u64) -> TrainSpec {
        let share = self.settings.cohort as f64 / self.data.clients.len() as f64;
        let turns = (rounds as f64 * share).round().max(1.0);
        let passes = match self.spec.steps_per_epoch {
            None => 1.0,
            Some(steps) => {
                let of_step = f64::from(self.spec.batch_size.get()) * f64::from(self.spec.accumulate.get());
                let examples = self.data.clients.iter().map(Examples::len).sum::<usize>();
                f64::from(steps.get()) * of_step * self.data.clients.len() as f64 / examples as f64
            }
        };
        let epochs = (f64::from(self.spec.epochs.get()) * turns * passes).round() as u32;
        TrainSpec {
            epochs: NonZeroU32::new(epochs).unwrap_or(self.spec.epochs),
            steps_per_epoch: None,
            proximal: 0.0,
            ..self.spec.clone()
        }
    }

    fn everything(&self) -> Result<Examples, EngineError> {
        let model = &self.config.model;
        let clients = || self.data.clients.iter();
        let features = clients().flat_map(Examples::x).copied().collect();
        let labels = clients().flat_map(Examples::y).copied().collect();
        Ok(Examples::new(
            features,
            labels,
            model.features(),
            model.classes(),
        )?)
    }
}
