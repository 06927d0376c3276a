//! `model.schema.json` against what is really read: whatever the schema lets through is read, and whatever it refuses is refused
//! by the reader or by the model.

use serde_json::{Map, Value, json};

use super::{
    ExternalTensor, LayerSpec, LossSpec, ModelSpec, OptimizerSpec, Padding, ScheduleSpec, TrainSpec,
};
use crate::Model;

/// The part of JSON Schema 2020-12 that the schema uses; a keyword that is not known here fails the test.
struct Validator {
    all: Value,
    part: &'static str,
}

fn schema(part: &'static str) -> Validator {
    let all = serde_json::from_str(include_str!("../../model.schema.json")).unwrap();
    Validator { all, part }
}

impl Validator {
    fn is_valid(&self, value: &Value) -> bool {
        self.check(&self.all["$defs"][self.part], value)
    }

    fn check(&self, schema: &Value, value: &Value) -> bool {
        let schema = schema.as_object().unwrap();
        schema
            .iter()
            .all(|(keyword, wanted)| self.keyword(schema, keyword, wanted, value))
    }

    fn keyword(&self, schema: &Map<String, Value>, keyword: &str, wanted: &Value, value: &Value) -> bool {
        let limit = |holds: fn(f64, f64) -> bool| {
            value
                .as_f64()
                .is_none_or(|number| holds(number, wanted.as_f64().unwrap()))
        };
        let length = |holds: fn(usize, usize) -> bool| {
            let wanted = wanted.as_u64().unwrap() as usize;
            let len = value
                .as_array()
                .map(Vec::len)
                .or(value.as_str().map(|text| text.chars().count()));
            len.is_none_or(|len| holds(len, wanted))
        };
        match keyword {
            "description" | "default" => true,
            "$ref" => {
                let target = self
                    .all
                    .pointer(wanted.as_str().unwrap().strip_prefix('#').unwrap());
                self.check(target.expect("a reference leads somewhere"), value)
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|one| is_of_type(one, value)),
                one => is_of_type(one, value),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "oneOf" => {
                wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|one| self.check(one, value))
                    .count()
                    == 1
            }
            "required" => {
                let names = wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap());
                value
                    .as_object()
                    .is_none_or(|object| names.into_iter().all(|name| object.contains_key(name)))
            }
            "properties" => value.as_object().is_none_or(|object| {
                let known = |(name, value)| wanted.get(name).is_none_or(|schema| self.check(schema, value));
                object.iter().all(known)
            }),
            "additionalProperties" => {
                assert_eq!(wanted, false);
                value
                    .as_object()
                    .is_none_or(|object| object.keys().all(|name| schema["properties"].get(name).is_some()))
            }
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| self.check(wanted, item))),
            "minItems" | "minLength" => length(|len, wanted| len >= wanted),
            "maxItems" => length(|len, wanted| len <= wanted),
            "minimum" => limit(|number, wanted| number >= wanted),
            "exclusiveMinimum" => limit(|number, wanted| number > wanted),
            "maximum" => limit(|number, wanted| number <= wanted),
            "exclusiveMaximum" => limit(|number, wanted| number < wanted),
            _ => panic!("{keyword} is not a keyword that this test knows"),
        }
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("{other} is no type"),
    }
}

fn model(input: Value, layers: Value) -> Value {
    json!({"input": input, "layers": layers, "loss": "softmax-cross-entropy"})
}

/// Models that use every layer, with every field.
fn models() -> Vec<Value> {
    let image = model(
        json!([8, 8, 2]),
        json!([
            {"type": "conv2d", "filters": 4, "kernel": [3, 3], "stride": [1, 1], "padding": "same"}, {"type": "mark", "name": "a"},
            {"type": "group-norm", "groups": 2, "epsilon": 1e-3}, {"type": "gelu"}, {"type": "add", "with": "a"},
            {"type": "max-pool2d", "size": [2, 2], "stride": [2, 2]}, {"type": "upsample2d", "factor": 2},
            {"type": "concat", "with": "a"}, {"type": "average-pool2d", "size": [2, 2]}, {"type": "layer-norm", "epsilon": 1e-5},
            {"type": "relu"}, {"type": "dropout", "rate": 0.5}, {"type": "flatten"}, {"type": "dense", "units": 4}
        ]),
    );
    let text = model(
        json!([5]),
        json!([
            {"type": "embedding", "vocabulary": 9, "units": 4}, {"type": "cifg-lstm", "units": 6, "projection": 4},
            {"type": "lstm", "units": 4}, {"type": "tanh"}, {"type": "tied-dense"}
        ]),
    );
    let pooled = |pool: &str| {
        let mut model = model(
            json!([4, 4, 3]),
            json!([{"type": pool}, {"type": "sigmoid"}, {"type": "dense", "units": 3}]),
        );
        model["loss"] = "mean-squared-error".into();
        model
    };
    let external = model(
        json!([4]),
        json!([{"type": "external", "output": [3], "tensors": [{"name": "w", "shape": [4, 3], "mean": 0.5, "spread": 0.25}]}]),
    );
    let mut models = vec![image, text, external];
    models.extend(["global-max-pool2d", "global-average-pool2d"].map(pooled));
    models
}

