//! A task as the client understands it: the manifest, checked against the person's floors, with the model and the mechanisms
//! that it asks for.

use std::num::NonZeroU32;

use unsaid_document::Document;
use unsaid_engine::{Model, ModelSpec, PrivateSteps, TrainSpec};
use unsaid_privacy::{
    Adjacency, ClientFloors, Cost, Encoding, ExampleNoise, LocalNoise, PrivacyError, Rho, central::tree_share,
};
use unsaid_protocol::{ContentHash, CoordinateWidth, DataSchema, Manifest, Privacy, TaskId};

use crate::ClientError;

/// A checked task.
#[derive(Debug)]
pub struct Task {
    /// The manifest.
    pub manifest: Manifest,
    /// Its hash: what the client agrees to.
    pub hash: ContentHash,
    /// Its very bytes.
    pub json: String,
    /// The model.
    pub model: Model,
    /// Local training.
    pub training: TrainSpec,
    /// Clipping and the grid.
    pub encoding: Encoding,
    /// The noise that this device adds to updates; none in a task without, and where the relay adds it.
    pub noise: Option<LocalNoise>,
    /// The noise on sums of gradients while training; none in a task without. The training then clips each example.
    pub gradient_noise: Option<ExampleNoise>,
    /// Steps of a round times their size, where clients have control variates: see [`TrainSpec::reach`].
    pub reach: Option<f64>,
    /// What the relay's own noise makes a round cost.
    central: Option<Rho>,
    /// The most updates that the person has booked in 24 hours.
    pub rounds_per_day: u32,
}

