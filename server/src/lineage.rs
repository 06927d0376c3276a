//! Where a published model comes from, and what the rounds up to it cost: kept and told with the figures of its round.
//!
//! Clients need none of it: their messages are those of [`unsaid_protocol`], and theirs pass over these fields.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use unsaid_document::{Document, Value, deserialize_by_read};
use unsaid_privacy::{Cost, Encoding, ExampleNoise, LocalNoise, Rho};
use unsaid_protocol::{CentralAdjacency, ContentHash, Manifest, Privacy, RoundMetrics};
use utoipa::ToSchema;

use crate::{identity::cost_without_noise, live::TaskConfig};

/// δ of every ε that the relay tells of noise which clients add. Clients may count with another.
pub const DELTA: f64 = 1e-5;

/// A published round as the relay keeps and tells it: its figures, which it reads as, and its lineage.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoundRecord {
    /// The figures.
    #[serde(flatten)]
    pub metrics: RoundMetrics,
    /// Where the model comes from.
    #[serde(flatten)]
    pub lineage: Lineage,
}

/// Where a round's model comes from, and what the rounds up to it cost. All of it is null in a round that was published by a relay that
/// did not keep it yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Lineage {
    /// The model that this one was made from; after a rollback the one that was gone back to. Null for the first.
    pub parent: Option<ContentHash>,
    /// The manifest under which it was made.
    pub manifest: Option<ContentHash>,
    /// What all rounds up to this one cost who took part in each.
    pub spent: Option<Spent>,
}

/// What all rounds up to one cost who took part in each, and of what that is said. Nothing is taken off for who was not there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spent {
    /// The privacy mode of the round.
    pub mode: Mode,
    /// What is protected; null where nothing is.
    pub unit: Option<Unit>,
    /// Which two inputs are hard to tell apart.
    pub adjacency: Option<Adjacency>,
    /// The δ of ε.
    pub delta: Option<f64>,
    /// ε of all rounds so far. Null in mode `none`, and where a round before counted updates under other terms for which this makes no promise.
    pub epsilon: Option<f64>,
}

/// A privacy mode, by its name in manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the modes of the manifest
pub enum Mode {
    None,
    Local,
    Example,
    Central,
}

/// What is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// The whole update of a participant in each round.
    Update,
    /// Each example of a participant.
    Example,
    /// All updates of a participant together.
    Participant,
}

/// Which two inputs are hard to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Adjacency {
    /// One unit is there, or it is not.
    AddRemove,
    /// One unit is what it is, or any other.
    ReplaceOne,
}

deserialize_by_read!(RoundRecord);

impl Document for RoundRecord {
    fn read(document: Value) -> Result<Self, String> {
        let lineage = Lineage::deserialize(&document).map_err(|error| error.to_string())?;
        let metrics = RoundMetrics::read(document)?;
        Ok(Self { metrics, lineage })
    }
}

/// Of whose lineage nothing is known.
impl From<RoundMetrics> for RoundRecord {
    fn from(metrics: RoundMetrics) -> Self {
        Self {
            metrics,
            lineage: Lineage::default(),
        }
    }
}

impl Deref for RoundRecord {
    type Target = RoundMetrics;
    fn deref(&self) -> &RoundMetrics {
        &self.metrics
    }
}

impl Lineage {
    /// That of a model which was made from none, where all rounds so far cost `spent` by noise that clients added.
    pub fn of(config: &TaskConfig, spent: &Cost, metrics: &RoundMetrics) -> Self {
        Self {
            parent: None,
            manifest: Some(config.manifest_hash),
            spent: Some(Spent::after(&config.manifest, spent, metrics)),
        }
    }
}

impl Spent {
    /// What is told after a round under `manifest`: `by_clients` is what all rounds so far cost by noise that clients added themselves. Where
    /// the relay adds the noise the round's own figures say it.
    pub fn after(manifest: &Manifest, by_clients: &Cost, metrics: &RoundMetrics) -> Self {
        let epsilon = by_clients.epsilon(DELTA).ok().filter(|it| it.is_finite());
        // A sum protects what the weakest of its parts does.
        let only_updates = by_clients.is_of_updates() || epsilon.is_none();
        let told = |mode, unit, adjacency| Self {
            mode,
            unit: Some(unit),
            adjacency: Some(adjacency),
            delta: Some(DELTA),
            epsilon,
        };
        match &manifest.privacy {
            Privacy::Local { .. } if only_updates => told(Mode::Local, Unit::Update, Adjacency::ReplaceOne),
            Privacy::Local { .. } => told(Mode::Local, Unit::Example, Adjacency::AddRemove),
            Privacy::Example { .. } => told(Mode::Example, Unit::Example, Adjacency::AddRemove),
            Privacy::Central(terms) => Self {
                mode: Mode::Central,
                unit: Some(match terms.tree {
                    Some(_) => Unit::Participant,
                    None => Unit::Update,
                }),
                adjacency: Some(match terms.adjacency {
                    CentralAdjacency::AddRemove => Adjacency::AddRemove,
                    _ => Adjacency::ReplaceOne,
                }),
                delta: Some(terms.delta),
                epsilon: match metrics.privacy {
                    Some(privacy) => privacy.epsilon,
                    None => (metrics.round == 0).then_some(0.0), // the first model is nobody's
                },
            },
            _ => Self {
                mode: Mode::None,
                unit: None,
                adjacency: None,
                delta: None,
                epsilon: None,
            },
        }
    }
}