/// Trainings that use every optimiser and schedule, with every field.
fn trainings() -> Vec<Value> {
    let optimizers = [
        json!({"type": "sgd", "learning_rate": 0.5, "momentum": 0.5, "nesterov": true}),
        json!({"type": "adam", "learning_rate": 0.5, "beta1": 0.5, "beta2": 0.5, "epsilon": 0.5, "weight_decay": 0.5}),
        json!({"type": "adagrad", "learning_rate": 0.5, "initial_accumulator": 0.5, "epsilon": 0.5}),
    ];
    let schedules = [
        json!({"type": "constant"}),
        json!({"type": "linear", "end": 0.5}),
        json!({"type": "cosine", "end": 0.5}),
        json!({"type": "step", "every": 3, "factor": 0.5}),
    ];
    let training = |(optimizer, schedule): (&Value, &Value)| {
        json!({
            "epochs": 2, "batch_size": 3, "steps_per_epoch": 4, "accumulate": 2, "optimizer": optimizer, "schedule": schedule, "weight_decay": 0.5,
            "proximal": 0.5, "freeze": ["layers.13"], "shuffle": false, "clip_examples_l2": 0.5
        })
    };
    let pairs = optimizers.iter().cycle().zip(&schedules);
    pairs.map(training).collect()
}

/// A model that can be built and whose fields pass.
fn builds(document: &Value) -> bool {
    serde_json::from_value::<ModelSpec>(document.clone()).is_ok_and(|spec| Model::new(&spec).is_ok())
}

/// A training whose fields pass, for the first of the models.
fn trains(document: &Value) -> bool {
    let model = Model::new(&serde_json::from_value(models()[0].clone()).unwrap()).unwrap();
    serde_json::from_value::<TrainSpec>(document.clone())
        .is_ok_and(|spec| model.check_training(&spec).is_ok())
}

/// `document` with something changed, everywhere, in every way that there is: what was changed, and the document.
fn changed(document: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        let Some(here) = document.pointer(&path) else {
            continue;
        };
        let mut put = |what: &str, value: Value| {
            let mut copy = document.clone();
            *copy.pointer_mut(&path).unwrap() = value;
            all.push((format!("{path} {what}"), copy));
        };
        for other in [
            json!(null),
            json!(-1),
            json!(0),
            json!("x"),
            json!([]),
            json!({}),
            json!(true),
            json!(2.5),
        ] {
            put(&format!("is {other}"), other);
        }
        match here {
            Value::Object(object) => {
                let mut more = object.clone();
                more.insert("surprise".into(), json!(1));
                put("has a surprise", more.into());
                for key in object.keys() {
                    let mut fewer = object.clone();
                    fewer.remove(key);
                    put(&format!("has no {key}"), fewer.into());
                    paths.push(format!("{path}/{key}"));
                }
            }
            Value::Array(array) => paths.extend((0..array.len()).map(|at| format!("{path}/{at}"))),
            _ => {}
        }
    }
    all
}

/// That schema and reader agree about `documents` and about every change of them.
fn agree(
    part: &'static str,
    documents: &[Value],
    reads: impl Fn(&Value) -> bool,
    is_good: impl Fn(&Value) -> bool,
) {
    let schema = schema(part);
    let (mut passed, mut refused) = (0, 0);
    for document in documents {
        assert!(schema.is_valid(document) && is_good(document), "{document}");
        for (what, changed) in changed(document) {
            if schema.is_valid(&changed) {
                passed += 1;
                assert!(
                    reads(&changed),
                    "the schema lets through what is not read: {what}"
                );
            } else {
                refused += 1;
                assert!(!is_good(&changed), "the schema refuses what works: {what}");
            }
        }
    }
    assert!(passed > 20 && refused > 200, "{passed} {refused}");
}

#[test]
fn schema_and_reader_agree_about_models() {
    let reads = |document: &Value| serde_json::from_value::<ModelSpec>(document.clone()).is_ok();
    agree("model", &models(), reads, builds);
}

#[test]
fn schema_and_reader_agree_about_trainings() {
    let reads = |document: &Value| serde_json::from_value::<TrainSpec>(document.clone()).is_ok();
    agree("training", &trainings(), reads, trains);
}

