//! The workloads of the benchmarks and of the golden losses in tests/vectors/v1, as in tests/bench/web/workloads.mjs: models, weights
//! and data, made from the same whole numbers.

use serde_json::{Value, json};
use unsaid_engine::{Examples, Model};

/// Value `index` of stream `seed`: the mixing function of mulberry32, by counter.
fn word(seed: u32, index: usize) -> u32 {
    let a = seed.wrapping_add((index as u32 + 1).wrapping_mul(0x6d2b_79f5));
    let mut t = (a ^ (a >> 15)).wrapping_mul(1 | a);
    t = t.wrapping_add((t ^ (t >> 7)).wrapping_mul(61 | t)) ^ t;
    t ^ (t >> 14)
}

fn unit(seed: u32, index: usize) -> f64 {
    f64::from(word(seed, index)) / 4_294_967_296.0
}

/// A model with its weights and data.
pub struct Workload {
    /// Its name, as in the golden losses.
    pub name: &'static str,
    id: u32,
    /// Examples of a batch.
    pub batch: usize,
    /// Step size of plain gradient descent.
    pub rate: f32,
    /// The model's spec.
    pub model: Value,
    /// Of each tensor in the layout's order: stream, fan in, fan out.
    tensors: Vec<(u32, usize, usize)>,
}

/// Batches before the data repeat.
pub const BATCHES: usize = 8;
const TIME: usize = 20;
const VOCABULARY: usize = 2000;

fn dense(stream: u32, fan_in: usize, fan_out: usize) -> [(u32, usize, usize); 2] {
    [(stream, fan_in, fan_out), (stream + 1, 0, 0)]
}

/// All of them.
pub fn workloads() -> Vec<Workload> {
    let classifier = |input: Value, layers: Value| json!({"input": input, "layers": layers, "loss": "softmax-cross-entropy"});
    let relu = json!({"type": "relu"});
    let units = |units: usize| json!({"type": "dense", "units": units});
    let conv = |size: usize, filters: usize| json!({"type": "conv2d", "filters": filters, "kernel": [size, size], "padding": "same"});
    let pool = json!({"type": "max-pool2d", "size": [2, 2]});
    let flatten = json!({"type": "flatten"});
    let image = json!([28, 28, 1]);
    let workload = |name, id, batch, rate, model, tensors: Vec<[(u32, usize, usize); 2]>| Workload {
        name,
        id,
        batch,
        rate,
        model,
        tensors: tensors.concat(),
    };
    let mut lstm = workload(
        "lstm",
        6,
        16,
        5.0,
        classifier(
            json!([TIME]),
            json!([{"type": "embedding", "vocabulary": VOCABULARY, "units": 96}, {"type": "lstm", "units": 256}, units(96), {"type": "tied-dense"}]),
        ),
        Vec::new(),
    );
    lstm.tensors = vec![
        (0, VOCABULARY, 96),
        (2, 256, 1024),
        (1, 96, 1024),
        (3, 0, 0),
        (4, 256, 96),
        (5, 0, 0),
        (6, 0, 0),
    ];
    vec![
        workload(
            "logreg",
            1,
            64,
            0.005,
            classifier(json!([784]), json!([units(10)])),
            vec![dense(0, 784, 10)],
        ),
        workload(
            "mlp",
            2,
            64,
            0.02,
            classifier(
                json!([784]),
                json!([units(128), relu, units(64), relu, units(10)]),
            ),
            vec![dense(0, 784, 128), dense(2, 128, 64), dense(4, 64, 10)],
        ),
        workload(
            "2nn",
            3,
            64,
            0.02,
            classifier(
                json!([784]),
                json!([units(200), relu, units(200), relu, units(10)]),
            ),
            vec![dense(0, 784, 200), dense(2, 200, 200), dense(4, 200, 10)],
        ),
        workload(
            "scnn",
            4,
            32,
            0.02,
            classifier(
                image.clone(),
                json!([
                    conv(3, 8),
                    relu,
                    pool,
                    conv(3, 16),
                    relu,
                    pool,
                    flatten,
                    units(10)
                ]),
            ),
            vec![dense(0, 9, 72), dense(2, 72, 144), dense(4, 784, 10)],
        ),
        workload(
            "cnn",
            5,
            32,
            0.02,
            classifier(
                image,
                json!([
                    conv(5, 32),
                    relu,
                    pool,
                    conv(5, 64),
                    relu,
                    pool,
                    flatten,
                    units(512),
                    relu,
                    units(10)
                ]),
            ),
            vec![
                dense(0, 25, 800),
                dense(2, 800, 1600),
                dense(4, 3136, 512),
                dense(6, 512, 10),
            ],
        ),
        lstm,
    ]
}

impl Workload {
    /// The flat parameter vector that it starts with.
    pub fn weights(&self, model: &Model) -> Vec<f32> {
        let mut flat = vec![0.0; model.parameter_count()];
        assert_eq!(
            model.layout().tensors().len(),
            self.tensors.len(),
            "{}",
            self.name
        );
        for (tensor, &(stream, fan_in, fan_out)) in model.layout().tensors().iter().zip(&self.tensors) {
            if fan_in > 0 {
                let limit = (6.0 / (fan_in + fan_out) as f64).sqrt();
                for (i, value) in flat[tensor.range()].iter_mut().enumerate() {
                    *value = ((unit(1000 * self.id + stream, i) * 2.0 - 1.0) * limit) as f32;
                }
            }
        }
        flat
    }

    /// [`BATCHES`] batches one after the other.
    pub fn examples(&self) -> Examples {
        let (len, sx, sy) = (self.batch * BATCHES, 1000 * self.id + 900, 1000 * self.id + 901);
        if self.name == "lstm" {
            let token = |at: usize, shift: usize| {
                word(sx, at / TIME * (TIME + 1) + at % TIME + shift) % VOCABULARY as u32
            };
            let x = (0..len * TIME).map(|at| token(at, 0) as f32).collect();
            let y = (0..len * TIME).map(|at| token(at, 1)).collect();
            return Examples::sequences(x, y, TIME, TIME, VOCABULARY).unwrap();
        }
        let x = (0..len * 784).map(|i| unit(sx, i) as f32).collect();
        let y = (0..len).map(|i| word(sy, i) % 10).collect();
        Examples::new(x, y, 784, 10).unwrap()
    }
}
