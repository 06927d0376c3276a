//! The model files of `tests/vectors/v1`, which another program made from `PROTOCOL.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;
use unsaid_engine::{Model, WeightsError};

#[test]
fn every_model_file_is_read_as_its_vector_says_or_refused_for_its_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/v1");
    let (mut good, mut bad, mut truncated) = (0, 0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let vector: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if vector.get("reads").is_none_or(|kind| kind != "model") {
            continue;
        }
        let spec = serde_json::from_value(vector["context"]["model"].clone()).unwrap();
        let model = Model::new(&spec).unwrap();
        let hex = vector["bytes"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let read = model.from_safetensors_with_control(&bytes);
        let reason = vector["error"]["reason"].as_str();
        match (read, reason) {
            (Ok(_), None) if vector["prefixes"] == "all" => {
                for length in 0..bytes.len() {
                    let part = model.from_safetensors_with_control(&bytes[..length]);
                    assert!(part.is_err(), "{name}: the first {length} bytes are read");
                }
                truncated += 1;
            }
            (Ok((parameters, control)), None) => {
                let numbers = |field: &str| -> Vec<f32> {
                    let list = vector["fields"][field].as_array().unwrap().iter();
                    list.map(|number| number.as_f64().unwrap() as f32).collect()
                };
                assert_eq!(
                    (parameters, control),
                    (numbers("parameters"), numbers("control")),
                    "{name}"
                );
                good += 1;
            }
            (Err(error), Some(reason)) => {
                let found = match &error {
                    WeightsError::Format(_) => "format",
                    WeightsError::Tensors(_) => "tensors",
                    WeightsError::NonFinite { .. } => "not finite",
                    other => panic!("{name}: {other}"),
                };
                assert_eq!(found, reason, "{name}: {error}");
                let field = vector["error"]["field"].as_str().unwrap_or_default();
                assert!(error.to_string().contains(field), "{name}: {error}");
                bad += 1;
            }
            (read, _) => panic!("{name}: {read:?}"),
        }
    }
    assert_eq!((good, bad, truncated), (5, 14, 1));
}

/// The file that the vector says is the one file of these parameters that this project writes.
#[test]
fn what_is_written_is_the_file_of_the_vector() {
    let vector = include_str!("../../../tests/vectors/v1/model.json");
    let vector: Value = serde_json::from_str(vector).unwrap();
    let spec = serde_json::from_value(vector["context"]["model"].clone()).unwrap();
    let numbers = vector["fields"]["parameters"].as_array().unwrap().iter();
    let parameters: Vec<f32> = numbers.map(|number| number.as_f64().unwrap() as f32).collect();
    let file = Model::new(&spec).unwrap().to_safetensors(&parameters).unwrap();
    let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, vector["bytes"].as_str().unwrap());
}
