//! The task file: what an operator writes to start a task, in TOML. Every mistake is reported with its line and field.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use unsaid_engine::{Model, ModelSpec, PrivateSteps, SpecError, TrainSpec};
use unsaid_privacy::{Encoding, ExampleNoise};
use unsaid_protocol::{
    AdaptiveClipping, CentralAdjacency, CentralPrivacy, DataSchema, Manifest, Privacy, TaskId, TreeTerms,
    UpdateEncoding, VERSION,
};

use crate::{
    central::Central,
    identity::{Rules, cost_of_update},
    round::Chance,
    strategy::{Aggregation, Strategy, StrategyError, compose, scaffold::Control},
};

mod document;
mod identity;
mod number;
mod rounds;
#[cfg(test)]
mod tests;

pub use self::document::TaskFileError;
use self::{
    document::{Document, Fault, Source},
    identity::IdentitySection,
    number::{
        ClipGradientL2, ClipL2, Count, Delta, GridStep, NoiseMultiplier, Quantile, RestartEvery,
        SamplingRate, Separation,
    },
    rounds::RoundsSection,
};

/// The most that one round may take, in memory and on disk, where more than one sum is kept of it.
const MAX_KEPT_BYTES: u128 = 1 << 30;

/// Asynchronous rounds have a sum for each staleness, and all of them are in memory, and on disk.
fn check_sums(rule: &Aggregation, parameters: usize) -> Result<(), StrategyError> {
    let sums = 1 + u128::from(rule.max_staleness());
    let bytes = 8 * sums * parameters as u128;
    if sums > 1 && bytes > MAX_KEPT_BYTES {
        let message = format!(
            "with {} of them there are {sums} sums of {parameters} coordinates, which take {bytes} bytes, above {MAX_KEPT_BYTES}",
            rule.max_staleness()
        );
        return Err(StrategyError::new("aggregation.max_staleness", message));
    }
    Ok(())
}

/// The part of a model that a mistake is in.
fn path_of(error: &SpecError) -> String {
    match error {
        SpecError::Input(_) => "model.input".into(),
        SpecError::Zero { layer, .. }
        | SpecError::Shape { layer, .. }
        | SpecError::Number { layer, .. }
        | SpecError::Refused { layer, .. }
        | SpecError::Mark { layer, .. }
        | SpecError::Rule { layer, .. } => format!("model.layers.{layer}"),
        _ => "model".into(),
    }
}

/// The most multiplications and additions that may close one round: a minute or so of the task's thread, which answers nobody
/// meanwhile.
const MAX_OPERATIONS: u128 = 1 << 36;

/// The JSON schema of task files. [`Task::read`] checks more: whether the parts fit each other.
pub const SCHEMA: &str = include_str!("../tasks/task.schema.json");

/// A task, read and checked.
#[derive(Debug)]
pub struct Task {
    /// What clients agree to.
    pub manifest: Manifest,
    /// The model of the manifest.
    pub model: Model,
    /// How updates of the manifest are bounded.
    pub encoding: Encoding,
    /// How the next model is made.
    pub strategy: Strategy,
    /// What moves the shared control variate, where there is one.
    pub control: Option<Control>,
    /// What noise the relay adds, where it does.
    pub central: Option<Central>,
    /// Seed of the first model.
    pub seed: u64,
    /// The last round, if the task has one.
    pub round_limit: Option<u64>,
    /// The most clients that a span of a round lets in, if it limits them.
    pub invited: Option<u32>,
    /// With which chance a span of a round lets in who asks, if it does not let in everyone.
    pub chance: Option<Chance>,
    /// How many models are kept of it, if it says so.
    pub keep_models: Option<u64>,
    /// The held-out examples, a `.shard` file below the data folder.
    pub evaluation: Option<PathBuf>,
    /// Whom it lets take part, where it asks for identities.
    pub identity: Option<Rules>,
}

