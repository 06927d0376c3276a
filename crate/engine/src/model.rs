//! A model: a spec, checked and compiled to a list of operations over one flat parameter vector.

use crate::{
    EngineError, Examples, Layout, ModelSpec, SpecError, WeightsError,
    backend::cpu::CpuPass,
    layout::Init,
    ops::{self, LossOp, Op},
    order,
    spec::{LayerSpec, LossSpec},
};

/// The most parameters that a model may have: an update counts its coordinates in a `u32`, and four bytes each must stay an
/// addressable buffer in a 32-bit browser.
pub const MAX_PARAMETERS: usize = 1 << 28;

/// A checked model, ready to run on any back end.
///
/// Values are numbered: value 0 is the batch of examples, value `i + 1` the output of operation `i`.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    layout: Layout,
    ops: Vec<Box<dyn Op>>,
    value_lens: Vec<usize>,
    loss: Box<dyn LossOp>,
    classes: usize,
}

/// How well a model does on labelled examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Share of the examples whose highest output is their label, 0 to 1.
    pub accuracy: f64,
    /// Mean loss.
    pub loss: f64,
    /// Number of examples.
    pub examples: usize,
}

/// Examples that a forward pass takes at a time: enough for the matrix kernels, few enough to stay in cache.
const EVALUATION_BATCH: usize = 256;

