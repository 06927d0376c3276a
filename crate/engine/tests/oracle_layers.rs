//! Every other layer and loss that dfdx has on a stable compiler, against dfdx in f64: activations, layer normalisation,
//! embedding, and the losses against numbers. (Its convolutions and pools need a nightly compiler, and it has no LSTM and no group
//! normalisation; those are checked by finite differences of an independent reference, with all layers, in `unsaid-tests`.)
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use dfdx::{prelude::*, tensor::Cpu};
use unsaid_engine::{Examples, LossSpec, Model, ModelBuilder, ModelSpec};

type Traced = Tensor<(usize, usize), f64, Cpu, OwnedTape<f64, Cpu>>;
type Plain<S> = Tensor<S, f64, Cpu>;

/// Numbers that look random but are the same everywhere, in [−1, 1).
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// What lies between the two dense layers.
#[derive(Debug, Clone, Copy)]
enum Between {
    Relu,
    Gelu,
    Tanh,
    Sigmoid,
    LayerNorm,
}

/// Rows, inputs, hidden units, outputs: 1, primes, and sizes beside a tile. (Layer normalisation of one number is always 0.)
const SIZES: [[usize; 4]; 4] = [[1, 1, 2, 2], [3, 5, 7, 2], [17, 13, 31, 5], [33, 64, 65, 10]];

/// The tensors of a flat vector, one after another.
struct Rest<'a>(&'a [f32]);

impl Rest<'_> {
    fn take<S: Shape>(&mut self, device: &Cpu, shape: S) -> Plain<S> {
        let (own, rest) = self.0.split_at(shape.num_elements());
        self.0 = rest;
        device.tensor_from_vec(wide(own), shape)
    }
}

fn dense(x: Traced, kernel: &Plain<(usize, usize)>, bias: &Plain<(usize,)>) -> Traced {
    let rows = x.shape().0;
    let outputs = kernel.shape().1;
    x.matmul(kernel.clone()) + bias.clone().broadcast_like::<_, Axis<0>>(&(rows, outputs))
}

fn loss_of(
    outputs: Traced,
    target: Plain<(usize, usize)>,
    loss: LossSpec,
) -> Tensor<Rank0, f64, Cpu, OwnedTape<f64, Cpu>> {
    match loss {
        LossSpec::SoftmaxCrossEntropy => cross_entropy_with_logits_loss(outputs, target),
        LossSpec::SigmoidCrossEntropy => binary_cross_entropy_with_logits_loss(outputs, target),
        LossSpec::MeanSquaredError => mse_loss(outputs, target),
        other => panic!("{other:?} is unknown here"),
    }
}

/// Examples with random targets, and the same targets as dfdx wants them: one-hot, or numbers from 0 to 1.
fn examples(rows: usize, inputs: usize, outputs: usize, loss: LossSpec) -> (Examples, Vec<f64>) {
    let x = noise(5, rows * inputs);
    if loss == LossSpec::SoftmaxCrossEntropy {
        let labels: Vec<u32> = noise(3, rows)
            .iter()
            .map(|v| ((v + 1.0) / 2.0 * outputs as f32) as u32 % outputs as u32)
            .collect();
        let mut one_hot = vec![0.0; rows * outputs];
        for (row, &label) in labels.iter().enumerate() {
            one_hot[row * outputs + label as usize] = 1.0;
        }
        return (Examples::new(x, labels, inputs, outputs).unwrap(), one_hot);
    }
    let values: Vec<f32> = noise(3, rows * outputs).iter().map(|v| (v + 1.0) / 2.0).collect();
    let examples = Examples::with_values(x, &values, inputs, outputs).unwrap();
    (examples, wide(&values))
}

fn with(builder: ModelBuilder, between: Between) -> ModelBuilder {
    match between {
        Between::Relu => builder.relu(),
        Between::Gelu => builder.gelu(),
        Between::Tanh => builder.tanh(),
        Between::Sigmoid => builder.sigmoid(),
        Between::LayerNorm => builder.layer_norm(),
    }
}