/// What a round under `manifest` costs a client that takes part, by the noise that it adds itself and as its own ledger counts it; everything
/// where it adds none.
pub fn cost_of_round(manifest: &Manifest) -> Cost {
    let (update, d) = (manifest.update, manifest.parameters as usize);
    let cost = || match manifest.privacy {
        Privacy::Local { noise_multiplier } => {
            let encoding = Encoding::new(update.clip_l2, update.grid_step, d).ok()?;
            let noise = LocalNoise::new(&encoding, noise_multiplier).ok()?;
            Some(noise.rho(unsaid_privacy::Adjacency::ReplaceOne).into())
        }
        Privacy::Example {
            noise_multiplier,
            sampling_rate,
            ..
        } => {
            let noise = ExampleNoise::new(noise_multiplier, sampling_rate, d).ok()?;
            let epochs = u32::try_from(manifest.training.get("epochs")?.as_u64()?).ok()?;
            let steps = epochs.saturating_mul(noise.steps_per_epoch());
            Some(Cost::of_examples(|order| noise.cost(order, steps)))
        }
        _ => None,
    };
    cost().unwrap_or_else(cost_without_noise)
}

/// A cost as it is stored, by the bits of its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCost {
    rho: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    curve: Vec<u64>,
}

impl From<&Cost> for KeptCost {
    fn from(cost: &Cost) -> Self {
        let curve = cost.curve().iter().map(|value| value.to_bits());
        Self {
            // A sum beyond the range of numbers is as good as the greatest of them, which can be read again.
            rho: cost.rho().get().min(f64::MAX).to_bits(),
            curve: match cost.is_of_updates() {
                true => Vec::new(),
                false => curve.collect(),
            },
        }
    }
}

impl KeptCost {
    /// The cost; everything where these are no numbers of one: what was spent is never taken for nothing.
    pub fn cost(&self) -> Cost {
        let curve: Vec<f64> = self.curve.iter().map(|&bits| f64::from_bits(bits)).collect();
        let curve = match curve.is_empty() {
            true => Ok([0.0; Cost::ORDERS.len()]),
            false => curve.try_into(),
        };
        let rho = Rho::new(f64::from_bits(self.rho)).ok();
        let cost = rho.and_then(|rho| Cost::from_parts(rho, curve.ok()?).ok());
        cost.unwrap_or_else(cost_without_noise)
    }
}