/// One of each variant. A variant that is missing here does not compile in [`is_listed`].
fn layers() -> Vec<LayerSpec> {
    let text = || "a".to_owned();
    let (pair, epsilon) = ([2, 2], 1e-5);
    vec![
        LayerSpec::Dense { units: 1 },
        LayerSpec::Relu {},
        LayerSpec::Gelu {},
        LayerSpec::Tanh {},
        LayerSpec::Sigmoid {},
        LayerSpec::Dropout { rate: 0.5 },
        LayerSpec::Mark { name: text() },
        LayerSpec::Add { with: text() },
        LayerSpec::Concat { with: text() },
        LayerSpec::Conv2d {
            filters: 1,
            kernel: pair,
            stride: pair,
            padding: Padding::Same,
        },
        LayerSpec::MaxPool2d {
            size: pair,
            stride: None,
        },
        LayerSpec::AveragePool2d {
            size: pair,
            stride: Some(pair),
        },
        LayerSpec::GlobalMaxPool2d {},
        LayerSpec::GlobalAveragePool2d {},
        LayerSpec::Flatten {},
        LayerSpec::LayerNorm { epsilon },
        LayerSpec::GroupNorm { groups: 1, epsilon },
        LayerSpec::Upsample2d { factor: 2 },
        LayerSpec::Embedding {
            vocabulary: 2,
            units: 1,
        },
        LayerSpec::Lstm { units: 1 },
        LayerSpec::CifgLstm {
            units: 1,
            projection: None,
        },
        LayerSpec::TiedDense {},
        LayerSpec::External {
            tensors: vec![ExternalTensor {
                name: text(),
                shape: vec![1],
                mean: 0.0,
                spread: 0.0,
            }],
            output: vec![2],
        },
    ]
}

/// Whether `layers()` has to list the layer: not where it is always refused.
const fn is_listed(layer: &LayerSpec) -> bool {
    match layer {
        LayerSpec::BatchNorm { .. } => false,
        LayerSpec::Dense { .. }
        | LayerSpec::Relu {}
        | LayerSpec::Gelu {}
        | LayerSpec::Tanh {}
        | LayerSpec::Sigmoid {}
        | LayerSpec::Dropout { .. }
        | LayerSpec::Mark { .. }
        | LayerSpec::Add { .. }
        | LayerSpec::Concat { .. }
        | LayerSpec::Conv2d { .. }
        | LayerSpec::MaxPool2d { .. }
        | LayerSpec::AveragePool2d { .. }
        | LayerSpec::GlobalMaxPool2d {}
        | LayerSpec::GlobalAveragePool2d {}
        | LayerSpec::Flatten {}
        | LayerSpec::LayerNorm { .. }
        | LayerSpec::GroupNorm { .. }
        | LayerSpec::Upsample2d { .. }
        | LayerSpec::Embedding { .. }
        | LayerSpec::Lstm { .. }
        | LayerSpec::CifgLstm { .. }
        | LayerSpec::TiedDense {}
        | LayerSpec::External { .. } => true,
    }
}