impl Task {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ClientError::BadManifest`] where it cannot be followed, [`ClientError::BelowFloor`] where its terms are weaker than
    /// `floors`.
    pub fn new(bytes: &[u8], hash: ContentHash, floors: &ClientFloors) -> Result<Self, ClientError> {
        let manifest = Manifest::from_json_named(bytes, hash)?;
        let bad = |field: &str, error: &dyn std::fmt::Display| {
            ClientError::BadManifest(format!("{field}: {error}"))
        };
        let model = ModelSpec::read(manifest.model.clone()).map_err(|e| bad("model", &e))?;
        let model = Model::new(&model).map_err(|e| bad("model", &e))?;
        let mut training = TrainSpec::read(manifest.training.clone()).map_err(|e| bad("training", &e))?;
        model.check_training(&training).map_err(|e| bad("training", &e))?;
        if model.parameter_count() != manifest.parameters as usize {
            let found = format!(
                "the model has {}, the manifest says {}",
                model.parameter_count(),
                manifest.parameters
            );
            return Err(bad("parameters", &found));
        }
        let DataSchema::Classification { features, classes } = manifest.data else {
            return Err(bad("data", &"a kind that this version does not know"));
        };
        if (model.features(), model.classes()) != (features as usize, classes as usize) {
            let found = format!(
                "{features} features and {classes} classes, but the model takes {} and gives {}",
                model.features(),
                model.classes()
            );
            return Err(bad("data", &found));
        }
        // What a client weighs is the rule's to say: a weight that it does not ask for would be summed as one more parameter.
        let rule = manifest.strategy.as_ref().and_then(|it| it.get("aggregation"));
        let weighs = rule.and_then(|rule| rule.get("max_weight")?.as_u64());
        if weighs != manifest.update.max_weight.map(u64::from) {
            return Err(bad("update.max_weight", &"not that of the strategy"));
        }
        let multiplier = match manifest.privacy {
            Privacy::None => None,
            Privacy::Local { noise_multiplier } => Some(noise_multiplier),
            Privacy::Example { noise_multiplier, .. } => {
                floors.check_example_level().map_err(PrivacyError::from)?;
                Some(noise_multiplier)
            }
            Privacy::Central(terms) => {
                floors.check_trust().map_err(PrivacyError::from)?;
                Some(terms.noise_multiplier)
            }
            _ => return Err(bad("privacy", &"a mode that this version does not know")),
        };
        let clip_l2 = manifest.update.clip_l2;
        floors
            .check(multiplier, clip_l2, manifest.rounds.min_clients)
            .map_err(PrivacyError::from)?;
        let encoding = Encoding::new(clip_l2, manifest.update.grid_step, model.parameter_count())
            .map_err(PrivacyError::from)?;
        let (mut noise, mut gradient_noise, mut central) = (None, None, None);
        match manifest.privacy {
            Privacy::Local { noise_multiplier } => {
                noise = Some(LocalNoise::new(&encoding, noise_multiplier).map_err(PrivacyError::from)?);
            }
            Privacy::Example {
                clip_l2,
                noise_multiplier,
                sampling_rate,
            } => {
                if training.clip_examples_l2.is_some() {
                    return Err(bad("training", &"clip_examples_l2 beside privacy.clip_l2"));
                }
                training.clip_examples_l2 = Some(clip_l2 as f32);
                let drawn = ExampleNoise::new(noise_multiplier, sampling_rate, model.parameter_count())
                    .map_err(PrivacyError::from)?;
                model
                    .check_private(&training, private_steps(&drawn, &training))
                    .map_err(|e| bad("training", &e))?;
                gradient_noise = Some(drawn);
            }
            // In proportion to the same bound, and on one update as on a sum of many.
            Privacy::Central(terms) => {
                let cost = Rho::local_round(terms.noise_multiplier, Adjacency::ReplaceOne);
                let cost = cost.map_err(PrivacyError::from)?;
                // The nodes of a tree that an update is in, each at the most that the ledger's other updates in it make it cost.
                let nodes = terms.tree.map_or(1, |tree| {
                    tree_share(tree.restart_every.into(), tree.min_separation.into())
                });
                let cost = Rho::new((cost.get() * nodes as f64).next_up());
                central = Some(cost.map_err(PrivacyError::from)?);
            }
            _ => {}
        }
        // A control variate is made of the update before its noise: later rounds without noise would tell it.
        if manifest.control_variates && (noise.is_some() || central.is_some()) {
            return Err(bad("control_variates", &"not with noise on updates"));
        }
        let reach = if manifest.control_variates {
            let reach = training.reach(gradient_noise.as_ref().map(ExampleNoise::steps_per_epoch));
            Some(reach.ok_or_else(|| bad("control_variates", &"training is not alike for all"))?)
        } else {
            None
        };
        let json = String::from_utf8_lossy(bytes).into_owned();
        Ok(Self {
            manifest,
            hash,
            json,
            model,
            training,
            encoding,
            noise,
            gradient_noise,
            reach,
            central,
            rounds_per_day: floors.max_rounds_per_day,
        })
    }

    /// What one round costs: with noise on updates, any two updates of one participant are told apart no better than this
    /// (replace-one), and not even by the relay unless the noise is its own; with noise on gradients, any update and the one that it would have been with one example more or less. None in a
    /// task without noise.
    pub fn round_cost(&self) -> Option<Cost> {
        let of_update = self.noise.as_ref();
        let of_update = of_update.map(|noise| noise.rho(Adjacency::ReplaceOne).into());
        let of_examples = self.gradient_noise.as_ref();
        let of_examples = of_examples.map(|noise| {
            let steps = self.steps_per_round();
            Cost::of_examples(|order| noise.cost(order, steps))
        });
        of_update.or(of_examples).or(self.central.map(Cost::from))
    }

    /// Where all updates of a round share one noise: the task, of which whoever takes part is one client only, in whatever tab and at
    /// whatever address of a relay. k of one person's updates in one sum would cost k² times what the ledger books for each.
    pub fn shared_id(&self) -> Option<&TaskId> {
        self.central.map(|_| &self.manifest.task)
    }

    /// How many tabs of a profile may take part at once where the page says so many.
    pub const fn places(&self, participants: u32) -> u32 {
        if self.central.is_some() { 1 } else { participants }
    }

    /// The width of every update's coordinates, where it must not follow from them: their noise is yet to come.
    pub fn fixed_width(&self) -> Option<CoordinateWidth> {
        self.central
            .map(|_| CoordinateWidth::for_bound(self.encoding.bound_squared()))
    }

    /// Steps of a round's training, where they have noise; else 0.
    pub fn steps_per_round(&self) -> u32 {
        // Checked to fit when the manifest was read.
        self.gradient_noise.as_ref().map_or(0, |noise| {
            self.training.epochs.get().saturating_mul(noise.steps_per_epoch())
        })
    }

    /// What the back ends are timed on: a step of the task's training; of training that is private for each example, one example, of
    /// which the lots are made.
    pub fn timed(&self) -> TrainSpec {
        let mut timed = self.training.clone();
        if self.gradient_noise.is_some() {
            timed.batch_size = NonZeroU32::MIN;
            timed.clip_examples_l2 = None;
        }
        timed
    }

    /// How training is cut into steps, and what draws them; none in a task without noise on gradients.
    pub fn private_steps(&self) -> Option<(&ExampleNoise, PrivateSteps)> {
        let noise = self.gradient_noise.as_ref()?;
        Some((noise, private_steps(noise, &self.training)))
    }
}

fn private_steps(noise: &ExampleNoise, training: &TrainSpec) -> PrivateSteps {
    PrivateSteps {
        steps_per_epoch: noise.steps_per_epoch(),
        grid_step: ExampleNoise::grid_step(training.clip_examples_l2.unwrap_or_default()),
        bound_squared: noise.bound_squared(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const NO_FLOORS: ClientFloors = ClientFloors {
        min_noise_multiplier: 0.0,
        max_clip_l2: 1e9,
        min_cohort: 1,
        max_rounds_per_day: u32::MAX,
        example_level: true,
        trust_relay: true,
    };

    pub(crate) fn terms() -> Value {
        json!({
            "protocol": 1,
            "task": "flowers",
            "title": "Flowers",
            "model": {
                "input": [4],
                "layers": [{"type": "dense", "units": 3}],
                "loss": "softmax-cross-entropy",
            },
            "parameters": 15,
            "training": {
                "epochs": 1,
                "batch_size": 8,
                "optimizer": {"type": "sgd", "learning_rate": 0.1},
            },
            "data": {"kind": "classification", "features": 4, "classes": 3},
            "update": {"clip_l2": 1.0, "grid_step": 0.0009765625},
            "privacy": {"mode": "local", "noise_multiplier": 4.0},
            "rounds": {"min_clients": 2, "target_clients": 4, "deadline_ms": 60000},
        })
    }

    pub(crate) fn read(terms: &Value, floors: &ClientFloors) -> Result<Task, ClientError> {
        let bytes = serde_json::to_vec(terms).unwrap();
        Task::new(&bytes, ContentHash::of(&bytes), floors)
    }

    /// The terms with the value at `path` changed.
    pub(crate) fn with(path: &str, value: Value) -> Value {
        let mut terms = terms();
        let (parent, field) = path.rsplit_once('/').unwrap();
        terms.pointer_mut(parent).unwrap()[field] = value;
        terms
    }

    #[test]
    fn a_good_manifest_is_read_and_its_bytes_are_kept() {
        let bytes = serde_json::to_vec_pretty(&terms()).unwrap();
        let task = Task::new(&bytes, ContentHash::of(&bytes), &ClientFloors::default()).unwrap();
        assert_eq!(task.json.as_bytes(), bytes);
        assert_eq!(task.hash, ContentHash::of(&bytes));
        assert_eq!(task.encoding.dimension(), 15);
    }

    #[test]
    fn a_profile_is_one_client_in_one_place_where_all_updates_of_a_round_share_one_noise() {
        let central = json!({
            "mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian", "adjacency": "replace-one",
            "noise_multiplier": 4.0, "delta": 1e-5,
        });
        for (privacy, places, shared) in [
            (central, 1, Some("flowers")),
            (json!({"mode": "local", "noise_multiplier": 4.0}), 16, None),
            (json!({"mode": "none"}), 16, None),
        ] {
            let mut terms = terms();
            terms["privacy"] = privacy;
            let task = read(&terms, &NO_FLOORS).unwrap();
            assert_eq!(task.places(16), places);
            assert_eq!(task.shared_id().map(TaskId::as_str), shared);
        }
    }

    #[test]
    fn a_round_costs_two_over_the_squared_multiplier_and_nothing_without_noise() {
        for multiplier in [0.5, 1.0, 4.0, 16.0] {
            let task = read(&with("/privacy/noise_multiplier", multiplier.into()), &NO_FLOORS).unwrap();
            let rho = task.round_cost().unwrap().rho().get();
            let exact = 2.0 / (multiplier * multiplier);
            // σ is rounded up to what the sampler can draw, and ρ is never rounded down.
            assert!((rho / exact - 1.0).abs() < 1e-3, "{multiplier}: {rho}");
        }
        let task = read(&with("/privacy", json!({"mode": "none"})), &NO_FLOORS).unwrap();
        assert_eq!(task.round_cost(), None);
    }

    pub(crate) fn example() -> Value {
        json!({"mode": "example", "clip_l2": 0.5, "noise_multiplier": 2.0, "sampling_rate": 0.3})
    }

    #[test]
    fn a_round_that_protects_examples_costs_the_curve_of_its_steps() {
        let mut terms = with("/privacy", example());
        terms["training"]["epochs"] = 3.into();
        let task = read(&terms, &NO_FLOORS).unwrap();
        let (noise, steps) = task.private_steps().unwrap();
        // ⌈1/0.3⌉ = 4 steps, three times; the clip norm over 2¹⁸.
        assert_eq!((steps.steps_per_epoch, steps.grid_step), (4, 0.5 / 262_144.0));
        assert_eq!(
            (task.steps_per_round(), task.training.clip_examples_l2),
            (12, Some(0.5))
        );
        assert!(task.noise.is_none());
        let timed = task.timed();
        assert_eq!((timed.batch_size.get(), timed.clip_examples_l2), (1, None));
        let cost = task.round_cost().unwrap();
        assert!(!cost.is_of_updates() && cost.rho().get() == 0.0);
        for (order, found) in Cost::ORDERS.into_iter().zip(cost.curve()) {
            let expected = noise.cost(order, 12);
            assert!(
                (found / expected - 1.0).abs() < 1e-9,
                "{order}: {found} {expected}"
            );
        }
        // More steps, more noise, a larger rate.
        let epsilon = |change: &dyn Fn(&mut Value)| {
            let mut terms = terms.clone();
            change(&mut terms);
            let cost = read(&terms, &NO_FLOORS).unwrap().round_cost().unwrap();
            cost.epsilon(1e-5).unwrap()
        };
        let here = epsilon(&|_| {});
        assert!(here > 0.0 && epsilon(&|terms| terms["training"]["epochs"] = 4.into()) > here);
        assert!(epsilon(&|terms| terms["privacy"]["noise_multiplier"] = 3.into()) < here);
        assert!(epsilon(&|terms| terms["privacy"]["sampling_rate"] = 0.9.into()) > here);
    }

    #[test]
    fn terms_that_protect_examples_only_are_refused_unless_the_floors_say_otherwise() {
        let floors = ClientFloors::default();
        let terms = with("/privacy", example());
        match read(&terms, &floors) {
            Err(ClientError::BelowFloor(reason)) => {
                assert!(reason.contains("not you as a whole"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
        let floors = ClientFloors {
            example_level: true,
            ..floors
        };
        assert!(read(&terms, &floors).is_ok());
        // Who takes part without noise takes part with some.
        let none = ClientFloors {
            min_noise_multiplier: 0.0,
            ..ClientFloors::default()
        };
        assert!(read(&terms, &none).is_ok());
        let mut weak = terms;
        weak["privacy"]["noise_multiplier"] = 0.49.into();
        match read(&weak, &floors) {
            Err(ClientError::BelowFloor(reason)) => assert!(reason.contains("0.49"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn terms_below_the_floors_are_told_apart_from_a_bad_manifest() {
        let floors = ClientFloors::default();
        for (what, terms) in [
            ("adds no noise", with("/privacy", json!({"mode": "none"}))),
            (
                "noise multiplier is 0.49",
                with("/privacy/noise_multiplier", json!(0.49)),
            ),
            (
                "clips updates to 101",
                with("/update", json!({"clip_l2": 101.0, "grid_step": 0.1})),
            ),
            ("publishes with 1 updates", with("/rounds/min_clients", json!(1))),
        ] {
            match read(&terms, &floors) {
                Err(ClientError::BelowFloor(reason)) => assert!(reason.contains(what), "{reason}"),
                other => panic!("{what}: {other:?}"),
            }
            assert!(read(&terms, &NO_FLOORS).is_ok(), "{what}");
        }
    }

    #[test]
    fn each_manifest_that_cannot_be_followed_names_what_is_wrong() {
        let two_inputs = json!({"kind": "classification", "features": 2, "classes": 3});
        let four_labels = json!({"kind": "classification", "features": 4, "classes": 4});
        let misspelt =
            json!({"epochs": 1, "batch_siz": 8, "optimizer": {"type": "sgd", "learning_rate": 0.1}});
        for (what, terms) in [
            ("protocol version 2", with("/protocol", json!(2))),
            ("surprise", with("/surprise", json!(true))),
            ("surprise", with("/rounds/surprise", json!(true))),
            ("surprise", with("/update/surprise", json!(true))),
            ("surprise", with("/privacy/surprise", json!(true))),
            ("surprise", with("/model/surprise", json!(true))),
            ("batch_siz", with("/training", misspelt)),
            ("nonzero", with("/training/epochs", json!(0))),
            ("nonzero", with("/training/batch_size", json!(0))),
            ("-1", with("/training/epochs", json!(-1))),
            ("1.5", with("/training/batch_size", json!(1.5))),
            ("4294967296", with("/training/batch_size", json!(1_u64 << 32))),
            (
                "learning_rate is 0,",
                with("/training/optimizer/learning_rate", json!(0.0)),
            ),
            (
                "learning_rate is -0.1",
                with("/training/optimizer/learning_rate", json!(-0.1)),
            ),
            // What is no number, or none above 0, once it is a 32-bit float.
            (
                "learning_rate is inf",
                with("/training/optimizer/learning_rate", json!(1e39)),
            ),
            (
                "learning_rate is 0,",
                with("/training/optimizer/learning_rate", json!(1e-60)),
            ),
            ("momentum is 1,", with("/training/optimizer/momentum", json!(1.0))),
            (
                "momentum is 1,",
                with("/training/optimizer/momentum", json!(0.999_999_999)),
            ),
            (
                "momentum is -0.5",
                with("/training/optimizer/momentum", json!(-0.5)),
            ),
            (
                "parameters: the model has 15, the manifest says 16",
                with("/parameters", json!(16)),
            ),
            ("2 features", with("/data", two_inputs)),
            ("4 classes", with("/data", four_labels)),
            ("telepathy", with("/data/kind", json!("telepathy"))),
            ("telepathy", with("/privacy/mode", json!("telepathy"))),
            ("telepathy", with("/model/layers", json!([{"type": "telepathy"}]))),
            ("layer 0", with("/model/layers/0/units", json!(0))),
            ("noise_multiplier", with("/privacy/noise_multiplier", json!(0.0))),
            ("noise_multiplier", with("/privacy/noise_multiplier", json!(-1.0))),
            ("clip_examples_l2 beside", {
                let mut terms = with("/privacy", example());
                terms["training"]["clip_examples_l2"] = 1.into();
                terms
            }),
            ("accumulate is 2", {
                let mut terms = with("/privacy", example());
                terms["training"]["accumulate"] = 2.into();
                terms
            }),
            ("dropout", {
                let mut terms = with("/privacy", example());
                terms["model"]["layers"] =
                    json!([{"type": "dropout", "rate": 0.5}, {"type": "dense", "units": 3}]);
                terms
            }),
            ("fewer than 2^32", {
                let mut terms = with("/privacy", example());
                terms["training"]["epochs"] = u32::MAX.into();
                terms
            }),
            ("no room", {
                let mut terms = with("/privacy", example());
                terms["privacy"]["noise_multiplier"] = 1e4.into();
                terms
            }),
            ("privacy.sampling_rate", {
                let mut terms = with("/privacy", example());
                terms["privacy"]["sampling_rate"] = 2.into();
                terms
            }),
            ("clip_l2", with("/update/clip_l2", json!(0.0))),
            ("grid_step", with("/update/grid_step", json!(1e-12))),
            ("rounds.target_clients", with("/rounds/target_clients", json!(1))),
            ("a-z", with("/task", json!("../../other"))),
        ] {
            match read(&terms, &NO_FLOORS) {
                Err(ClientError::BadManifest(reason)) => assert!(reason.contains(what), "{what}: {reason}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_manifest_under_another_hash_is_refused() {
        let bytes = serde_json::to_vec(&terms()).unwrap();
        let result = Task::new(&bytes, ContentHash::of(b"other"), &NO_FLOORS);
        assert!(matches!(result, Err(ClientError::BadManifest(reason)) if reason.contains("was announced")));
    }

    #[test]
    fn untrusted_bytes_are_an_error_and_never_a_panic() {
        let good = serde_json::to_vec(&terms()).unwrap();
        for length in 0..good.len() {
            let cut = &good[..length];
            let result = Task::new(cut, ContentHash::of(cut), &NO_FLOORS);
            assert!(matches!(result, Err(ClientError::BadManifest(_))), "{length}");
        }
        let deep = "[".repeat(100_000);
        for bad in [&b"\xff\xfe"[..], b"null", b"[]", b"<html>", deep.as_bytes()] {
            let result = Task::new(bad, ContentHash::of(bad), &NO_FLOORS);
            assert!(matches!(result, Err(ClientError::BadManifest(_))));
        }
        let huge = with("/model/layers", json!([{"type": "dense", "units": 1_u64 << 62}]));
        assert!(matches!(
            read(&huge, &NO_FLOORS),
            Err(ClientError::BadManifest(_))
        ));
    }

    #[test]
    fn where_the_relay_adds_the_noise_the_client_adds_none_and_pays_all_the_same() {
        let central = json!({
            "mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian",
            "adjacency": "add-remove", "noise_multiplier": 4.0, "delta": 1e-5,
        });
        let task = read(&with("/privacy", central.clone()), &NO_FLOORS).unwrap();
        assert!(task.noise.is_none());
        let found = task.round_cost().unwrap().rho().get();
        assert!((found / 0.125 - 1.0).abs() < 1e-9, "2/z²: {found}");
        let wary = ClientFloors {
            trust_relay: false,
            ..NO_FLOORS
        };
        let strict = ClientFloors {
            min_noise_multiplier: 5.0,
            ..NO_FLOORS
        };
        for floors in [wary, strict] {
            let refused = read(&with("/privacy", central.clone()), &floors);
            assert!(matches!(refused, Err(ClientError::BelowFloor(_))), "{refused:?}");
        }
        // Whom one trusts, and with what, is not for a later relay to put in other words.
        for (field, other) in [
            ("unit", "example"),
            ("trust", "nobody"),
            ("mechanism", "laplace"),
            ("adjacency", "none"),
        ] {
            let mut terms = central.clone();
            terms[field] = other.into();
            let refused = read(&with("/privacy", terms), &NO_FLOORS);
            assert!(matches!(refused, Err(ClientError::BadManifest(_))), "{field}");
        }
    }
}
