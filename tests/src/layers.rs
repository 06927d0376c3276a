//! Every layer in a small model: what it is checked with on every device.

mod images;
mod sequences;

use unsaid_engine::{Device, Examples, LossSpec, Model, ModelSpec, TrainSpec, Unobserved, train};

use crate::noise;

/// A model, and how many examples it is checked with.
#[derive(Debug)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The model.
    pub spec: ModelSpec,
    /// Examples in the batch.
    pub rows: usize,
    /// Token ids below this as features; 0 for numbers in [−1, 1).
    pub vocabulary: usize,
}

fn case(name: &'static str, rows: usize, vocabulary: usize, spec: serde_json::Value) -> Case {
    Case {
        name,
        spec: serde_json::from_value(spec).unwrap(),
        rows,
        vocabulary,
    }
}

/// One case or more for each layer and loss: sizes of 1, primes, and just beside a tile.
pub fn cases() -> Vec<Case> {
    use serde_json::json;
    let ce = "softmax-cross-entropy";
    let mut cases = vec![
        case(
            "dense, smallest",
            1,
            0,
            json!({"input": [1], "layers": [{"type": "dense", "units": 2}], "loss": ce}),
        ),
        case(
            "dense, primes",
            7,
            0,
            json!({"input": [13], "layers": [{"type": "dense", "units": 11}, {"type": "relu"}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "dense, beside a tile",
            33,
            0,
            json!({"input": [31], "layers": [{"type": "dense", "units": 65}, {"type": "relu"}, {"type": "dense", "units": 10}], "loss": ce}),
        ),
        case(
            "dense, multiples of four",
            9,
            0,
            json!({"input": [4], "layers": [{"type": "dense", "units": 8}, {"type": "relu"}, {"type": "dense", "units": 76}, {"type": "relu"}, {"type": "dense", "units": 12}], "loss": ce}),
        ),
        case(
            "dense over a sequence, multiples of four",
            5,
            0,
            json!({"input": [3, 12], "layers": [{"type": "dense", "units": 4}, {"type": "relu"}, {"type": "dense", "units": 20}], "loss": ce}),
        ),
        case(
            "dense over a sequence",
            3,
            0,
            json!({"input": [5, 4], "layers": [{"type": "dense", "units": 6}, {"type": "relu"}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "relu of the data",
            5,
            0,
            json!({"input": [6], "layers": [{"type": "relu"}, {"type": "dense", "units": 4}], "loss": ce}),
        ),
        case(
            "gelu, tanh, sigmoid",
            5,
            0,
            json!({"input": [6], "layers": [{"type": "dense", "units": 7}, {"type": "gelu"}, {"type": "dense", "units": 65}, {"type": "tanh"}, {"type": "dense", "units": 5}, {"type": "sigmoid"}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "residual branches, one value read three times, a rectifier of a marked value",
            5,
            0,
            json!({"input": [6], "layers": [
                {"type": "dense", "units": 7}, {"type": "mark", "name": "a"}, {"type": "relu"},
                {"type": "dense", "units": 7}, {"type": "add", "with": "a"}, {"type": "mark", "name": "b"},
                {"type": "dense", "units": 7}, {"type": "tanh"}, {"type": "add", "with": "a"}, {"type": "add", "with": "b"},
                {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "a value added to itself",
            3,
            0,
            json!({"input": [4], "layers": [
                {"type": "dense", "units": 5}, {"type": "mark", "name": "a"}, {"type": "add", "with": "a"},
                {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "concatenation with the data, over positions",
            3,
            0,
            json!({"input": [5, 4], "layers": [
                {"type": "mark", "name": "data"}, {"type": "dense", "units": 3}, {"type": "tanh"},
                {"type": "mark", "name": "a"}, {"type": "dense", "units": 2}, {"type": "concat", "with": "a"},
                {"type": "concat", "with": "data"}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "sums and a concatenation, one value read three times, beside a tile",
            3,
            0,
            json!({"input": [3], "layers": [
                {"type": "dense", "units": 65}, {"type": "mark", "name": "a"}, {"type": "tanh"},
                {"type": "dense", "units": 65}, {"type": "add", "with": "a"}, {"type": "concat", "with": "a"},
                {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "mean squared error",
            7,
            0,
            json!({"input": [6], "layers": [{"type": "dense", "units": 70}, {"type": "relu"}, {"type": "dense", "units": 67}], "loss": "mean-squared-error"}),
        ),
        case(
            "sigmoid cross-entropy",
            7,
            0,
            json!({"input": [6], "layers": [{"type": "dense", "units": 9}, {"type": "relu"}, {"type": "dense", "units": 4}], "loss": "sigmoid-cross-entropy"}),
        ),
    ];
    cases.extend(images::cases());
    cases.extend(sequences::cases());
    cases
}

impl Case {
    /// The model, parameters that are all away from zero, and examples.
    pub fn problem(&self) -> (Model, Vec<f32>, Examples) {
        let model = Model::new(&self.spec).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let mut parameters = model.initial_parameters(self.rows as u64);
        for (value, more) in parameters.iter_mut().zip(noise(9, model.parameter_count())) {
            *value += 0.1 * more;
        }
        let features = model.features();
        let mut x = noise(5, self.rows * features);
        if self.vocabulary > 0 {
            for value in &mut x {
                *value = below(*value, self.vocabulary) as f32;
            }
        }
        let outputs = model.output_shape();
        let examples = match self.spec.loss {
            LossSpec::SoftmaxCrossEntropy => {
                let classes = outputs[outputs.len() - 1];
                let positions: usize = outputs[..outputs.len() - 1].iter().product();
                let labels = noise(3, self.rows * positions);
                let mut labels: Vec<u32> = labels.iter().map(|&v| below(v, classes)).collect();
                if positions > 2 {
                    // The last two positions of every second example are padding.
                    for row in labels.chunks_exact_mut(positions).step_by(2) {
                        row[positions - 2..].fill(unsaid_engine::PADDING);
                    }
                }
                Examples::sequences(x, labels, features, positions, classes)
            }
            _ => {
                let targets: usize = outputs.iter().product();
                let values: Vec<f32> = noise(3, self.rows * targets)
                    .iter()
                    .map(|v| (v + 1.0) / 2.0)
                    .collect();
                Examples::with_values(x, &values, features, targets)
            }
        };
        (model, parameters, examples.unwrap())
    }
}

/// A number in [−1, 1) as a whole number below `bound`.
fn below(value: f32, bound: usize) -> u32 {
    (((value + 1.0) / 2.0 * bound as f32) as u32).min(bound as u32 - 1)
}

/// How much the gradients of `model` over `rows` examples may be off, as a share of the largest: a chain of dot products of `terms`
/// numbers rounds to within `terms · 2⁻²⁴` of the sum of magnitudes (Higham 2002, section 3.1), for which 8 × the largest
/// gradient stands, once for every layer forward and backward.
pub fn tolerance(model: &Model, rows: usize) -> f64 {
    let layers = model.spec().layers.len() as f64;
    let widest = model
        .layout()
        .tensors()
        .iter()
        .flat_map(|tensor| &tensor.shape)
        .max()
        .copied()
        .unwrap_or(1);
    let positions = model.output_shape().iter().product::<usize>();
    let terms = (rows * positions + widest + model.features()) as f64;
    8.0 * (layers + 1.0) * terms.sqrt().max(8.0) * 2f64.powi(-24)
}

/// One step of every case on `device` moves every parameter as it does on the CPU.
pub async fn every_layer_agrees_with_the_cpu(device: &Device) {
    for case in cases() {
        moves_like_the_cpu(&case, device, None).await;
    }
}

/// The same with the gradient of each example clipped, to a norm that half of them reach.
pub async fn every_layer_clips_like_the_cpu(device: &Device) {
    for case in cases() {
        let (model, start, examples) = case.problem();
        let (_, _, mut norms) = model
            .loss_and_clipped_gradient(&start, &examples, f32::MAX)
            .unwrap();
        norms.sort_by(f64::total_cmp);
        moves_like_the_cpu(&case, device, Some(norms[norms.len() / 2] as f32)).await;
    }
}

/// One step on `device` and one on the CPU. A clipped example is scaled by its norm, whose square is a sum of products and rounds
/// as one: with clipping the tolerance is twice that without.
async fn moves_like_the_cpu(case: &Case, device: &Device, clip: Option<f32>) {
    let rate = 0.5;
    let (model, start, examples) = case.problem();
    let how = serde_json::json!({
        "epochs": 1, "batch_size": case.rows, "clip_examples_l2": clip, "optimizer": {"type": "sgd", "learning_rate": rate}
    });
    let how: TrainSpec = serde_json::from_value(how).unwrap();
    let mut moved = Vec::new();
    for device in [device, &Device::Cpu] {
        let trained = train(&model, &start, &examples, &how, 3, device, &mut Unobserved).await;
        moved.push(trained.unwrap_or_else(|error| panic!("{}: {error}", case.name)));
    }
    let [here, there] = &moved[..] else { unreachable!() };
    let largest = start
        .iter()
        .zip(&there.parameters)
        .fold(0.0f32, |max, (before, after)| max.max((before - after).abs()));
    assert!(largest > 0.0, "{}: nothing was learned", case.name);
    let largest_weight = there.parameters.iter().fold(0.0f32, |max, w| max.max(w.abs()));
    let share = tolerance(&model, case.rows) as f32 * if clip.is_some() { 2.0 } else { 1.0 };
    // The weight itself is rounded once.
    let tolerance = share * largest + 2f32.powi(-23) * largest_weight;
    for (index, (a, b)) in here.parameters.iter().zip(&there.parameters).enumerate() {
        let error = (a - b).abs();
        assert!(
            error <= tolerance,
            "{}, clipped to {clip:?}: weight {index}: {a} {b}: {error:e} > {tolerance:e}",
            case.name
        );
    }
    let (a, b) = (here.losses[0], there.losses[0]);
    assert!(
        (a - b).abs() <= 1e-5 * b.abs().max(1.0),
        "{}: loss {a} {b}",
        case.name
    );
}

/// Two layers share a table: freezing what one of them has besides changes nothing about the step that the table takes.
pub async fn a_tied_table_learns_from_both_of_its_layers(device: &Device) {
    let case = sequences::tied();
    let (model, start, examples) = case.problem();
    let table = model.layout().tensors()[0].range();
    let mut moved = Vec::new();
    for freeze in [vec![], vec![format!("layers.{}", case.spec.layers.len() - 1)]] {
        let how = serde_json::json!({
            "epochs": 1, "batch_size": case.rows, "optimizer": {"type": "sgd", "learning_rate": 0.5}, "freeze": freeze
        });
        let how: TrainSpec = serde_json::from_value(how).unwrap();
        let trained = train(&model, &start, &examples, &how, 3, device, &mut Unobserved).await;
        moved.push(trained.unwrap().parameters[table.clone()].to_vec());
    }
    assert_eq!(moved[0], moved[1]);
    assert_ne!(moved[0], start[table]);
}