impl Task {
    /// Reads a task file and lays `overrides` of the form `key.path=VALUE` over it. A value is written as in TOML; a bare
    /// word is a string.
    ///
    /// # Errors
    /// [`TaskFileError`] with the file, line, column and field.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, TaskFileError> {
        let text = std::fs::read_to_string(path).map_err(|error| TaskFileError::unreadable(path, &error))?;
        Self::parse(&path.display().to_string(), &text, overrides)
    }

    /// Reads a task from `text`; `name` is the file's name in errors.
    ///
    /// # Errors
    /// [`TaskFileError`] with the line, column and field.
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, TaskFileError> {
        let source = Source::new(name, text, overrides)?;
        let document = Document::parse(&source)?;
        let file: TaskFile = document.read()?;
        file.check().map_err(|fault| document.explain(fault))
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskFile {
    task: TaskId,
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    seed: u64,
    model: Spanned<ModelSpec>,
    training: Spanned<TrainSpec>,
    update: UpdateSection,
    privacy: Spanned<PrivacySection>,
    rounds: RoundsSection,
    strategy: Option<Spanned<Strategy>>,
    evaluation: Option<EvaluationSection>,
    identity: Option<Spanned<IdentitySection>>,
    #[serde(default)]
    retention: RetentionSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateSection {
    clip_l2: ClipL2,
    grid_step: Spanned<GridStep>,
}

/// What a mode does not need may stay in the file, so that another mode is one change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivacySection {
    mode: Mode,
    noise_multiplier: Option<Spanned<NoiseMultiplier>>,
    clip_l2: Option<ClipGradientL2>,
    sampling_rate: Option<SamplingRate>,
    /// In mode `central`, as all that follows.
    adjacency: Option<Adjacent>,
    delta: Option<Delta>,
    adaptive_clip: Option<Spanned<AdaptiveSection>>,
    #[serde(default)]
    mechanism: Mechanism,
    tree: Option<TreeSection>,
}

/// On what the relay's noise is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mechanism {
    /// Each round's sum.
    #[default]
    DiscreteGaussian,
    /// The nodes of a tree over rounds.
    TreeAggregation,
}

/// How rounds are the leaves of a tree.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeSection {
    restart_every: RestartEvery,
    min_separation: Separation,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Adjacent {
    AddRemove,
    ReplaceOne,
}

/// How the relay's clip norm follows the updates' norms.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptiveSection {
    initial_l2: ClipL2,
    #[serde(default)]
    quantile: Quantile,
    #[serde(default = "usual_rate")]
    rate: f64,
    /// Otherwise a twentieth of the target.
    count_noise: Option<NoiseMultiplier>,
}

/// The authors' (Andrew and others 2021).
const fn usual_rate() -> f64 {
    unsaid_privacy::central::AdaptiveClip::USUAL_RATE
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    None,
    Local,
    Example,
    Central,
}

impl PrivacySection {
    /// The mode with what it needs, in a task whose rounds are to have `target_clients` updates.
    fn read(&self, target_clients: u32) -> Result<Privacy, &'static str> {
        let noise_multiplier = self.noise_multiplier.as_ref().map(|it| it.get_ref().get());
        Ok(match self.mode {
            Mode::None => Privacy::None,
            Mode::Local => Privacy::Local {
                noise_multiplier: noise_multiplier.ok_or("mode \"local\" needs a noise_multiplier")?,
            },
            Mode::Example => Privacy::Example {
                clip_l2: self.clip_l2.ok_or("mode \"example\" needs a clip_l2")?.get(),
                noise_multiplier: noise_multiplier.ok_or("mode \"example\" needs a noise_multiplier")?,
                sampling_rate: self
                    .sampling_rate
                    .ok_or("mode \"example\" needs a sampling_rate")?
                    .get(),
            },
            Mode::Central => Privacy::Central(
                self.over_rounds(CentralPrivacy::new(
                    noise_multiplier.ok_or("mode \"central\" needs a noise_multiplier")?,
                    match self.adjacency.ok_or("mode \"central\" needs an adjacency")? {
                        Adjacent::AddRemove => CentralAdjacency::AddRemove,
                        Adjacent::ReplaceOne => CentralAdjacency::ReplaceOne,
                    },
                    self.delta.ok_or("mode \"central\" needs a delta")?.get(),
                    self.adaptive_clip
                        .as_ref()
                        .map(|section| section.get_ref().terms(target_clients)),
                ))?,
            ),
        })
    }

    /// The noise where the mechanism says that it is.
    fn over_rounds(&self, central: CentralPrivacy) -> Result<CentralPrivacy, &'static str> {
        let tree = match (self.mechanism, self.tree) {
            (Mechanism::DiscreteGaussian, None) => return Ok(central),
            (Mechanism::DiscreteGaussian, Some(_)) => {
                return Err("a [privacy.tree] needs mechanism \"tree-aggregation\"");
            }
            (Mechanism::TreeAggregation, None) => {
                return Err("mechanism \"tree-aggregation\" needs a [privacy.tree]");
            }
            (Mechanism::TreeAggregation, Some(tree)) => tree,
        };
        if central.adaptive_clip.is_some() {
            return Err(
                "adaptive_clip cannot go with mechanism \"tree-aggregation\": a node sums rounds, and has noise for one norm",
            );
        }
        Ok(central.over(TreeTerms {
            restart_every: tree.restart_every.get(),
            min_separation: tree.min_separation.get(),
        }))
    }
}