/// Every `const` and every member of an `enum` below a `type` property: the kinds that a part of the schema names.
fn kinds(part: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("../../model.schema.json")).unwrap();
    let alternatives = schema["$defs"][part]["oneOf"].as_array().unwrap();
    let mut kinds: Vec<String> = alternatives
        .iter()
        .flat_map(|alternative| match &alternative["properties"]["type"] {
            kind if kind["const"].is_string() => vec![kind["const"].clone()],
            kind => kind["enum"].as_array().unwrap().clone(),
        })
        .map(|kind| kind.as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn the_schema_names_every_layer_and_no_other_and_takes_what_is_written() {
    let schema = schema("layer");
    let layers = layers();
    let mut expected: Vec<&str> = layers.iter().map(LayerSpec::kind).collect();
    expected.sort_unstable();
    assert_eq!(kinds("layer"), expected);
    for layer in &layers {
        assert!(is_listed(layer));
        let written = serde_json::to_value(layer).unwrap();
        assert!(schema.is_valid(&written), "{written}");
        assert_eq!(&serde_json::from_value::<LayerSpec>(written).unwrap(), layer);
    }
    let refused = LayerSpec::BatchNorm {
        epsilon: None,
        momentum: None,
    };
    assert!(!is_listed(&refused) && !schema.is_valid(&serde_json::to_value(&refused).unwrap()));
}

#[test]
fn the_schema_names_every_optimizer_schedule_and_loss() {
    let optimizers = [
        OptimizerSpec::sgd(0.1),
        OptimizerSpec::adam(0.1),
        OptimizerSpec::adagrad(0.1),
    ];
    let kind = |value: Value| value["type"].as_str().unwrap().to_owned();
    let mut named = optimizers.map(|optimizer| {
        match optimizer {
            // A new one does not compile here, until it is in the list.
            OptimizerSpec::Sgd { .. } | OptimizerSpec::Adam { .. } | OptimizerSpec::Adagrad { .. } => {}
        }
        let written = serde_json::to_value(&optimizer).unwrap();
        assert_eq!(
            serde_json::from_value::<OptimizerSpec>(written.clone()).unwrap(),
            optimizer
        );
        kind(written)
    });
    named.sort();
    assert_eq!(kinds("optimizer"), named);
    let every = std::num::NonZeroU32::MIN;
    let schedules = [
        ScheduleSpec::Constant,
        ScheduleSpec::Linear { end: 0.0 },
        ScheduleSpec::Cosine { end: 0.0 },
        ScheduleSpec::Step { every, factor: 0.5 },
    ];
    let mut named = schedules.map(|schedule| {
        match schedule {
            ScheduleSpec::Constant
            | ScheduleSpec::Linear { .. }
            | ScheduleSpec::Cosine { .. }
            | ScheduleSpec::Step { .. } => {}
        }
        kind(serde_json::to_value(schedule).unwrap())
    });
    named.sort();
    assert_eq!(kinds("schedule"), named);
    let schema: Value = serde_json::from_str(include_str!("../../model.schema.json")).unwrap();
    let losses = [
        LossSpec::SoftmaxCrossEntropy,
        LossSpec::SigmoidCrossEntropy,
        LossSpec::MeanSquaredError,
    ];
    let named = losses.map(|loss| match loss {
        LossSpec::SoftmaxCrossEntropy | LossSpec::SigmoidCrossEntropy | LossSpec::MeanSquaredError => {
            loss.kind()
        }
    });
    assert_eq!(
        schema["$defs"]["model"]["properties"]["loss"]["enum"],
        json!(named)
    );
}

/// The networks of the benchmark, built in Rust: what is written of them is valid, and reads back as the same.
#[test]
fn what_the_builder_makes_is_valid_and_reads_back_as_the_same() {
    let classifier = |input: &[usize]| ModelSpec::of(input);
    let same = Padding::Same;
    let built = [
        classifier(&[784]).dense(10),
        classifier(&[784]).dense(128).relu().dense(64).relu().dense(10),
        classifier(&[784]).dense(200).relu().dense(200).relu().dense(10),
        classifier(&[28, 28, 1])
            .conv2d(8, [3, 3], same)
            .relu()
            .max_pool2d([2, 2])
            .conv2d(16, [3, 3], same)
            .relu()
            .max_pool2d([2, 2])
            .flatten()
            .dense(10),
        classifier(&[28, 28, 1])
            .conv2d(32, [5, 5], same)
            .relu()
            .max_pool2d([2, 2])
            .conv2d(64, [5, 5], same)
            .relu()
            .max_pool2d([2, 2])
            .flatten()
            .dense(512)
            .relu()
            .dense(10),
        classifier(&[20])
            .embedding(2000, 96)
            .lstm(256)
            .dense(96)
            .tied_dense(),
        // And every layer that those have not.
        classifier(&[8, 8, 4])
            .mark("here")
            .group_norm(2)
            .gelu()
            .tanh()
            .sigmoid()
            .dropout(0.1)
            .add("here")
            .layer_norm()
            .average_pool2d([2, 2])
            .upsample2d(2)
            .concat("here")
            .global_max_pool2d()
            .dense(3),
        classifier(&[8, 8, 4]).global_average_pool2d(),
        classifier(&[9])
            .embedding(7, 4)
            .cifg_lstm(6, Some(4))
            .tied_dense(),
    ]
    .map(|layers| layers.loss(LossSpec::SoftmaxCrossEntropy));
    let schema = schema("model");
    for spec in built {
        Model::new(&spec).unwrap();
        let written = serde_json::to_value(&spec).unwrap();
        assert!(schema.is_valid(&written), "{written}");
        assert_eq!(serde_json::from_value::<ModelSpec>(written).unwrap(), spec);
    }
}

/// Every JSON block of MODELS.md is a model or a training that works.
#[test]
fn the_examples_of_the_documentation_are_valid() {
    let (models, trainings) = (schema("model"), schema("training"));
    let blocks = include_str!("../../MODELS.md").split("```json").skip(1);
    let blocks: Vec<Value> = blocks
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
        .collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let works = if block["layers"].is_null() {
            trainings.is_valid(&block) && serde_json::from_value::<TrainSpec>(block.clone()).is_ok()
        } else {
            models.is_valid(&block) && builds(&block)
        };
        assert!(works, "{block}");
    }
}
