//! The manifest: everything a task asks of a client, in one immutable document that the client agrees to by its hash.

use serde::Serialize;
use unsaid_document::{Decimal, Document, Fields, Value, deserialize_by_read};

use crate::{ContentHash, Enrolment, TaskId};

#[cfg(test)]
mod tests;

deserialize_by_read!(Manifest, DataSchema, UpdateEncoding, Privacy, RoundPolicy);

/// What a task asks of its clients. Served as JSON; its name is the [`ContentHash`] of the very bytes served, and every
/// update names the manifest that it was made under, so a relay cannot change the terms afterwards.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Manifest {
    /// The protocol version: [`crate::VERSION`].
    pub protocol: u16,
    /// The task's id on its relay.
    pub task: TaskId,
    /// A line for people.
    pub title: String,
    /// A paragraph for people.
    pub description: String,
    /// The model, as `unsaid-engine` reads it (`ModelSpec`). This crate does not look inside.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub model: Value,
    /// Number of parameters of that model: the length of every update.
    pub parameters: u32,
    /// Local training, as `unsaid-engine` reads it (`TrainSpec`). This crate does not look inside.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub training: Value,
    /// What an example looks like.
    pub data: DataSchema,
    /// How an update is bounded and put on the grid.
    pub update: UpdateEncoding,
    /// What noise a client adds.
    pub privacy: Privacy,
    /// When a round closes.
    pub rounds: RoundPolicy,
    /// How the relay makes the next model, as the relay reads it; none for the plain mean. This crate does not look inside, and a
    /// client has nothing to do for it, but agrees to it: some rules make the relay keep each update until its round closes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub strategy: Option<Value>,
    /// Which identity a client must have to take part; none where it needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Enrolment>,
    /// Whether clients correct their gradients by control variates (Karimireddy et al. 2020): the shared one is in the model's file,
    /// and each client keeps one of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control_variates: bool,
}

impl Document for Manifest {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let manifest = Self {
            protocol: f.required("protocol"),
            task: f.required("task"),
            title: f.required("title"),
            description: f.optional("description").unwrap_or_default(),
            model: f.document("model")?,
            parameters: f.required("parameters"),
            training: f.document("training")?,
            data: f.nested("data")?,
            update: f.nested("update")?,
            privacy: f.nested("privacy")?,
            rounds: f.nested("rounds")?,
            strategy: f.document("strategy").ok(),
            identity: f.optional("identity"),
            control_variates: f.optional("control_variates").unwrap_or_default(),
        };
        if manifest
            .strategy
            .as_ref()
            .is_some_and(|strategy| !strategy.is_object())
        {
            return Err("field `strategy` must be an object".into());
        }
        fields.finish().map(|()| manifest)
    }
}

/// What an example looks like.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DataSchema {
    /// A vector of `features` numbers and one of `classes` labels.
    Classification {
        /// Numbers per example, row-major.
        features: u32,
        /// Number of labels; a label is `0..classes`.
        classes: u32,
    },
}

impl Document for DataSchema {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let schema = match f.tag("kind")?.as_str() {
            "classification" => Self::Classification {
                features: f.required("features"),
                classes: f.required("classes"),
            },
            other => return Err(format!("unknown kind `{other}`")),
        };
        fields.finish().map(|()| schema)
    }
}

/// How an update is bounded and put on the grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateEncoding {
    /// The update's L2 norm is clipped to this, in the model's own units.
    pub clip_l2: f64,
    /// One grid step, in the model's own units. A coordinate `k` in an update means `k × grid_step`.
    pub grid_step: f64,
    /// Where clients weigh by their number of examples: the most that one weighs. An update then ends with one more coordinate,
    /// the client's number of examples or this, whichever is less. Only in a task without noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_weight: Option<u32>,
}

impl Document for UpdateEncoding {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let encoding = Self {
            clip_l2: fields.required("clip_l2"),
            grid_step: fields.required("grid_step"),
            max_weight: fields.optional("max_weight"),
        };
        fields.finish().map(|()| encoding)
    }
}