impl Model {
    /// Checks a spec and lays its parameters out.
    ///
    /// # Errors
    /// [`SpecError`] with the layer and the shape that does not fit.
    pub fn new(spec: &ModelSpec) -> Result<Self, SpecError> {
        if spec.input.is_empty() || spec.input.contains(&0) {
            return Err(SpecError::Input(spec.input.clone()));
        }
        let too_large = SpecError::TooLarge {
            limit: MAX_PARAMETERS,
        };
        let mut shape = spec.input.clone();
        let len_of = |shape: &[usize]| {
            let len = shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim));
            len.filter(|&len| len <= MAX_PARAMETERS).ok_or(too_large.clone())
        };
        let mut value_lens = vec![len_of(&shape)?];
        let mut layout = Layout::default();
        let mut ops: Vec<Box<dyn Op>> = Vec::with_capacity(spec.layers.len());
        for (layer, layer_spec) in spec.layers.iter().enumerate() {
            let op: Box<dyn Op> = match *layer_spec {
                LayerSpec::Dense { units } => {
                    let dense = ops::dense::Dense::new(layer, &shape, units, layout.len())?;
                    let kernel = Init::GlorotUniform {
                        fan_in: dense.inputs,
                        fan_out: units,
                    };
                    let shapes = [vec![dense.inputs, units], vec![units]];
                    for ((name, init), shape) in [("kernel", kernel), ("bias", Init::Zeros)]
                        .into_iter()
                        .zip(shapes)
                    {
                        let pushed = layout.push(format!("layers.{layer}.{name}"), shape, init);
                        pushed.ok_or(too_large.clone())?;
                    }
                    shape = vec![units];
                    Box::new(dense)
                }
                LayerSpec::Relu {} => Box::new(ops::relu::Relu::new(len_of(&shape)?)),
            };
            if layout.len() > MAX_PARAMETERS {
                return Err(too_large);
            }
            value_lens.push(len_of(&shape)?);
            ops.push(op);
        }
        let (loss, classes): (Box<dyn LossOp>, usize) = match spec.loss {
            LossSpec::SoftmaxCrossEntropy => {
                let loss = ops::softmax_cross_entropy::SoftmaxCrossEntropy::new(ops.len(), &shape)?;
                let classes = loss.classes;
                (Box::new(loss), classes)
            }
        };
        Ok(Self {
            spec: spec.clone(),
            layout,
            ops,
            value_lens,
            loss,
            classes,
        })
    }

    /// The spec that it was built from.
    pub const fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where each named tensor lies in the flat vector.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Length of the flat parameter vector, the `d` of an update.
    pub const fn parameter_count(&self) -> usize {
        self.layout.len()
    }

    /// Numbers per example.
    pub fn features(&self) -> usize {
        self.value_lens[0]
    }

    /// Number of labels.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// The operations, first to last.
    pub(crate) fn ops(&self) -> &[Box<dyn Op>] {
        &self.ops
    }

    /// The loss.
    pub(crate) fn loss(&self) -> &dyn LossOp {
        &*self.loss
    }

    /// Numbers per example of each value.
    pub(crate) fn value_lens(&self) -> &[usize] {
        &self.value_lens
    }

    /// Fresh parameters. The same seed gives the same bits on every platform.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut rng = order::weight_rng(seed);
        let mut parameters = vec![0.0; self.parameter_count()];
        for tensor in self.layout.tensors() {
            if let Init::GlorotUniform { fan_in, fan_out } = tensor.init {
                let limit = (6.0 / (fan_in + fan_out) as f64).sqrt() as f32;
                parameters[tensor.range()].fill_with(|| order::signed_unit(&mut rng) * limit);
            }
        }
        parameters
    }

    /// Checks that `parameters` are as many as the model has.
    pub(crate) fn check_count(&self, parameters: &[f32]) -> Result<(), WeightsError> {
        match parameters.len() {
            found if found == self.parameter_count() => Ok(()),
            found => Err(WeightsError::Count {
                found,
                expected: self.parameter_count(),
            }),
        }
    }

    /// Checks that `examples` are this model's.
    pub(crate) fn check_examples(&self, examples: &Examples) -> Result<(), crate::DataError> {
        if examples.features() != self.features() || examples.classes() > self.classes {
            return Err(crate::DataError::Length {
                values: examples.x().len(),
                labels: examples.len(),
                features: self.features(),
            });
        }
        Ok(())
    }

    /// Accuracy and mean loss on `examples`, on the CPU.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Data`] where the parameters or the examples are not this model's.
    pub fn evaluate(&self, parameters: &[f32], examples: &Examples) -> Result<Evaluation, EngineError> {
        self.check_count(parameters)?;
        self.check_examples(examples)?;
        let mut pass = CpuPass::new(self, EVALUATION_BATCH.min(examples.len()));
        let (mut loss, mut right) = (0.0, 0usize);
        let rows_of = |batch: &[u32]| batch.len();
        for (x, y) in examples
            .x()
            .chunks(EVALUATION_BATCH * self.features())
            .zip(examples.y().chunks(EVALUATION_BATCH))
        {
            let rows = rows_of(y);
            let outputs = pass.forward(self, parameters, x, rows);
            right += outputs
                .chunks_exact(self.classes)
                .zip(y)
                .filter(|(row, label)| argmax(row) == **label as usize)
                .count();
            loss += f64::from(self.loss.mean_loss_cpu(rows, outputs, y)) * rows as f64;
        }
        let examples = examples.len();
        Ok(Evaluation {
            accuracy: right as f64 / examples as f64,
            loss: loss / examples as f64,
            examples,
        })
    }

    /// The model's probabilities for each row of `x`: `[rows, features] → [rows, classes]`, on the CPU.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Data`] where the parameters or the rows are not this model's.
    pub fn predict(&self, parameters: &[f32], x: &[f32]) -> Result<Vec<f32>, EngineError> {
        self.check_count(parameters)?;
        let features = self.features();
        if x.is_empty() || !x.len().is_multiple_of(features) {
            return Err(crate::DataError::Length {
                values: x.len(),
                labels: x.len() / features,
                features,
            }
            .into());
        }
        if let Some(index) = x.iter().position(|value| !value.is_finite()) {
            let error = crate::DataError::NonFinite {
                example: index / features,
                feature: index % features,
            };
            return Err(error.into());
        }
        let mut pass = CpuPass::new(self, EVALUATION_BATCH.min(x.len() / features));
        let mut probabilities = Vec::with_capacity(x.len() / features * self.classes);
        for rows in x.chunks(EVALUATION_BATCH * features) {
            let outputs = pass.forward(self, parameters, rows, rows.len() / features);
            probabilities.extend(self.loss.probabilities_cpu(outputs));
        }
        Ok(probabilities)
    }
}