fn model(
    inputs: usize,
    hidden: usize,
    outputs: usize,
    between: Between,
    loss: LossSpec,
) -> (Model, Vec<f32>) {
    let spec = with(ModelSpec::of([inputs]).dense(hidden), between)
        .dense(outputs)
        .loss(loss);
    let model = Model::new(&spec).unwrap();
    let mut parameters = model.initial_parameters(7);
    // Biases, scales and offsets away from where they start.
    let offsets = noise(9, parameters.len());
    parameters
        .iter_mut()
        .zip(offsets)
        .for_each(|(p, n)| *p += 0.2 * n);
    (model, parameters)
}

/// Loss and flat gradient of the same network in dfdx.
fn dfdx_gradient(
    [rows, inputs, hidden, outputs]: [usize; 4],
    between: Between,
    loss: LossSpec,
    parameters: &[f32],
    x: &[f32],
    target: Vec<f64>,
) -> (f64, Vec<f64>) {
    let device = Cpu::default();
    let mut rest = Rest(parameters);
    let (w1, b1) = (
        rest.take(&device, (inputs, hidden)),
        rest.take(&device, (hidden,)),
    );
    let norm = matches!(between, Between::LayerNorm)
        .then(|| (rest.take(&device, (hidden,)), rest.take(&device, (hidden,))));
    let (w2, b2) = (
        rest.take(&device, (hidden, outputs)),
        rest.take(&device, (outputs,)),
    );
    let x = device.tensor_from_vec(wide(x), (rows, inputs));
    let h = dense(x.leaky_traced(), &w1, &b1);
    let h = match between {
        Between::Relu => h.relu(),
        Between::Gelu => h.fast_gelu(),
        Between::Tanh => h.tanh(),
        Between::Sigmoid => h.sigmoid(),
        Between::LayerNorm => {
            let (scale, offset) = norm.clone().unwrap();
            let all = (rows, hidden);
            h.normalize::<Axis<1>>(1e-5) * scale.broadcast_like::<_, Axis<0>>(&all)
                + offset.broadcast_like::<_, Axis<0>>(&all)
        }
    };
    let outputs = dense(h, &w2, &b2);
    let target = device.tensor_from_vec(target, *outputs.shape());
    let loss = loss_of(outputs, target, loss);
    let value = loss.array();
    let gradients = loss.backward();
    let mut flat = [gradients.get(&w1).as_vec(), gradients.get(&b1).as_vec()].concat();
    if let Some((scale, offset)) = &norm {
        flat.extend([gradients.get(scale).as_vec(), gradients.get(offset).as_vec()].concat());
    }
    flat.extend([gradients.get(&w2).as_vec(), gradients.get(&b2).as_vec()].concat());
    (value, flat)
}

/// Rounding of a chain of sums of `terms` numbers is at most `terms · 2⁻²⁴` of the sum of magnitudes (Higham 2002, section 3.1),
/// for which the largest gradient stands; 8 covers two layers and what lies between, forward and backward. Layer normalisation
/// divides by the deviation of its input, which for few numbers may be small: there its rounding is larger by that factor.
fn tolerance(terms: usize, gradient: &[f64], between: Between) -> f64 {
    let largest = gradient.iter().fold(0.0f64, |max, g| max.max(g.abs()));
    let amplified = if matches!(between, Between::LayerNorm) {
        8.0
    } else {
        1.0
    };
    amplified * 8.0 * terms as f64 * 2f64.powi(-24) * largest.max(1e-3)
}

fn compare(what: &str, found: (f32, &[f32]), expected: (f64, &[f64]), tolerance: f64) {
    assert!(
        (f64::from(found.0) - expected.0).abs() <= 1e-5 * expected.0.max(1.0),
        "{what}: {} {}",
        found.0,
        expected.0
    );
    assert_eq!(found.1.len(), expected.1.len(), "{what}");
    for (index, (&found, &expected)) in found.1.iter().zip(expected.1).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= tolerance,
            "{what}: gradient {index}: {found} {expected}: {error:e} > {tolerance:e}"
        );
    }
}

