//! What a client reads: a relay's terms under the person's floors, and models with their training.

use unsaid::task::Task;
use unsaid_document::Document;
use unsaid_engine::{Device, Examples, Model, ModelSpec, TrainSpec, Training, Unobserved};
use unsaid_privacy::ClientFloors;
use unsaid_protocol::{ContentHash, Privacy};

use super::MOST_PARAMETERS;

/// The most bytes of memory that a model is trained with.
const MOST_MEMORY: u64 = 1 << 20;

/// The first line is a page's floors, the rest a manifest. A task that is taken has what the manifest says, and nothing below the
/// floors.
pub fn terms(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return false;
    };
    let (floors, manifest) = (&bytes[..end], &bytes[end + 1..]);
    let Some(floors) = unsaid_document::parse(floors)
        .ok()
        .and_then(|it| ClientFloors::read(it).ok())
    else {
        return false;
    };
    let other = ContentHash::of(b"another manifest");
    assert!(
        Task::new(manifest, other, &floors).is_err(),
        "it has another name"
    );
    let Ok(task) = Task::new(manifest, ContentHash::of(manifest), &floors) else {
        return false;
    };
    let terms = &task.manifest;
    assert_eq!(task.model.parameter_count(), terms.parameters as usize);
    assert!(terms.rounds.min_clients >= floors.min_cohort);
    assert!(terms.update.clip_l2 <= floors.max_clip_l2);
    let local = matches!(terms.privacy, Privacy::Local { .. });
    let example = matches!(terms.privacy, Privacy::Example { .. });
    let central = matches!(terms.privacy, Privacy::Central(_));
    assert_eq!(
        (task.noise.is_some(), task.gradient_noise.is_some()),
        (local, example)
    );
    assert!(local || example || central || floors.min_noise_multiplier == 0.0);
    true
}

/// An object of a model and how it is trained. One of a modest size trains on two examples, or says why not, and stays as many
/// numbers as it was.
pub fn model(bytes: &[u8]) -> bool {
    let Ok(mut document) = unsaid_document::parse(bytes) else {
        return false;
    };
    let mut part = |name: &str| document.get_mut(name).map(serde_json::Value::take);
    let (Some(model), Some(training)) = (part("model"), part("training")) else {
        return false;
    };
    let (Ok(spec), Ok(training)) = (ModelSpec::read(model), TrainSpec::read(training)) else {
        return false;
    };
    // A number beyond a 32-bit float is infinite, which no layer takes and no JSON says.
    let Ok(model) = Model::new(&spec) else {
        return false;
    };
    let written = serde_json::to_value(&spec).unwrap_or_default();
    assert!(ModelSpec::read(written).is_ok(), "what is written is read");
    let Ok(memory) = model.memory(&training, 2) else {
        return false;
    };
    let steps = training.steps_per_epoch.map_or(1, std::num::NonZeroU32::get);
    let cheap = memory.total() <= MOST_MEMORY && training.epochs.get() <= 2 && steps <= 8;
    if cheap && model.parameter_count() <= MOST_PARAMETERS && !model.is_external() {
        train(&model, &training);
    }
    true
}

fn train(model: &Model, training: &TrainSpec) {
    let parameters = model.initial_parameters(1);
    assert_eq!(parameters.len(), model.parameter_count());
    let (x, places) = (
        vec![0.0; 2 * model.features()],
        model.output_shape().iter().product::<usize>(),
    );
    let classes = model.classes();
    let labels = places.checked_div(classes).unwrap_or(0);
    let examples = [
        Examples::sequences(x.clone(), vec![0; 2 * labels], model.features(), labels, classes),
        Examples::with_values(x, &vec![0.5; 2 * places], model.features(), places),
    ];
    for examples in examples.into_iter().flatten() {
        let mut observer = Unobserved;
        let run = Training::new(model, &examples, training).run(&parameters, &Device::Cpu, &mut observer);
        if let Ok(trained) = pollster::block_on(run) {
            assert_eq!(trained.parameters.len(), parameters.len());
        }
    }
}
