//! A task as the client understands it: the manifest, checked against the person's floors, with the model and the mechanisms
//! that it asks for.

use unsaid_engine::{Model, ModelSpec, TrainSpec};
use unsaid_privacy::{Adjacency, ClientFloors, Encoding, LocalNoise, PrivacyError, Rho};
use unsaid_protocol::{ContentHash, DataSchema, Manifest, Privacy};

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
    /// The noise; none in a task without.
    pub noise: Option<LocalNoise>,
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
        let model: ModelSpec =
            serde::Deserialize::deserialize(&manifest.model).map_err(|e| bad("model", &e))?;
        let model = Model::new(&model).map_err(|e| bad("model", &e))?;
        let training: TrainSpec =
            serde::Deserialize::deserialize(&manifest.training).map_err(|e| bad("training", &e))?;
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
        let multiplier = match manifest.privacy {
            Privacy::None => None,
            Privacy::Local { noise_multiplier } => Some(noise_multiplier),
            _ => return Err(bad("privacy", &"a mode that this version does not know")),
        };
        let clip_l2 = manifest.update.clip_l2;
        floors
            .check(multiplier, clip_l2, manifest.rounds.min_clients)
            .map_err(PrivacyError::from)?;
        let encoding = Encoding::new(clip_l2, manifest.update.grid_step, model.parameter_count())
            .map_err(PrivacyError::from)?;
        let noise = multiplier
            .map(|z| LocalNoise::new(&encoding, z))
            .transpose()
            .map_err(PrivacyError::from)?;
        let json = String::from_utf8_lossy(bytes).into_owned();
        Ok(Self {
            manifest,
            hash,
            json,
            model,
            training,
            encoding,
            noise,
        })
    }

    /// What one round costs: any two updates of one participant are told apart no better than this (replace-one). None in a task
    /// without noise.
    pub fn round_cost(&self) -> Option<Rho> {
        self.noise.as_ref().map(|noise| noise.rho(Adjacency::ReplaceOne))
    }
}