/// What rounds cost that were published by relays which did not keep it: nothing where none of them counted an update, else nobody knows.
pub fn cost_of_unknown(rounds: &[RoundRecord]) -> Cost {
    match rounds.iter().any(|round| round.clients > 0) {
        true => cost_without_noise(),
        false => Cost::NOTHING,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use unsaid_protocol::RoundPrivacy;

    use super::*;
    use crate::task_file::Task;

    fn manifest(overrides: &[&str]) -> Manifest {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let text = include_str!("../tests/tiny.toml");
        Task::parse("tiny.toml", text, &overrides).unwrap().manifest
    }

    fn examples() -> Manifest {
        let text = include_str!("../tasks/mnist-example.toml");
        Task::parse("mnist-example.toml", text, &[]).unwrap().manifest
    }

    /// Of a round in which so many were counted.
    pub(crate) fn metrics(round: u64, clients: u32) -> RoundMetrics {
        RoundMetrics {
            round,
            model: ContentHash::of(b"model"),
            clients,
            checked_in: clients,
            bytes_up: 0,
            model_bytes: 0,
            duration_ms: 0,
            published_at_ms: 0,
            accuracy: None,
            loss: None,
            rolled_back_to: None,
            privacy: None,
        }
    }

    #[test]
    fn a_round_costs_what_the_ledgers_of_clients_book_for_it() {
        // ρ = 2 / 1.5², and σ is rounded up to what the sampler draws.
        let local = cost_of_round(&manifest(&["privacy.mode=\"local\""]));
        assert!(
            (local.rho().get() * 1.5 * 1.5 / 2.0 - 1.0).abs() < 1e-3,
            "{local:?}"
        );
        let of_examples = cost_of_round(&examples());
        assert!(!of_examples.is_of_updates() && of_examples.epsilon(DELTA).unwrap().is_finite());
        assert_eq!(cost_of_round(&manifest(&[])), cost_without_noise());
    }

    #[test]
    fn what_was_spent_is_told_with_what_it_is_of() {
        let local = manifest(&["privacy.mode=\"local\""]);
        let cost = cost_of_round(&local).times(2);
        let told = Spent::after(&local, &cost, &metrics(2, 3));
        let expected = Spent {
            mode: Mode::Local,
            unit: Some(Unit::Update),
            adjacency: Some(Adjacency::ReplaceOne),
            delta: Some(1e-5),
            epsilon: Some(cost.epsilon(1e-5).unwrap()),
        };
        assert_eq!(told, expected);
        // Whoever gave updates with noise, and then examples with noise, is promised what the weaker of the two gives.
        let both = cost + cost_of_round(&examples());
        for manifest in [&local, &examples()] {
            let told = Spent::after(manifest, &both, &metrics(3, 3));
            let of = (told.unit, told.adjacency);
            assert_eq!(of, (Some(Unit::Example), Some(Adjacency::AddRemove)));
            assert_eq!(told.epsilon, Some(both.epsilon(1e-5).unwrap()));
        }
        assert_eq!(
            Spent::after(&examples(), &Cost::NOTHING, &metrics(0, 0)).unit,
            Some(Unit::Example)
        );
        // After updates without noise there is no ε, whatever comes after them.
        let after = cost_without_noise() + cost;
        assert_eq!(Spent::after(&local, &after, &metrics(3, 3)).epsilon, None);
        let none = Spent::after(&manifest(&[]), &Cost::NOTHING, &metrics(0, 0));
        assert_eq!((none.mode, none.unit, none.epsilon), (Mode::None, None, None));
    }

    #[test]
    fn where_the_relay_adds_the_noise_its_own_figures_are_told() {
        let central = manifest(&[
            "privacy={ mode = \"central\", noise_multiplier = 1.0, adjacency = \"add-remove\", delta = 1e-6 }",
        ]);
        let privacy = RoundPrivacy {
            epsilon: Some(3.5),
            rho: 0.5,
            next_clip_l2: 1.0,
        };
        let published = RoundMetrics {
            privacy: Some(privacy),
            ..metrics(1, 3)
        };
        let told = Spent::after(&central, &cost_without_noise(), &published);
        let expected = Spent {
            mode: Mode::Central,
            unit: Some(Unit::Update),
            adjacency: Some(Adjacency::AddRemove),
            delta: Some(1e-6),
            epsilon: Some(3.5),
        };
        assert_eq!(told, expected);
        let first = Spent::after(&central, &Cost::NOTHING, &metrics(0, 0));
        assert_eq!(first.epsilon, Some(0.0));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_one_of_before_without_its_lineage() {
        let local = manifest(&["privacy.mode=\"local\""]);
        let record = RoundRecord {
            metrics: metrics(1, 3),
            lineage: Lineage {
                parent: Some(ContentHash::of(b"parent")),
                manifest: Some(ContentHash::of(&local.to_json())),
                spent: Some(Spent::after(&local, &Cost::NOTHING, &metrics(1, 3))),
            },
        };
        let json = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<RoundRecord>(&json).unwrap(), record);
        // What clients read of it.
        assert_eq!(
            serde_json::from_slice::<RoundMetrics>(&json).unwrap(),
            record.metrics
        );
        let before = serde_json::to_vec(&record.metrics).unwrap();
        let read: RoundRecord = serde_json::from_slice(&before).unwrap();
        assert_eq!(read, RoundRecord::from(record.metrics.clone()));
        let wrong = [("parent", "00"), ("spent", "much")];
        for (field, value) in wrong {
            let mut other = serde_json::to_value(&record).unwrap();
            other[field] = value.into();
            assert!(serde_json::from_value::<RoundRecord>(other).is_err(), "{field}");
        }
    }

    #[test]
    fn a_cost_is_kept_bit_by_bit_and_a_damaged_one_is_everything() {
        let local = cost_of_round(&manifest(&["privacy.mode=\"local\""])).times(3);
        let both = local + cost_of_round(&examples());
        for cost in [Cost::NOTHING, local, both, cost_without_noise()] {
            let json = serde_json::to_string(&KeptCost::from(&cost)).unwrap();
            let read: KeptCost = serde_json::from_str(&json).unwrap();
            assert_eq!(read.cost(), cost);
        }
        for (rho, curve) in [
            (f64::NAN.to_bits(), vec![]),
            ((-1.0_f64).to_bits(), vec![]),
            (0, vec![0; 3]),
            (0, vec![f64::NAN.to_bits(); 8]),
        ] {
            let damaged = KeptCost { rho, curve };
            assert_eq!(damaged.cost(), cost_without_noise(), "{damaged:?}");
        }
    }

    #[test]
    fn rounds_of_before_cost_nothing_only_where_nobody_took_part() {
        let rounds = |clients| [RoundRecord::from(metrics(0, 0)), metrics(1, clients).into()];
        assert_eq!(cost_of_unknown(&rounds(0)), Cost::NOTHING);
        assert_eq!(cost_of_unknown(&rounds(1)), cost_without_noise());
    }
}