#[test]
fn activations_and_layer_norm_agree_with_dfdx_in_f64_under_every_loss() {
    let losses = [
        LossSpec::SoftmaxCrossEntropy,
        LossSpec::SigmoidCrossEntropy,
        LossSpec::MeanSquaredError,
    ];
    for between in [
        Between::Relu,
        Between::Gelu,
        Between::Tanh,
        Between::Sigmoid,
        Between::LayerNorm,
    ] {
        for loss in losses {
            for size @ [rows, inputs, hidden, outputs] in SIZES {
                let (model, parameters) = model(inputs, hidden, outputs, between, loss);
                let (examples, target) = examples(rows, inputs, outputs, loss);
                let (found, gradient) = model.loss_and_gradient(&parameters, &examples).unwrap();
                let (expected, wanted) =
                    dfdx_gradient(size, between, loss, &parameters, examples.x(), target);
                let tolerance = tolerance(rows + inputs + hidden + outputs, &wanted, between);
                compare(
                    &format!("{between:?} {loss:?} {size:?}"),
                    (found, &gradient),
                    (expected, &wanted),
                    tolerance,
                );
            }
        }
    }
}

/// The control of the test above: an error of one part in a thousand is told from rounding in most cases.
#[test]
fn an_error_of_one_in_a_thousand_would_be_noticed() {
    for between in [Between::Gelu, Between::LayerNorm] {
        let loss = LossSpec::SoftmaxCrossEntropy;
        let size @ [rows, inputs, hidden, outputs] = SIZES[2];
        let (_, parameters) = model(inputs, hidden, outputs, between, loss);
        let (examples, target) = examples(rows, inputs, outputs, loss);
        let (_, wanted) = dfdx_gradient(size, between, loss, &parameters, examples.x(), target);
        let largest = wanted.iter().fold(0.0f64, |max, g| max.max(g.abs()));
        assert!(
            largest * 1e-3 > tolerance(rows + inputs + hidden + outputs, &wanted, between),
            "{between:?}"
        );
    }
}

/// Tokens that come more than once add up in the table's gradient.
#[test]
fn an_embedding_agrees_with_dfdx_in_f64() {
    for [rows, time, vocabulary, units] in [[1, 1, 2, 1], [3, 5, 4, 7], [8, 11, 50, 16]] {
        let classes = 6;
        let spec = ModelSpec::of([time])
            .embedding(vocabulary, units)
            .dense(classes)
            .loss(LossSpec::SoftmaxCrossEntropy);
        let model = Model::new(&spec).unwrap();
        let parameters = model.initial_parameters(3);
        let pick = |seed, len: usize, of: usize| -> Vec<usize> {
            noise(seed, len)
                .iter()
                .map(|v| ((v + 1.0) / 2.0 * of as f32) as usize % of)
                .collect()
        };
        let tokens = pick(11, rows * time, vocabulary);
        let labels = pick(12, rows * time, classes);
        let examples = Examples::sequences(
            tokens.iter().map(|&token| token as f32).collect(),
            labels.iter().map(|&label| label as u32).collect(),
            time,
            time,
            classes,
        )
        .unwrap();
        let (found, gradient) = model.loss_and_gradient(&parameters, &examples).unwrap();

        let device = Cpu::default();
        let mut rest = Rest(&parameters);
        let table = rest.take(&device, (vocabulary, units));
        let (kernel, bias) = (
            rest.take(&device, (units, classes)),
            rest.take(&device, (classes,)),
        );
        let positions = rows * time;
        let mut one_hot = vec![0.0; positions * classes];
        labels
            .iter()
            .enumerate()
            .for_each(|(at, &label)| one_hot[at * classes + label] = 1.0);
        let indices: Tensor<(usize,), usize, Cpu> = device.tensor_from_vec(tokens, (positions,));
        let outputs = dense(table.leaky_trace().gather(indices), &kernel, &bias);
        let loss =
            cross_entropy_with_logits_loss(outputs, device.tensor_from_vec(one_hot, (positions, classes)));
        let expected = loss.array();
        let gradients = loss.backward();
        let wanted = [
            gradients.get(&table).as_vec(),
            gradients.get(&kernel).as_vec(),
            gradients.get(&bias).as_vec(),
        ]
        .concat();
        let tolerance = tolerance(positions + units + classes, &wanted, Between::Relu);
        compare(
            &format!("embedding of {vocabulary}"),
            (found, &gradient),
            (expected, &wanted),
            tolerance,
        );
    }
}
