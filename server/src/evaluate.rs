//! Held-out accuracy of each published model, on a thread of its own: a round never waits for it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use unsaid_engine::{Examples, Model};
use unsaid_protocol::{RoundMetrics, Shard, TaskId};

use crate::{fall::Guard, lineage::RoundRecord, store::Store};

/// Why the held-out examples cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeldOutError {
    /// The task names examples, and the relay has no data folder.
    #[error("the task is evaluated on {0}, but no data folder was given")]
    NoFolder(PathBuf),
    /// The file cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no shard that fits the model.
    #[error("{path} does not fit the task: {reason}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Reads the held-out examples of a task from a shard.
///
/// # Errors
/// [`HeldOutError`] naming the file.
pub fn read_held_out(path: &Path, model: &Model) -> Result<Examples, HeldOutError> {
    let path = path.to_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Err(HeldOutError::Unreadable { path, error }),
    };
    let unfit = |reason: String| HeldOutError::Unfit {
        path: path.clone(),
        reason,
    };
    if model.is_external() {
        return Err(unfit(
            "another program computes the model, so the relay cannot evaluate it".into(),
        ));
    }
    let shard = Shard::decode(&bytes).map_err(|error| unfit(error.to_string()))?;
    if (shard.features as usize, shard.classes as usize) != (model.features(), model.classes()) {
        return Err(unfit(format!(
            "it has {} features and {} classes, the model {} and {}",
            shard.features,
            shard.classes,
            model.features(),
            model.classes()
        )));
    }
    let labels = shard.labels.iter().map(|&label| label.into()).collect();
    Examples::new(shard.features_f32(), labels, model.features(), model.classes())
        .map_err(|error| unfit(error.to_string()))
}

/// Starts the thread, which holds `guard`. It takes published rounds, and hands each back with its figures, unless its model is no longer kept; it
/// ends when `jobs` does.
///
/// # Errors
/// The operating system's, where it starts no thread.
pub(crate) fn spawn(
    task: TaskId,
    model: Arc<Model>,
    examples: Examples,
    store: Arc<dyn Store>,
    jobs: mpsc::Receiver<RoundRecord>,
    done: impl Fn(RoundRecord) + Send + 'static,
    guard: Guard,
) -> std::io::Result<thread::JoinHandle<()>> {
    let work = move || {
        let _guard = guard;
        for record in jobs {
            match evaluate(&task, &model, &examples, &*store, record) {
                Ok(Some(record)) => done(record),
                Ok(None) => tracing::debug!(%task, "a model that is no longer kept was not evaluated"),
                Err(error) => tracing::error!(%task, error, "a model was not evaluated"),
            }
        }
    };
    thread::Builder::new().name("evaluation".into()).spawn(work)
}

fn evaluate(
    task: &TaskId,
    model: &Model,
    examples: &Examples,
    store: &dyn Store,
    RoundRecord { metrics, lineage }: RoundRecord,
) -> Result<Option<RoundRecord>, String> {
    let bytes = store
        .model(task, &metrics.model)
        .map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    let parameters = model
        .from_safetensors(&bytes)
        .map_err(|error| error.to_string())?;
    let figures = model
        .evaluate(&parameters, examples)
        .map_err(|error| error.to_string())?;
    let metrics = RoundMetrics {
        accuracy: Some(figures.accuracy).filter(|figure| figure.is_finite()),
        loss: Some(figures.loss).filter(|figure| figure.is_finite()),
        ..metrics
    };
    Ok(Some(RoundRecord { metrics, lineage }))
}

#[cfg(test)]
mod tests {
    use unsaid_engine::ModelSpec;

    use super::*;

    fn model(layers: serde_json::Value) -> Model {
        let spec = serde_json::json!({"input": [3], "layers": layers, "loss": "softmax-cross-entropy"});
        Model::new(&serde_json::from_value::<ModelSpec>(spec).unwrap()).unwrap()
    }

    #[test]
    fn held_out_examples_of_a_model_that_the_relay_cannot_run_are_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("test.shard");
        let shard = Shard {
            features: 3,
            classes: 2,
            labels: vec![1],
            pixels: vec![0, 1, 2],
        };
        std::fs::write(&path, shard.encode()).unwrap();
        let own = model(serde_json::json!([{"type": "dense", "units": 2}]));
        assert_eq!(read_held_out(&path, &own).unwrap().len(), 1);
        let tensors = serde_json::json!([{"name": "w", "shape": [3, 2]}]);
        let other = model(serde_json::json!([{"type": "external", "tensors": tensors, "output": [2]}]));
        let error = read_held_out(&path, &other).unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
    }
}