/// What noise a client adds before anything leaves the device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "mode", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Privacy {
    /// No noise: the relay sees each clipped update as it is.
    None,
    /// Local differential privacy, unit: one update of one participant. Each client adds discrete Gaussian noise (Canonne,
    /// Kamath, Steinke 2020) to every coordinate; the relay need not be trusted.
    Local {
        /// σ of the noise, as a multiple of the L2 bound of a clipped, rounded update.
        noise_multiplier: f64,
    },
    /// Differential privacy of single examples, unit: one example of one participant, adjacency: it is there or it is not. Each client
    /// trains by DP-SGD (Abadi et al. 2016): every step takes each example by a secret coin of its own, clips its gradient, and adds noise
    /// to the sum. The update that comes of it gets no more noise; the relay need not be trusted with any one example, but learns from it
    /// what the participant's examples have in common. `training.batch_size` is the number of examples that a step is expected to take,
    /// by which sums are divided, and an epoch is 1 / `sampling_rate` steps, rounded up: neither depends on how many examples there are.
    Example {
        /// An example's gradient is clipped to this L2 norm.
        clip_l2: f64,
        /// σ of the noise on each sum of gradients, as a multiple of what one example can add to it.
        noise_multiplier: f64,
        /// The probability with which a step takes an example.
        sampling_rate: f64,
    },
    /// Central differential privacy, unit: one update of one participant. Clients send clipped updates without noise. The relay, which
    /// sees each of them and must be trusted, adds noise to their sum, once, before anyone else sees anything of it.
    Central(CentralPrivacy),
}

/// What noise the relay adds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CentralPrivacy {
    /// What is protected: the whole update of a participant; with a tree, all updates of a participant.
    unit: &'static str,
    /// Whom a participant must trust.
    trust: &'static str,
    /// The noise: discrete Gaussian noise (Canonne, Kamath, Steinke 2020) on each round's sum, or on the nodes of a tree over rounds.
    mechanism: &'static str,
    /// Which two rounds must be hard to tell apart.
    pub adjacency: CentralAdjacency,
    /// σ of the noise on the sum, as a multiple of the L2 bound of one update; where the clip norm adapts, what sum and count together
    /// cost no more than.
    pub noise_multiplier: f64,
    /// The δ at which the relay tells ε.
    pub delta: f64,
    /// Where the clip norm follows a quantile of the updates' norms: how. The relay clips then, to `update.clip_l2` or less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClipping>,
    /// With the mechanism `tree-aggregation`: its tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeTerms>,
}

/// How rounds are the leaves of a tree, whose nodes get the noise (Kairouz, McMahan, Song, Thakkar, Thakurta, Xu 2021).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TreeTerms {
    /// After so many rounds a new tree begins.
    pub restart_every: u32,
    /// A client that a round counts is let in again so many rounds later at the earliest.
    pub min_separation: u32,
}

/// Which two rounds must be hard to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CentralAdjacency {
    /// One participant's update is there, or counts nothing (zeros). The sum is divided by the number of updates that a round is to
    /// have, whatever came.
    AddRemove,
    /// One participant's update is any other.
    ReplaceOne,
}

/// How the relay's clip norm follows the updates' norms (Andrew, Thakkar, McMahan, Ramaswamy 2021).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdaptiveClipping {
    /// The first clip norm, in the model's own units.
    pub initial_l2: f64,
    /// The share of updates that are to be shorter, 0 to 1.
    pub quantile: f64,
    /// How fast it follows, above 0 and at most 1.
    pub rate: f64,
    /// σ of the noise on the number of shorter updates.
    pub count_noise: f64,
}

impl CentralPrivacy {
    const UNIT: &'static str = "update";
    const TRUST: &'static str = "relay";
    const MECHANISM: &'static str = "discrete-gaussian";
    const TREE: &'static str = "tree-aggregation";
    const UNIT_OF_TREE: &'static str = "participant";

    /// Noise of `noise_multiplier`.
    pub const fn new(
        noise_multiplier: f64,
        adjacency: CentralAdjacency,
        delta: f64,
        adaptive_clip: Option<AdaptiveClipping>,
    ) -> Self {
        Self {
            unit: Self::UNIT,
            trust: Self::TRUST,
            mechanism: Self::MECHANISM,
            adjacency,
            noise_multiplier,
            delta,
            adaptive_clip,
            tree: None,
        }
    }

    /// The same noise, on the nodes of a tree over rounds.
    #[must_use]
    pub const fn over(self, tree: TreeTerms) -> Self {
        Self {
            unit: Self::UNIT_OF_TREE,
            mechanism: Self::TREE,
            tree: Some(tree),
            ..self
        }
    }
}

impl Document for TreeTerms {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let terms = Self {
            restart_every: fields.required("restart_every"),
            min_separation: fields.required("min_separation"),
        };
        fields.finish().map(|()| terms)
    }
}