impl AdaptiveSection {
    fn terms(&self, target_clients: u32) -> AdaptiveClipping {
        let usual = f64::from(target_clients) / 20.0;
        AdaptiveClipping {
            initial_l2: self.initial_l2.get(),
            quantile: self.quantile.get(),
            rate: self.rate,
            count_noise: self.count_noise.map_or(usual, NoiseMultiplier::get),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluationSection {
    shard: Spanned<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionSection {
    /// Otherwise as many as the relay keeps of every task.
    keep_models: Option<Count>,
}

impl TaskFile {
    /// What a single value cannot know: whether the parts fit each other.
    fn check(self) -> Result<Task, Fault> {
        let model_span = self.model.span();
        let model_spec = self.model.into_inner();
        let model =
            Model::new(&model_spec).map_err(|error| Fault::of(path_of(&error), model_span.clone(), error))?;
        if model.parameter_count() == 0 {
            let message = "the model has no parameters: it needs a layer that learns, such as { type = \"dense\", units = 10 }";
            return Err(Fault::of("model.layers".into(), model_span, message));
        }
        let training = self.training.get_ref();
        model.check_training(training).map_err(|error| {
            let span = self.training.span();
            match error {
                SpecError::Training { field, .. } => Fault::of(format!("training.{field}"), span, error),
                error => Fault::at(span, error),
            }
        })?;
        let update = UpdateEncoding {
            clip_l2: self.update.clip_l2.get(),
            grid_step: self.update.grid_step.get_ref().get(),
            max_weight: self
                .strategy
                .as_ref()
                .and_then(|strategy| strategy.get_ref().aggregation.max_weight()),
        };
        let encoding = Encoding::new(update.clip_l2, update.grid_step, model.parameter_count())
            .map_err(|error| Fault::at(self.update.grid_step.span(), error))?;
        let privacy_span = self.privacy.span();
        let privacy = self
            .privacy
            .get_ref()
            .read(self.rounds.target_clients.get_ref().get())
            .map_err(|message| Fault::at(privacy_span.clone(), message))?;
        let mut private_steps = None;
        if let Privacy::Example {
            clip_l2,
            noise_multiplier,
            sampling_rate,
        } = privacy
        {
            let span = self
                .privacy
                .get_ref()
                .noise_multiplier
                .as_ref()
                .map(Spanned::span);
            let noise = ExampleNoise::new(noise_multiplier, sampling_rate, model.parameter_count())
                .map_err(|error| Fault::at(span.unwrap_or(privacy_span), error))?;
            let fault = |field: &str, message: &dyn std::fmt::Display| {
                Fault::of(format!("training.{field}"), self.training.span(), message)
            };
            if training.steps_per_epoch.is_some() {
                let message = "must be left out with privacy mode \"example\": an epoch is 1 / privacy.sampling_rate steps";
                return Err(fault("steps_per_epoch", &message));
            }
            if training.clip_examples_l2.is_some() {
                let message = "must be left out with privacy mode \"example\": privacy.clip_l2 is the norm";
                return Err(fault("clip_examples_l2", &message));
            }
            let mut training = training.clone();
            training.clip_examples_l2 = Some(clip_l2 as f32);
            let steps = PrivateSteps {
                steps_per_epoch: noise.steps_per_epoch(),
                grid_step: ExampleNoise::grid_step(clip_l2 as f32),
                bound_squared: noise.bound_squared(),
            };
            private_steps = Some(steps.steps_per_epoch);
            model
                .check_private(&training, steps)
                .map_err(|error| match error {
                    SpecError::Training { field, .. } => fault(field, &error),
                    error => Fault::at(model_span.clone(), error),
                })?;
        }
        let (min_clients, target_clients) = (
            self.rounds.min_clients.get_ref().get(),
            self.rounds.target_clients.get_ref().get(),
        );
        if matches!(privacy, Privacy::Central(_)) && min_clients < 2 {
            let message =
                "1 is too few for privacy mode \"central\": the noise is for a sum, and one update is none";
            return Err(Fault::at(self.rounds.min_clients.span(), message));
        }
        let central = match &privacy {
            Privacy::Central(terms) => {
                let central = Central::new(terms, &encoding, target_clients);
                // Where the clip norm adapts it is nearly always that part which does not fit.
                let adaptive = self.privacy.get_ref().adaptive_clip.as_ref();
                let span = adaptive.map_or_else(|| self.privacy.span(), Spanned::span);
                Some(central.map_err(|error| Fault::at(span, error))?)
            }
            _ => None,
        };
        if target_clients < min_clients {
            let message = format!("{target_clients} is below min_clients, {min_clients}");
            return Err(Fault::at(self.rounds.target_clients.span(), message));
        }
        let strategy = match self.strategy {
            Some(strategy) => {
                let span = strategy.span();
                let strategy = strategy.into_inner();
                let fault = |StrategyError { field, message }| {
                    Fault::of(format!("strategy.{field}"), span.clone(), message)
                };
                strategy.check().map_err(fault)?;
                compose::check(&strategy.aggregation, &privacy, &encoding).map_err(fault)?;
                check_sums(&strategy.aggregation, model.parameter_count()).map_err(fault)?;
                strategy
            }
            None => Strategy::default(),
        };
        let rule = &strategy.aggregation;
        let control = match *rule {
            Aggregation::Scaffold { population } => {
                if population.get() < target_clients {
                    let message = format!(
                        "{target_clients} is above {population}, the population of strategy.aggregation: a client counts once in a round"
                    );
                    return Err(Fault::at(self.rounds.target_clients.span(), message));
                }
                let control = Control::new(population, training, private_steps);
                Some(control.map_err(|StrategyError { field, message }| {
                    Fault::of(format!("training.{field}"), self.training.span(), message)
                })?)
            }
            _ => None,
        };
        if rule.least_updates() > min_clients.into() {
            let message = format!(
                "{min_clients} is too few for {}: as it is set, it needs at least {} updates",
                rule.name(),
                rule.least_updates()
            );
            return Err(Fault::at(self.rounds.min_clients.span(), message));
        }
        let kept = rule.kept_bytes(target_clients, model.parameter_count());
        if kept > MAX_KEPT_BYTES {
            let message = format!(
                "{} keeps every update of a round: {target_clients} of them are {kept} bytes, above {MAX_KEPT_BYTES}",
                rule.name()
            );
            return Err(Fault::at(self.rounds.target_clients.span(), message));
        }
        let operations = rule.operations(target_clients, model.parameter_count());
        if operations > MAX_OPERATIONS {
            let message = format!(
                "{} of {target_clients} updates, as it is set, takes {operations} multiplications and additions, above {MAX_OPERATIONS}",
                rule.name()
            );
            return Err(Fault::at(self.rounds.target_clients.span(), message));
        }
        let evaluation = match self.evaluation {
            Some(EvaluationSection { shard }) if !is_below(shard.get_ref()) => {
                return Err(Fault::at(
                    shard.span(),
                    "must be a relative path below the data folder",
                ));
            }
            evaluation => evaluation.map(|section| section.shard.into_inner()),
        };
        let epochs = training.epochs.get();
        let identity = match &self.identity {
            Some(section) => {
                let cost = || cost_of_update(&privacy, &encoding, epochs);
                section.get_ref().read(section.span(), &privacy, cost)?
            }
            None => None,
        };
        let manifest = Manifest {
            protocol: VERSION,
            task: self.task,
            title: self.title,
            description: self.description,
            model: document(&model_spec),
            parameters: u32::try_from(model.parameter_count())
                .map_err(|error| Fault::at(model_span.clone(), error))?,
            training: document(training),
            data: DataSchema::Classification {
                features: u32::try_from(model.features())
                    .map_err(|error| Fault::at(model_span.clone(), error))?,
                classes: u32::try_from(model.classes())
                    .map_err(|error| Fault::at(model_span.clone(), error))?,
            },
            update,
            privacy,
            rounds: self.rounds.policy(),
            strategy: (!strategy.is_default()).then(|| document(&strategy)),
            identity: identity.map(|rules| rules.required),
            control_variates: control.is_some(),
        };
        manifest.check().map_err(|error| Fault::at(model_span, error))?;
        let is_asynchronous = strategy.aggregation.max_staleness() > 0;
        Ok(Task {
            manifest,
            model,
            encoding,
            strategy,
            control,
            central,
            seed: self.seed,
            round_limit: self.rounds.limit(),
            invited: self.rounds.invited(is_asynchronous)?,
            chance: self.rounds.chance(is_asynchronous)?,
            keep_models: self.retention.keep_models.map(|models| models.get().into()),
            evaluation,
            identity,
        })
    }
}

/// A spec as the manifest holds it. By way of text, since `0.1f32` is `0.1` there, and `0.10000000149011612` as an f64.
fn document(spec: &impl serde::Serialize) -> serde_json::Value {
    let text = serde_json::to_string(spec);
    #[allow(clippy::expect_used)]
    // INVARIANT: specs hold strings, integers and numbers that were checked to be finite, and serde_json reads what it wrote
    text.and_then(|text| serde_json::from_str(&text))
        .expect("a spec is valid JSON")
}

fn is_below(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
}
