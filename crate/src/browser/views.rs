//! What JavaScript is shown of the task and of the local data. `pkg/src/types.ts` has the types.

use serde::Serialize;
use unsaid_protocol::{DataSchema, Privacy};
use wasm_bindgen::JsValue;

use super::{BrowserPorts, events::to_js};
use crate::{
    ClientError, Session,
    ports::{Ports, Store},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DataSummary {
    examples: usize,
    per_class: Vec<u32>,
    bytes: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestView<'a> {
    hash: String,
    task: &'a str,
    title: &'a str,
    description: &'a str,
    parameters: u32,
    features: u32,
    classes: u32,
    training: &'a serde_json::Value,
    model: &'a serde_json::Value,
    update: UpdateView,
    privacy: PrivacyView,
    rounds: RoundsView,
    json: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UpdateView {
    clip_l2: f64,
    grid_step: f64,
}

#[derive(Debug, Serialize)]
#[serde(tag = "mode", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum PrivacyView {
    None,
    Local {
        noise_multiplier: f64,
        sigma: f64,
        epsilon_per_round: f64,
        delta: f64,
    },
    Example {
        noise_multiplier: f64,
        clip_l2: f64,
        sampling_rate: f64,
        steps_per_round: u32,
        epsilon_per_round: f64,
        delta: f64,
    },
    Central {
        noise_multiplier: f64,
        epsilon_per_round: f64,
        delta: f64,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RoundsView {
    min_clients: u32,
    target_clients: u32,
    deadline_ms: u64,
}

/// The manifest that the client agreed to.
pub(super) async fn manifest_view(session: &Session<BrowserPorts>) -> Result<JsValue, ClientError> {
    let task = &session.task;
    let manifest = &task.manifest;
    let DataSchema::Classification { features, classes } = manifest.data else {
        return Err(ClientError::Internal(
            "a kind of data that was checked is unknown".into(),
        ));
    };
    let privacy = match task.round_cost() {
        None => PrivacyView::None,
        Some(cost) => {
            let delta = session.budget().await?.delta;
            let epsilon_per_round = cost
                .epsilon(delta)
                .map_err(|error| ClientError::Internal(error.to_string()))?;
            match (manifest.privacy, &task.noise) {
                (Privacy::Local { noise_multiplier }, Some(noise)) => PrivacyView::Local {
                    noise_multiplier,
                    sigma: noise.sigma_steps() * manifest.update.grid_step,
                    epsilon_per_round,
                    delta,
                },
                (
                    Privacy::Example {
                        clip_l2,
                        noise_multiplier,
                        sampling_rate,
                    },
                    _,
                ) => PrivacyView::Example {
                    noise_multiplier,
                    clip_l2,
                    sampling_rate,
                    steps_per_round: task.steps_per_round(),
                    epsilon_per_round,
                    delta,
                },
                (Privacy::Central(terms), _) => PrivacyView::Central {
                    noise_multiplier: terms.noise_multiplier,
                    epsilon_per_round,
                    delta,
                },
                _ => PrivacyView::None,
            }
        }
    };
    Ok(to_js(&ManifestView {
        hash: task.hash.to_string(),
        task: manifest.task.as_str(),
        title: &manifest.title,
        description: &manifest.description,
        parameters: manifest.parameters,
        features,
        classes,
        training: &manifest.training,
        model: &manifest.model,
        update: UpdateView {
            clip_l2: manifest.update.clip_l2,
            grid_step: manifest.update.grid_step,
        },
        privacy,
        rounds: RoundsView {
            min_clients: manifest.rounds.min_clients,
            target_clients: manifest.rounds.target_clients,
            deadline_ms: manifest.rounds.deadline_ms,
        },
        json: &task.json,
    }))
}

/// How much local data there is.
pub(super) async fn summary(session: &Session<BrowserPorts>) -> Result<JsValue, ClientError> {
    let (x, y) = session.ports.store().examples().await?;
    let mut per_class = vec![0; session.task.model.classes()];
    for &label in &y {
        if let Some(count) = per_class.get_mut(label as usize) {
            *count += 1;
        }
    }
    Ok(to_js(&DataSummary {
        examples: y.len(),
        per_class,
        bytes: 4 * (x.len() + y.len()),
    }))
}