impl Document for CentralPrivacy {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let tree: Option<TreeTerms> = f.optional_document("tree")?;
        let (unit, mechanism) = match tree {
            None => (Self::UNIT, Self::MECHANISM),
            Some(_) => (Self::UNIT_OF_TREE, Self::TREE),
        };
        for (name, known) in [("mechanism", mechanism), ("unit", unit), ("trust", Self::TRUST)] {
            let found = f.tag(name)?;
            if found != known {
                return Err(format!("unknown {name} `{found}`"));
            }
        }
        let adjacency = match f.tag("adjacency")?.as_str() {
            "add-remove" => CentralAdjacency::AddRemove,
            "replace-one" => CentralAdjacency::ReplaceOne,
            other => return Err(format!("unknown adjacency `{other}`")),
        };
        let (noise_multiplier, delta) = (f.required("noise_multiplier"), f.required("delta"));
        let adaptive_clip = f.optional_document("adaptive_clip")?;
        let central = Self::new(noise_multiplier, adjacency, delta, adaptive_clip);
        fields.finish()?;
        Ok(match tree {
            None => central,
            Some(tree) => central.over(tree),
        })
    }
}

impl Document for AdaptiveClipping {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let clipping = Self {
            initial_l2: f.required("initial_l2"),
            quantile: f.required("quantile"),
            rate: f.required("rate"),
            count_noise: f.required("count_noise"),
        };
        fields.finish().map(|()| clipping)
    }
}

impl Document for Privacy {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let privacy = match f.tag("mode")?.as_str() {
            "none" => Self::None,
            "local" => Self::Local {
                noise_multiplier: f.required("noise_multiplier"),
            },
            "example" => Self::Example {
                clip_l2: f.required("clip_l2"),
                noise_multiplier: f.required("noise_multiplier"),
                sampling_rate: f.required("sampling_rate"),
            },
            "central" => return fields.rest().map(Self::Central),
            other => return Err(format!("unknown mode `{other}`")),
        };
        fields.finish().map(|()| privacy)
    }
}

/// When a round closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoundPolicy {
    /// A round never publishes with fewer updates than this.
    pub min_clients: u32,
    /// A round publishes at once with this many.
    pub target_clients: u32,
    /// Milliseconds from the round's first check-in to the moment at which it publishes with what it has (or, below
    /// `min_clients`, starts another such span).
    pub deadline_ms: u64,
}

impl Document for RoundPolicy {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let policy = Self {
            min_clients: fields.required("min_clients"),
            target_clients: fields.required("target_clients"),
            deadline_ms: fields.required("deadline_ms"),
        };
        fields.finish().map(|()| policy)
    }
}

