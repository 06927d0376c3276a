//! The dense layer, the rectifier and the loss against two independent references: dfdx in f64, and finite differences. (dfdx has
//! convolutions and pools for nightly compilers only; those are checked by finite differences, with all other layers, in `unsaid-tests`.)
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use dfdx::{prelude::*, tensor::Cpu};
use unsaid_engine::{Examples, LayerSpec, LossSpec, Model, ModelSpec};

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

struct Case {
    rows: usize,
    inputs: usize,
    hidden: usize,
    classes: usize,
}

/// 1, primes, powers of two, and sizes just beside a tile.
const CASES: [Case; 6] = [
    Case {
        rows: 1,
        inputs: 1,
        hidden: 1,
        classes: 2,
    },
    Case {
        rows: 2,
        inputs: 3,
        hidden: 5,
        classes: 7,
    },
    Case {
        rows: 7,
        inputs: 13,
        hidden: 11,
        classes: 3,
    },
    Case {
        rows: 16,
        inputs: 32,
        hidden: 8,
        classes: 4,
    },
    Case {
        rows: 33,
        inputs: 31,
        hidden: 65,
        classes: 10,
    },
    Case {
        rows: 64,
        inputs: 784,
        hidden: 128,
        classes: 10,
    },
];

fn setup(case: &Case) -> (Model, Vec<f32>, Examples) {
    let &Case {
        rows,
        inputs,
        hidden,
        classes,
    } = case;
    let layers = vec![
        LayerSpec::Dense { units: hidden },
        LayerSpec::Relu {},
        LayerSpec::Dense { units: classes },
    ];
    let spec = ModelSpec {
        input: vec![inputs],
        layers,
        loss: LossSpec::SoftmaxCrossEntropy,
    };
    let model = Model::new(&spec).unwrap();
    let mut parameters = model.initial_parameters(rows as u64);
    for (bias, value) in parameters.iter_mut().zip(noise(9, model.parameter_count())) {
        *bias += 0.1 * value; // biases too must be away from zero
    }
    let labels = noise(3, rows)
        .into_iter()
        .map(|v| ((v + 1.0) / 2.0 * classes as f32) as u32 % classes as u32);
    let examples = Examples::new(noise(5, rows * inputs), labels.collect(), inputs, classes).unwrap();
    (model, parameters, examples)
}

/// The same network written with dfdx in f64: loss and flat gradient.
fn dfdx_loss_and_gradient(case: &Case, parameters: &[f32], examples: &Examples) -> (f64, Vec<f64>) {
    let &Case {
        rows,
        inputs,
        hidden,
        classes,
    } = case;
    let device = Cpu::default();
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let sizes = [inputs * hidden, hidden, hidden * classes, classes];
    let mut parts = Vec::new();
    let mut rest = parameters;
    for size in sizes {
        let (part, left) = rest.split_at(size);
        parts.push(wide(part));
        rest = left;
    }
    let [w1, b1, w2, b2]: [Vec<f64>; 4] = parts.try_into().unwrap();
    let w1 = device.tensor_from_vec(w1, (inputs, hidden));
    let b1 = device.tensor_from_vec(b1, (hidden,));
    let w2 = device.tensor_from_vec(w2, (hidden, classes));
    let b2 = device.tensor_from_vec(b2, (classes,));
    let x = device.tensor_from_vec(wide(examples.x()), (rows, inputs));
    let mut one_hot = vec![0.0; rows * classes];
    for (row, &label) in examples.y().iter().enumerate() {
        one_hot[row * classes + label as usize] = 1.0;
    }
    let target = device.tensor_from_vec(one_hot, (rows, classes));
    let hidden_values = (x.leaky_traced().matmul(w1.clone())
        + b1.clone().broadcast_like::<_, Axis<0>>(&(rows, hidden)))
    .relu();
    let logits = hidden_values.matmul(w2.clone()) + b2.clone().broadcast_like::<_, Axis<0>>(&(rows, classes));
    let loss = cross_entropy_with_logits_loss(logits, target);
    let value = loss.array();
    let gradients = loss.backward();
    let gradient = [
        gradients.get(&w1).as_vec(),
        gradients.get(&b1).as_vec(),
        gradients.get(&w2).as_vec(),
        gradients.get(&b2).as_vec(),
    ]
    .concat();
    (value, gradient)
}

