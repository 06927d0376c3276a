//! Layers of tokens and sequences, `[time]` and `[time, features]`.

use unsaid_engine::LayerSpec;

use super::{Parameters, Value};

/// Applies one layer of sequences; any other is given to `images`.
pub(super) fn apply(layer: &LayerSpec, x: Value, parameters: &mut Parameters<'_>) -> Value {
    match *layer {
        LayerSpec::Embedding { vocabulary, units } => {
            let table = parameters.take(vocabulary * units);
            parameters.1 = table;
            let rows = x
                .data
                .iter()
                .map(|&token| &table[token as usize * units..][..units]);
            Value {
                data: rows.flatten().copied().collect(),
                shape: vec![x.shape[0], units],
            }
        }
        LayerSpec::Lstm { units } => memory(&x, units, None, "ifgo", parameters),
        LayerSpec::CifgLstm { units, projection } => memory(&x, units, projection, "fgo", parameters),
        LayerSpec::TiedDense {} => {
            let units = *x.shape.last().unwrap();
            let bias = parameters.take(parameters.1.len() / units);
            let mut data = Vec::new();
            for row in x.data.chunks_exact(units) {
                for (vector, b) in parameters.1.chunks_exact(units).zip(bias) {
                    data.push(b + row.iter().zip(vector).map(|(a, b)| a * b).sum::<f64>());
                }
            }
            let mut shape = x.shape;
            *shape.last_mut().unwrap() = bias.len();
            Value { shape, data }
        }
        _ => super::images::apply(layer, x, parameters),
    }
}

/// Long short-term memory. `order` names the gates, as they lie side by side in the kernels; where there is no `i`, the input
/// gate is what the forget gate leaves.
fn memory(
    x: &Value,
    units: usize,
    projection: Option<usize>,
    order: &str,
    parameters: &mut Parameters<'_>,
) -> Value {
    let [time, features] = x.shape[..] else {
        panic!("not a sequence")
    };
    let outputs = projection.unwrap_or(units);
    let width = order.len() * units;
    let recurrent = parameters.take(outputs * width);
    let project = projection.map(|outputs| parameters.take(units * outputs));
    let kernel = parameters.take(features * width);
    let bias = parameters.take(width);
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let (mut h, mut c) = (vec![0.0; outputs], vec![0.0; units]);
    let mut data = Vec::new();
    for now in x.data.chunks_exact(features) {
        let z = |gate: char, unit: usize| {
            let column = order.find(gate).unwrap() * units + unit;
            let mut sum = bias[column];
            for (j, v) in now.iter().enumerate() {
                sum += v * kernel[j * width + column];
            }
            for (j, v) in h.iter().enumerate() {
                sum += v * recurrent[j * width + column];
            }
            sum
        };
        let mut hidden = Vec::new();
        for (unit, c) in c.iter_mut().enumerate() {
            let forget = sigmoid(z('f', unit));
            let input = if order.contains('i') {
                sigmoid(z('i', unit))
            } else {
                1.0 - forget
            };
            *c = forget * *c + input * z('g', unit).tanh();
            hidden.push(sigmoid(z('o', unit)) * c.tanh());
        }
        h = match project {
            None => hidden,
            Some(p) => {
                let one = |o: usize| {
                    hidden
                        .iter()
                        .enumerate()
                        .map(|(u, m)| m * p[u * outputs + o])
                        .sum()
                };
                (0..outputs).map(one).collect()
            }
        };
        data.extend_from_slice(&h);
    }
    Value {
        shape: vec![time, outputs],
        data,
    }
}