/// Why a manifest is not one that any client could follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or a field is missing, unknown or of another type.
    #[error("the manifest is not valid: {0}")]
    Json(String),
    /// A manifest of another protocol version.
    #[error("the manifest is of protocol version {found}, but this side speaks version {expected}")]
    Version {
        /// The version found.
        found: u16,
        /// The version that this crate speaks.
        expected: u16,
    },
    /// The bytes are not those that the hash names.
    #[error("the manifest's bytes have the hash {found}, but {expected} was announced")]
    Hash {
        /// The hash of the bytes.
        found: ContentHash,
        /// The hash announced.
        expected: ContentHash,
    },
    /// A value outside what makes sense.
    #[error("{field} is {found}, but must be {expected}")]
    Value {
        /// The field, as a path.
        field: &'static str,
        /// The value found.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] with the field that is wrong. The model and training documents are not looked into.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        // Documents go through `Value` everywhere: one parser instead of one for each type, which shows in the wasm's size.
        let document = unsaid_document::parse(bytes).map_err(ManifestError::Json)?;
        // The version first, so that a later version is called that, and not an unknown field.
        let version = document.get("protocol").and_then(Value::as_u64);
        if let Some(found) = version.and_then(|version| u16::try_from(version).ok())
            && found != crate::VERSION
        {
            let expected = crate::VERSION;
            return Err(ManifestError::Version { found, expected });
        }
        let manifest = Self::read(document).map_err(ManifestError::Json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes that a relay serves; their hash names the manifest.
    pub fn to_json(&self) -> Vec<u8> {
        #[allow(clippy::expect_used)]
        // INVARIANT: every field is a string, a number or a JSON value: nothing can fail
        serde_json::to_vec(self).expect("a manifest is always valid JSON")
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`ManifestError::Value`] for the first that makes no sense.
    pub fn check(&self) -> Result<(), ManifestError> {
        fn require(
            ok: bool,
            field: &'static str,
            found: impl ToString,
            expected: &'static str,
        ) -> Result<(), ManifestError> {
            if ok {
                Ok(())
            } else {
                Err(ManifestError::Value {
                    field,
                    found: found.to_string(),
                    expected,
                })
            }
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        require(self.parameters > 0, "parameters", self.parameters, "at least 1")?;
        let DataSchema::Classification { features, classes } = self.data;
        require(features > 0, "data.features", features, "at least 1")?;
        require(classes > 1, "data.classes", classes, "at least 2")?;
        let UpdateEncoding {
            clip_l2,
            grid_step,
            max_weight,
        } = self.update;
        require(
            positive(clip_l2),
            "update.clip_l2",
            Decimal(clip_l2),
            "a finite number above 0",
        )?;
        require(
            positive(grid_step),
            "update.grid_step",
            Decimal(grid_step),
            "a finite number above 0",
        )?;
        // 2²⁴ steps to the clip norm leave an i32 seven bits for noise, and squares of norms fit in a u64.
        let steps = clip_l2 / grid_step;
        let range = "between clip_l2 / 16,777,216 and clip_l2";
        require(
            (1.0..=16_777_216.0).contains(&steps),
            "update.grid_step",
            Decimal(grid_step),
            range,
        )?;
        if let Some(most) = max_weight {
            // Sums of weighted coordinates must fit an i64.
            let range = "a whole number from 1 to 1,048,576";
            require((1..=1 << 20).contains(&most), "update.max_weight", most, range)?;
            let noiseless = matches!(self.privacy, Privacy::None);
            require(
                noiseless,
                "update.max_weight",
                most,
                "left out in a task with noise",
            )?;
        }
        if let Privacy::Central(CentralPrivacy { delta, .. }) = self.privacy {
            let range = "above 0 and below 1";
            require(delta > 0.0 && delta < 1.0, "privacy.delta", Decimal(delta), range)?;
        }
        if let Privacy::Central(CentralPrivacy {
            tree: Some(tree),
            adaptive_clip,
            ..
        }) = self.privacy
        {
            // Noise in the nodes of a tree is for one norm.
            let fits = tree.restart_every > 0 && tree.min_separation > 0 && adaptive_clip.is_none();
            let range = "of at least 1 round, and without adaptive_clip";
            require(fits, "privacy.tree", tree.restart_every, range)?;
        }
        if let Privacy::Local { noise_multiplier }
        | Privacy::Example { noise_multiplier, .. }
        | Privacy::Central(CentralPrivacy { noise_multiplier, .. }) = self.privacy
        {
            let field = "privacy.noise_multiplier";
            require(
                positive(noise_multiplier),
                field,
                Decimal(noise_multiplier),
                "a finite number above 0",
            )?;
            require(
                noise_multiplier <= 1e6,
                field,
                Decimal(noise_multiplier),
                "at most 1,000,000",
            )?;
        }
        if let Privacy::Example {
            clip_l2,
            sampling_rate,
            ..
        } = self.privacy
        {
            // Gradients are 32-bit floats, and so is their bound, and one 2¹⁸th of it.
            require(
                (1e-6..=1e6).contains(&clip_l2),
                "privacy.clip_l2",
                Decimal(clip_l2),
                "between 0.000001 and 1,000,000",
            )?;
            require(
                (1e-6..=1.0).contains(&sampling_rate),
                "privacy.sampling_rate",
                Decimal(sampling_rate),
                "between 0.000001 and 1",
            )?;
        }
        let RoundPolicy {
            min_clients,
            target_clients,
            deadline_ms,
        } = self.rounds;
        require(min_clients > 0, "rounds.min_clients", min_clients, "at least 1")?;
        require(
            target_clients >= min_clients,
            "rounds.target_clients",
            target_clients,
            "at least rounds.min_clients",
        )?;
        require(deadline_ms > 0, "rounds.deadline_ms", deadline_ms, "at least 1")
    }

    /// Checks that `bytes` are the manifest named `expected`, and reads it.
    ///
    /// # Errors
    /// [`ManifestError::Hash`] where they are not, and all that [`Manifest::from_json`] returns.
    pub fn from_json_named(bytes: &[u8], expected: ContentHash) -> Result<Self, ManifestError> {
        let found = ContentHash::of(bytes);
        if found != expected {
            return Err(ManifestError::Hash { found, expected });
        }
        Self::from_json(bytes)
    }
}
