//! What is fuzzed: one function for each decoder of untrusted bytes. Each gives them to the decoder, and checks what must hold of
//! whatever it accepts; a breach is a panic. They return whether the bytes were accepted, so that a test can tell that the seeds
//! reach both sides.
//!
//! `cargo xtask fuzz TARGET` runs one under libFuzzer; `tests/replay.rs` gives every committed seed to its target.

mod client;
mod relay;
mod requests;

use unsaid_document::Document;
use unsaid_engine::{Device, Examples, Model, ModelSpec, TrainSpec, Training, Unobserved};
use unsaid_privacy::Ledger;
use unsaid_protocol::{
    CheckIn, CheckInReply, Credential, Enrol, Enrolled, Event, Manifest, Problem, RelayIdentity,
    RoundMetrics, RoundState, Shard, UpdateFrame, UpdateReply,
};
use unsaid_relay::{data::idx, task_file::Task};

pub use self::{
    client::{model, terms},
    relay::{intake, records},
    requests::requests,
};

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: [Target; 14] = [
    ("update_frame", update_frame),
    ("manifest", manifest),
    ("messages", messages),
    ("shard", shard),
    ("task_file", task_file),
    ("weights", weights),
    ("ledger", ledger),
    ("checkpoint", checkpoint),
    ("idx", idx),
    ("intake", intake),
    ("requests", requests),
    ("records", records),
    ("terms", terms),
    ("model", model),
];

/// The most parameters of a model that a target builds: larger ones are refused for memory's sake, which is not what is tested.
const MOST_PARAMETERS: usize = 1 << 16;

/// Where a target's clock stands, Unix milliseconds.
const NOW_MS: u64 = 1_700_000_000_000;

/// Bytes that a target takes values from; zeros once they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        let mut value = [0; N];
        value[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        value
    }
}

/// Whether every number in `text` is one that all readers of JSON round the same way: at most 15 significant digits, and at most 22
/// places from the point (PROTOCOL.md, "Numbers in JSON"). `serde_json` may be a last bit off for others.
fn exact(text: &str) -> bool {
    let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    text.split(|c| !is_of_number(c)).all(|number| {
        let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let exponent = exponent.parse::<i32>().map_or(i32::MAX, i32::saturating_abs);
        digits.len() <= 15 && (exponent <= 7 || exponent == i32::MAX && digits.is_empty())
    })
}

/// A frame that is read has one form: writing it gives the same bytes.
pub fn update_frame(bytes: &[u8]) -> bool {
    let Ok((frame, width)) = UpdateFrame::read(bytes) else {
        return false;
    };
    assert_eq!(
        frame.encode_in(Some(width)),
        bytes,
        "an update has one form of a width"
    );
    assert_eq!(UpdateFrame::decode_in(bytes, Some(width)), Ok(frame.clone()));
    if UpdateFrame::decode(bytes).is_ok() {
        assert_eq!(frame.encode(), bytes, "an update has one form");
    }
    true
}

/// A manifest that is read survives being written, and the documents in it are read or refused; a model of a modest size is
/// built.
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::from_json(bytes) else {
        return false;
    };
    if std::str::from_utf8(bytes).is_ok_and(exact) {
        let again = Manifest::from_json(&manifest.to_json());
        assert_eq!(again.as_ref(), Ok(&manifest), "what is written is read");
    }
    if let Ok(spec) = ModelSpec::read(manifest.model.clone())
        && let Ok(model) = Model::new(&spec)
        && let Ok(training) = TrainSpec::read(manifest.training.clone())
        && model.check_training(&training).is_ok()
        && model.parameter_count() <= MOST_PARAMETERS
    {
        assert_eq!(model.initial_parameters(1).len(), model.parameter_count());
    }
    true
}