/// Index of the largest value; the first of equals. A row of NaN gives 0.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> ModelSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_impossible_spec_names_layer_and_shape() {
        let zero = spec(
            r#"{"input": [4], "layers": [{"type": "relu"}, {"type": "dense", "units": 0}], "loss": "softmax-cross-entropy"}"#,
        );
        assert_eq!(
            Model::new(&zero).unwrap_err(),
            SpecError::Zero {
                layer: 1,
                kind: "dense",
                field: "units"
            }
        );
        let image = spec(
            r#"{"input": [2, 2], "layers": [{"type": "dense", "units": 3}], "loss": "softmax-cross-entropy"}"#,
        );
        let SpecError::Shape {
            layer: 0,
            kind: "dense",
            found,
            ..
        } = Model::new(&image).unwrap_err()
        else {
            panic!("another error");
        };
        assert_eq!(found, [2, 2]);
        let one_class = spec(
            r#"{"input": [4], "layers": [{"type": "dense", "units": 1}], "loss": "softmax-cross-entropy"}"#,
        );
        assert!(matches!(
            Model::new(&one_class),
            Err(SpecError::Shape { layer: 1, .. })
        ));
        let empty = spec(r#"{"input": [0], "layers": [], "loss": "softmax-cross-entropy"}"#);
        assert_eq!(Model::new(&empty).unwrap_err(), SpecError::Input(vec![0]));
        let huge = ModelSpec {
            input: vec![usize::MAX],
            ..empty
        };
        assert!(matches!(Model::new(&huge), Err(SpecError::TooLarge { .. })));
        let wide = spec(
            r#"{"input": [100000], "layers": [{"type": "dense", "units": 100000}], "loss": "softmax-cross-entropy"}"#,
        );
        assert!(matches!(Model::new(&wide), Err(SpecError::TooLarge { .. })));
    }

    #[test]
    fn the_layout_is_named_and_has_no_gaps() {
        let model = Model::new(&spec(
            r#"{"input": [3], "layers": [{"type": "dense", "units": 4}, {"type": "relu"}, {"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"}"#,
        ))
        .unwrap();
        let found: Vec<_> = model
            .layout()
            .tensors()
            .iter()
            .map(|t| (t.name.as_str(), t.range()))
            .collect();
        assert_eq!(
            found,
            [
                ("layers.0.kernel", 0..12),
                ("layers.0.bias", 12..16),
                ("layers.2.kernel", 16..24),
                ("layers.2.bias", 24..26)
            ]
        );
        let parameters = model.initial_parameters(1);
        assert_eq!(parameters, model.initial_parameters(1));
        assert_ne!(parameters, model.initial_parameters(2));
        assert!(parameters[12..16].iter().all(|&b| b == 0.0));
        let limit = (6.0f32 / 7.0).sqrt();
        assert!(parameters[..12].iter().all(|w| w.abs() <= limit && *w != 0.0));
    }

    #[test]
    fn foreign_parameters_and_examples_are_refused() {
        let model = Model::new(&spec(
            r#"{"input": [3], "layers": [{"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"}"#,
        ))
        .unwrap();
        let examples = Examples::new(vec![0.0; 3], vec![0], 3, 2).unwrap();
        assert!(matches!(
            model.evaluate(&[0.0; 7], &examples),
            Err(EngineError::Weights(WeightsError::Count {
                found: 7,
                expected: 8
            }))
        ));
        let other = Examples::new(vec![0.0; 4], vec![0], 4, 2).unwrap();
        assert!(matches!(
            model.evaluate(&[0.0; 8], &other),
            Err(EngineError::Data(_))
        ));
        assert!(matches!(
            model.predict(&[0.0; 8], &[0.0; 4]),
            Err(EngineError::Data(_))
        ));
        assert!(matches!(
            model.predict(&[0.0; 8], &[f32::NAN; 3]),
            Err(EngineError::Data(_))
        ));
        assert_eq!(model.predict(&[0.0; 8], &[1.0; 3]).unwrap(), [0.5, 0.5]);
    }
}
