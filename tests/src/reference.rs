//! A model spec evaluated by plain loops in f64, one example at a time: written from the formulas, sharing nothing with the
//! engine but the spec, the order of the tensors and the names of the layers. What the engine's gradients are checked against
//! by finite differences.

mod images;
mod sequences;

use unsaid_engine::{Examples, LayerSpec, LossSpec, ModelSpec, PADDING};

/// A value of one example.
#[derive(Debug, Clone)]
struct Value {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// The parameters not taken yet, in the layout's order, and the embedding's, which a tied layer uses again.
struct Parameters<'a>(&'a [f64], &'a [f64]);

impl<'a> Parameters<'a> {
    fn take(&mut self, len: usize) -> &'a [f64] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }
}

/// The mean loss of `examples`.
pub fn loss(spec: &ModelSpec, parameters: &[f64], examples: &Examples) -> f64 {
    let targets_of = examples.targets_per_example();
    let rows = examples.x().chunks_exact(examples.features());
    let (mut total, mut counted) = (0.0, 0usize);
    for (x, targets) in rows.zip(examples.y().chunks_exact(targets_of)) {
        let output = forward(spec, parameters, x);
        let (loss, count) = example_loss(spec.loss, &output, targets);
        total += loss;
        counted += count;
    }
    total / counted.max(1) as f64
}

/// The output of one example.
fn forward(spec: &ModelSpec, parameters: &[f64], x: &[f32]) -> Value {
    let mut parameters = Parameters(parameters, &[]);
    let mut value = Value {
        shape: spec.input.clone(),
        data: x.iter().map(|&v| f64::from(v)).collect(),
    };
    let mut marks: Vec<(&str, Value)> = Vec::new();
    for layer in &spec.layers {
        let marked = |name: &str| marks.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        match layer {
            LayerSpec::Mark { name } => marks.push((name, value.clone())),
            LayerSpec::Add { with } => {
                let other = marked(with);
                value.data.iter_mut().zip(&other.data).for_each(|(v, o)| *v += o);
            }
            LayerSpec::Concat { with } => value = concat(&value, &marked(with)),
            layer => value = apply(layer, value, &mut parameters),
        }
    }
    assert!(parameters.0.is_empty(), "parameters left over");
    value
}

/// Applies one layer.
fn apply(layer: &LayerSpec, x: Value, parameters: &mut Parameters<'_>) -> Value {
    match *layer {
        LayerSpec::Dense { units } => dense(&x, units, parameters),
        LayerSpec::Relu {} => map(x, |v| if v > 0.0 { v } else { 0.0 }),
        LayerSpec::Gelu {} => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            map(x, |v| {
                0.5 * v * (1.0 + (root * (v + 0.044715 * v.powi(3))).tanh())
            })
        }
        LayerSpec::Tanh {} => map(x, f64::tanh),
        LayerSpec::Sigmoid {} => map(x, |v| 1.0 / (1.0 + (-v).exp())),
        _ => sequences::apply(layer, x, parameters),
    }
}

fn concat(x: &Value, other: &Value) -> Value {
    let (m, n) = (*x.shape.last().unwrap(), *other.shape.last().unwrap());
    let pairs = x.data.chunks_exact(m).zip(other.data.chunks_exact(n));
    let mut shape = x.shape.clone();
    *shape.last_mut().unwrap() = m + n;
    Value {
        shape,
        data: pairs.flat_map(|(a, b)| [a, b].concat()).collect(),
    }
}

fn map(mut x: Value, f: impl Fn(f64) -> f64) -> Value {
    x.data.iter_mut().for_each(|v| *v = f(*v));
    x
}

fn dense(x: &Value, units: usize, parameters: &mut Parameters<'_>) -> Value {
    let inputs = *x.shape.last().unwrap();
    let kernel = parameters.take(inputs * units);
    let bias = parameters.take(units);
    let mut data = Vec::new();
    for row in x.data.chunks_exact(inputs) {
        for o in 0..units {
            let sum: f64 = (0..inputs).map(|i| row[i] * kernel[i * units + o]).sum();
            data.push(sum + bias[o]);
        }
    }
    let mut shape = x.shape.clone();
    *shape.last_mut().unwrap() = units;
    Value { shape, data }
}

/// The sum of the losses of an example, and how many were summed.
fn example_loss(loss: LossSpec, output: &Value, targets: &[u32]) -> (f64, usize) {
    match loss {
        LossSpec::SoftmaxCrossEntropy => {
            let classes = *output.shape.last().unwrap();
            let (mut total, mut counted) = (0.0, 0);
            for (row, &label) in output.data.chunks_exact(classes).zip(targets) {
                if label != PADDING {
                    total += row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[label as usize];
                    counted += 1;
                }
            }
            (total, counted)
        }
        LossSpec::MeanSquaredError | LossSpec::SigmoidCrossEntropy => {
            let losses = output.data.iter().zip(targets).map(|(&z, &bits)| {
                let t = f64::from(f32::from_bits(bits));
                if loss == LossSpec::MeanSquaredError {
                    (z - t).powi(2)
                } else {
                    let p = 1.0 / (1.0 + (-z).exp());
                    -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())
                }
            });
            (losses.sum(), targets.len())
        }
        other => panic!("the reference does not know {other:?}"),
    }
}