/// Rounding error of a chain of dot products of `terms` numbers is at most `terms · 2⁻²⁴` relative to the sum of magnitudes
/// (Higham 2002, section 3.1). The largest gradient stands for that sum; 4 covers the two layers, forward and backward.
fn tolerance(case: &Case, gradient: &[f64]) -> f64 {
    let terms = (case.inputs + case.hidden + case.rows + case.classes) as f64;
    let largest = gradient.iter().fold(0.0f64, |max, g| max.max(g.abs()));
    4.0 * terms * 2f64.powi(-24) * largest.max(1e-3)
}

#[test]
fn loss_and_gradients_agree_with_dfdx_in_f64() {
    for case in &CASES {
        let (model, parameters, examples) = setup(case);
        let (loss, gradient) = model.loss_and_gradient(&parameters, &examples).unwrap();
        let (expected_loss, expected) = dfdx_loss_and_gradient(case, &parameters, &examples);
        let tolerance = tolerance(case, &expected);
        assert!(
            (f64::from(loss) - expected_loss).abs() <= 1e-5 * expected_loss.max(1.0),
            "{loss} {expected_loss}"
        );
        for (index, (&found, &expected)) in gradient.iter().zip(&expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(
                error <= tolerance,
                "gradient {index} of {}×{}: {error:e} > {tolerance:e}",
                case.rows,
                case.inputs
            );
        }
    }
}

/// The control of the test above: a gradient off by one part in a thousand must be told from rounding.
#[test]
fn the_tolerance_would_notice_an_error_of_one_in_a_thousand() {
    for case in &CASES {
        let (_, parameters, examples) = setup(case);
        let (_, expected) = dfdx_loss_and_gradient(case, &parameters, &examples);
        let largest = expected.iter().fold(0.0f64, |max, g| max.max(g.abs()));
        if largest > 1e-2 {
            assert!(
                largest * 1e-3 > tolerance(case, &expected),
                "{} × {}",
                case.rows,
                case.inputs
            );
        }
    }
}

/// The same network as three plain loops in f64: the loss only.
fn naive_loss(case: &Case, parameters: &[f64], examples: &Examples) -> f64 {
    let &Case {
        inputs,
        hidden,
        classes,
        ..
    } = case;
    let dense = |x: &[f64], start: usize, outputs: usize| -> Vec<f64> {
        let bias = start + x.len() * outputs;
        let output = |o: usize| {
            x.iter().enumerate().fold(parameters[bias + o], |sum, (i, x)| {
                sum + x * parameters[start + i * outputs + o]
            })
        };
        (0..outputs).map(output).collect()
    };
    let rows = examples.x().chunks_exact(inputs).zip(examples.y());
    let losses = rows.map(|(x, &label)| {
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let h: Vec<f64> = dense(&x, 0, hidden).iter().map(|v| v.max(0.0)).collect();
        let z = dense(&h, inputs * hidden + hidden, classes);
        z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[label as usize]
    });
    losses.sum::<f64>() / examples.len() as f64
}

/// Central differences of a reference in f64 with step h = 1e-5: their own error is about 1e-16 · loss / h + h², some 1e-10, so
/// the tolerance is that of rounding in f32, as above.
#[test]
fn gradients_agree_with_finite_differences() {
    for case in &CASES[..5] {
        let (model, parameters, examples) = setup(case);
        let (_, gradient) = model.loss_and_gradient(&parameters, &examples).unwrap();
        let wide: Vec<f64> = gradient.iter().map(|&g| f64::from(g)).collect();
        let tolerance = tolerance(case, &wide) + 1e-8;
        let start: Vec<f64> = parameters.iter().map(|&p| f64::from(p)).collect();
        let step = 1e-5;
        let mut compared = 0;
        let stride = (gradient.len() / 97).max(1);
        let chosen: Vec<usize> = (0..gradient.len()).step_by(stride).collect();
        for &index in &chosen {
            let loss_at = |offset: f64| {
                let mut moved = start.clone();
                moved[index] += offset;
                naive_loss(case, &moved, &examples)
            };
            let (up, down, middle) = (loss_at(step), loss_at(-step), loss_at(0.0));
            // Where a unit switches inside the interval the loss has a corner, and the one-sided slopes differ.
            if ((up - middle) - (middle - down)).abs() / step > 1e-3 {
                continue;
            }
            compared += 1;
            let error = (wide[index] - (up - down) / (2.0 * step)).abs();
            assert!(error <= tolerance, "parameter {index}: {error:e} > {tolerance:e}");
        }
        assert!(
            compared * 10 > chosen.len() * 9,
            "too few parameters were compared: {compared}"
        );
    }
}