/// The first byte says which message the rest is. One that is read survives being written.
pub fn messages(bytes: &[u8]) -> bool {
    fn survives<T: Document + Clone + PartialEq + std::fmt::Debug>(
        text: &str,
        write: impl Fn(&T) -> serde_json::Result<serde_json::Value>,
    ) -> bool {
        let read = |document| T::read(document).ok();
        let Some(message) = serde_json::from_str(text).ok().and_then(read) else {
            return false;
        };
        let text = write(&message).map(|value| value.to_string()).unwrap_or_default();
        let again = serde_json::from_str(&text).ok().and_then(read);
        assert!(again.is_some(), "what is written is read");
        assert!(!exact(&text) || again == Some(message), "as it was");
        true
    }
    let Some((&kind, rest)) = bytes.split_first() else {
        return false;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return false;
    };
    match kind {
        b'c' => survives::<CheckIn>(text, |it| serde_json::to_value(it)),
        b'r' => survives::<CheckInReply>(text, |it| serde_json::to_value(it)),
        b'u' => survives::<UpdateReply>(text, |it| serde_json::to_value(it)),
        b's' => survives::<RoundState>(text, |it| serde_json::to_value(it)),
        b'm' => survives::<RoundMetrics>(text, |it| serde_json::to_value(it)),
        b'p' => survives::<Problem>(text, |it| serde_json::to_value(it)),
        b'e' => survives::<Enrol>(text, |it| serde_json::to_value(it)),
        b'E' => survives::<Enrolled>(text, |it| serde_json::to_value(it)),
        b'R' => survives::<RelayIdentity>(text, |it| serde_json::to_value(it)),
        b'C' => {
            let Ok(credential) = text.parse::<Credential>() else {
                return false;
            };
            assert_eq!(credential.to_string(), text, "there is one way to write it");
            true
        }
        _ => {
            let (name, data) = text.split_once('\n').unwrap_or((text, ""));
            let Ok(Some(event)) = Event::read(name, data) else {
                return false;
            };
            let again = Event::read(event.name(), &event.data());
            assert!(matches!(again, Ok(Some(_))), "what is written is read");
            assert!(!exact(data) || again == Ok(Some(event)), "as it was");
            true
        }
    }
}

/// A shard that is read has one form.
pub fn shard(bytes: &[u8]) -> bool {
    let Ok(shard) = Shard::decode(bytes) else {
        return false;
    };
    assert_eq!(shard.encode(), bytes, "a shard has one form");
    true
}

/// A task that is read has a manifest that clients can read.
pub fn task_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(task) = Task::parse("task", text, &[]) else {
        return false;
    };
    let json = task.manifest.to_json();
    if std::str::from_utf8(&json).is_ok_and(exact) {
        let read = Manifest::from_json(&json);
        assert_eq!(read, Ok(task.manifest), "clients can read what the relay offers");
    }
    true
}

fn small_model() -> Option<Model> {
    let spec =
        r#"{"input": [2], "layers": [{"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"}"#;
    Model::new(&ModelSpec::read(serde_json::from_str(spec).ok()?).ok()?).ok()
}

/// Weights that are read are as many as the model has, all finite, and survive being written.
pub fn weights(bytes: &[u8]) -> bool {
    let Some(model) = small_model() else {
        return false;
    };
    let Ok((parameters, control)) = model.from_safetensors_with_control(bytes) else {
        return false;
    };
    assert_eq!(parameters.len(), model.parameter_count());
    let written = if control.is_empty() {
        model.to_safetensors(&parameters)
    } else {
        model.to_safetensors_with_control(&parameters, &control)
    };
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let again = written
        .ok()
        .and_then(|file| model.from_safetensors_with_control(&file).ok());
    let found = again.map(|(parameters, control)| [bits(&parameters), bits(&control)]);
    assert_eq!(found, Some([bits(&parameters), bits(&control)]));
    true
}

/// A ledger that is read has one form, and what it says was spent is a number.
pub fn ledger(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(ledger) = Ledger::from_json(text) else {
        return false;
    };
    assert!(
        ledger.spent_epsilon() >= 0.0,
        "nothing spent is negative or no number"
    );
    assert_eq!(ledger.to_json(), text, "a ledger has one form");
    true
}

/// A training that goes on from a kept state: the first byte is the steps so far, the second how many numbers of Adam's state
/// there are; then the model's parameters, and the state. It trains, or says why not.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let [steps, state, numbers @ ..] = bytes else {
        return false;
    };
    let numbers: Vec<f32> = numbers
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect();
    let Some((model, examples)) =
        small_model().zip(Examples::new(vec![1.0, 0.0, 0.0, 1.0], vec![0, 1], 2, 2).ok())
    else {
        return false;
    };
    let spec = r#"{"epochs": 1, "batch_size": 2, "optimizer": {"type": "adam", "learning_rate": 0.5}}"#;
    let Some(spec) = serde_json::from_str(spec)
        .ok()
        .and_then(|it| TrainSpec::read(it).ok())
    else {
        return false;
    };
    let parameters = &numbers[..numbers.len().min(model.parameter_count())];
    let rest = &numbers[parameters.len()..];
    let kept = &rest[..rest.len().min(usize::from(*state))];
    let training = Training::new(&model, &examples, &spec).resume(kept, u32::from(*steps));
    let mut observer = Unobserved;
    let run = training.run(parameters, &Device::Cpu, &mut observer);
    let Ok(trained) = pollster::block_on(run) else {
        return false;
    };
    assert_eq!(trained.parameters.len(), model.parameter_count());
    true
}

/// Images that are read have as many pixels as they say.
pub fn idx(bytes: &[u8]) -> bool {
    let images = idx::images(bytes);
    if let Ok(images) = &images {
        assert_eq!(images.pixels.len(), images.count * images.features as usize);
    }
    idx::labels(bytes).is_ok() || images.is_ok()
}
