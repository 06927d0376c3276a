//! A model: a spec, checked and compiled to a list of operations over one flat parameter vector.

mod compile;
mod evaluate;
mod gradients;
mod memory;

pub(crate) use compile::{InputKind, Node, Placement};
pub use evaluate::Evaluation;
#[cfg(all(feature = "dfdx", not(target_arch = "wasm32")))]
pub(crate) use evaluate::USUAL_K;
pub(crate) use gradients::{Flow, GradientPlan};
pub use memory::Memory;
pub(crate) use memory::check_memory;

use crate::{
    DataError, EngineError, Examples, Layout, ModelSpec, SpecError, TargetKind, WeightsError, layout::Init,
    ops::LossOp, order, train::Settings,
};

/// The most parameters that a model may have: an update counts its coordinates in a `u32`, and four bytes each must stay an
/// addressable buffer in a 32-bit browser.
pub const MAX_PARAMETERS: usize = 1 << 28;

/// A checked model, ready to run on any back end.
///
/// Values are numbered: value 0 is the batch of examples, value `i + 1` the output of node `i`.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    program: compile::Program,
    value_lens: Vec<usize>,
}

impl Model {
    /// Checks a spec and lays its parameters out.
    ///
    /// # Errors
    /// [`SpecError`] with the layer and the shape that does not fit.
    pub fn new(spec: &ModelSpec) -> Result<Self, SpecError> {
        let program = compile::compile(spec)?;
        let value_lens = program
            .shapes
            .iter()
            .map(|shape| shape.iter().product())
            .collect();
        Ok(Self {
            spec: spec.clone(),
            program,
            value_lens,
        })
    }

    /// The spec that it was built from.
    pub const fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where each named tensor lies in the flat vector.
    pub const fn layout(&self) -> &Layout {
        &self.program.layout
    }

    /// Length of the flat parameter vector, the `d` of an update.
    pub const fn parameter_count(&self) -> usize {
        self.program.layout.len()
    }

    /// Numbers per example.
    pub fn features(&self) -> usize {
        self.value_lens[0]
    }

    /// Number of labels.
    pub const fn classes(&self) -> usize {
        self.program.classes
    }

    /// Shape of one example of the output, such as `[classes]` or `[time, classes]`.
    pub fn output_shape(&self) -> &[usize] {
        // INVARIANT: a program has at least the value of its input.
        &self.program.shapes[self.program.shapes.len() - 1]
    }

    /// The operations, first to last.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.program.nodes
    }

    /// Where the gradients of values are kept in training.
    pub(crate) fn gradient_plan(&self, settings: &Settings) -> GradientPlan {
        let learns: Vec<bool> = self
            .nodes()
            .iter()
            .map(|node| {
                let shared = node.shares.map(|of| &self.nodes()[of].parameters);
                settings.learns(&node.parameters) || shared.is_some_and(|range| settings.learns(range))
            })
            .collect();
        let keep_all = settings.clip_examples_l2.is_some() || settings.private.is_some();
        GradientPlan::new(self.nodes(), &self.value_lens, learns, keep_all)
    }

    /// The loss.
    pub(crate) fn loss(&self) -> &dyn LossOp {
        &*self.program.loss
    }

    /// Numbers per example of each value.
    pub(crate) fn value_lens(&self) -> &[usize] {
        &self.value_lens
    }

    /// Fresh parameters. The same seed gives the same bits on every platform.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut rng = order::weight_rng(seed);
        let mut parameters = vec![0.0; self.parameter_count()];
        for tensor in self.layout().tensors() {
            let values = &mut parameters[tensor.range()];
            match tensor.init {
                Init::Zeros => {}
                Init::Ones => values.fill(1.0),
                Init::GlorotUniform { fan_in, fan_out } => {
                    let limit = (6.0 / (fan_in + fan_out) as f64).sqrt() as f32;
                    values.fill_with(|| order::signed_unit(&mut rng) * limit);
                }
                Init::Uniform { mean, spread } => {
                    values.fill_with(|| mean + order::signed_unit(&mut rng) * spread);
                }
            }
        }
        parameters
    }

    /// Whether another program computes this model, so that the engine cannot run it.
    pub fn is_external(&self) -> bool {
        #[cfg(not(target_arch = "wasm32"))]
        return matches!(self.spec.layers[..], [crate::LayerSpec::External { .. }]);
        #[cfg(target_arch = "wasm32")]
        false
    }

    /// Checks that the engine can run the model, and that `parameters` are as many as it has.
    pub(crate) fn check_runs(&self, parameters: &[f32]) -> Result<(), EngineError> {
        if self.is_external() {
            return Err(EngineError::External(
                "the engine cannot run a model of another program".into(),
            ));
        }
        Ok(self.check_count(parameters)?)
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

    /// Checks that `examples` are this model's, and that there are some.
    pub(crate) fn check_examples(&self, examples: &Examples) -> Result<(), DataError> {
        if examples.is_empty() {
            return Err(DataError::Empty);
        }
        self.check_any_examples(examples)
    }

    /// As [`Model::check_examples`], where there may be none.
    pub(crate) fn check_any_examples(&self, examples: &Examples) -> Result<(), DataError> {
        let fits = examples.features() == self.features()
            && examples.targets_per_example() == self.program.loss.targets_per_example()
            && match examples.kind() {
                TargetKind::Labels { classes } => {
                    self.program.loss.takes_labels() && classes <= self.classes()
                }
                TargetKind::Values => !self.program.loss.takes_labels(),
            };
        if !fits {
            return Err(DataError::Length {
                values: examples.x().len(),
                labels: examples.y().len(),
                features: self.features(),
            });
        }
        self.check_features(examples.x())
    }

    /// Checks that every feature can be what the first layer takes.
    fn check_features(&self, x: &[f32]) -> Result<(), DataError> {
        let features = self.features();
        if let Some(index) = x.iter().position(|value| !value.is_finite()) {
            return Err(DataError::NonFinite {
                example: index / features,
                feature: index % features,
            });
        }
        if let InputKind::Tokens { vocabulary } = self.program.input {
            let bad = |&value: &f32| value < 0.0 || value >= vocabulary as f32 || value.fract() != 0.0;
            if let Some(index) = x.iter().position(bad) {
                return Err(DataError::Token {
                    example: index / features,
                    position: index % features,
                    vocabulary,
                });
            }
        }
        Ok(())
    }
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

    /// What a model of token ids refuses: `layers` behind `input`, which layer is at fault, and a word of the error.
    #[test]
    fn recurrent_and_tied_layers_refuse_what_they_cannot_take() {
        let embedding = r#"{"type": "embedding", "vocabulary": 9, "units": 4}"#;
        let lstm = r#"{"type": "lstm", "units": 3}"#;
        let cases = [
            ("[5, 2]", embedding.to_owned(), 0, "[5, 2]"),
            ("[5, 2]", format!("{lstm}, {embedding}"), 1, "first layer"),
            ("[5]", format!("{embedding}, {embedding}"), 1, "first layer"),
            (
                "[5]",
                r#"{"type": "embedding", "vocabulary": 0, "units": 4}"#.into(),
                0,
                "vocabulary",
            ),
            (
                "[5]",
                r#"{"type": "embedding", "vocabulary": 16777217, "units": 1}"#.into(),
                0,
                "2^24",
            ),
            ("[5]", lstm.to_owned(), 0, "[5]"),
            ("[5, 2, 2]", lstm.to_owned(), 0, "[5, 2, 2]"),
            ("[5, 2]", r#"{"type": "lstm", "units": 0}"#.into(), 0, "units"),
            (
                "[5, 2]",
                r#"{"type": "cifg-lstm", "units": 3, "projection": 0}"#.into(),
                0,
                "projection",
            ),
            ("[5]", r#"{"type": "tied-dense"}"#.into(), 0, "needs an embedding"),
            (
                "[5]",
                format!(r#"{embedding}, {lstm}, {{"type": "tied-dense"}}"#),
                2,
                "[5, 3]",
            ),
            (
                "[5]",
                format!(
                    r#"{embedding}, {{"type": "tied-dense"}}, {{"type": "dense", "units": 4}}, {{"type": "tied-dense"}}"#
                ),
                3,
                "no other",
            ),
        ];
        for (input, layers, at, word) in cases {
            let json =
                format!(r#"{{"input": {input}, "layers": [{layers}], "loss": "softmax-cross-entropy"}}"#);
            let error = Model::new(&spec(&json)).unwrap_err().to_string();
            assert!(
                error.contains(&format!("layer {at} ")) && error.contains(word),
                "{json}: {error}"
            );
        }
        let huge = r#"{"input": [5, 2], "layers": [{"type": "lstm", "units": 9223372036854775807}], "loss": "softmax-cross-entropy"}"#;
        let small_pointer = huge.replace("9223372036854775807", "2147483647");
        let huge = if usize::BITS == 64 { huge } else { &small_pointer };
        assert!(matches!(Model::new(&spec(huge)), Err(SpecError::TooLarge { .. })));
    }

    /// What branches, dropout and losses refuse: `layers` behind `[4, 4, 2]`, which layer is at fault, and a word of the error.
    #[test]
    fn branches_dropout_and_losses_refuse_what_does_not_fit() {
        let mark = r#"{"type": "mark", "name": "a"}"#;
        let pool = r#"{"type": "max-pool2d", "size": [2, 2]}"#;
        let dense = r#"{"type": "dense", "units": 3}"#;
        let cases = [
            (format!(r#"{mark}, {mark}"#), 1, "a"),
            (r#"{"type": "add", "with": "a"}"#.into(), 0, "no mark"),
            (r#"{"type": "concat", "with": "a"}"#.into(), 0, "no mark"),
            (format!(r#"{{"type": "add", "with": "a"}}, {mark}"#), 0, "no mark"),
            (
                format!(r#"{mark}, {pool}, {{"type": "add", "with": "a"}}"#),
                2,
                "[2, 2, 2]",
            ),
            (
                format!(r#"{mark}, {dense}, {{"type": "add", "with": "a"}}"#),
                2,
                "[4, 4, 3]",
            ),
            (
                format!(r#"{mark}, {pool}, {{"type": "concat", "with": "a"}}"#),
                2,
                "[2, 2, 2]",
            ),
            (
                format!(r#"{mark}, {{"type": "flatten"}}, {{"type": "concat", "with": "a"}}"#),
                2,
                "[32]",
            ),
            // The loss has the index behind the last layer.
            (dense.to_owned(), 1, "[4, 4, 3]"),
        ];
        for (layers, at, word) in cases {
            let json =
                format!(r#"{{"input": [4, 4, 2], "layers": [{layers}], "loss": "softmax-cross-entropy"}}"#);
            let error = Model::new(&spec(&json)).unwrap_err().to_string();
            assert!(
                error.contains(&format!("layer {at}")) && error.contains(word),
                "{json}: {error}"
            );
        }
        for rate in ["1.0", "-0.1", "1e39"] {
            let json = format!(
                r#"{{"input": [4], "layers": [{{"type": "dropout", "rate": {rate}}}], "loss": "softmax-cross-entropy"}}"#
            );
            let refused = serde_json::from_str(&json).map(|spec| Model::new(&spec).unwrap_err().to_string());
            assert!(
                refused.as_ref().map_or(true, |error| error.contains("rate")),
                "{rate}: {refused:?}"
            );
        }
    }

    #[test]
    fn an_external_model_is_laid_out_and_started_and_an_impossible_one_names_its_fault() {
        let external = |tensors: &str, more: &str| {
            let json = format!(
                r#"{{"input": [4], "layers": [{{"type": "external", "tensors": [{tensors}], "output": [3]}}{more}],
                    "loss": "softmax-cross-entropy"}}"#
            );
            Model::new(&spec(&json))
        };
        let scale = r#"{"name": "scale", "shape": [3], "mean": 1.0}"#;
        let kernel = r#"{"name": "a.kernel", "shape": [4, 3], "spread": 0.5}"#;
        let model = external(&format!("{kernel}, {scale}"), "").unwrap();
        assert!(model.is_external());
        assert_eq!(
            (model.parameter_count(), model.classes(), model.output_shape()),
            (15, 3, &[3][..])
        );
        let names: Vec<&str> = model
            .layout()
            .tensors()
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(names, ["layers.0.a.kernel", "layers.0.scale"]);
        let start = model.initial_parameters(1);
        assert!(start[..12].iter().all(|w| w.abs() <= 0.5) && start[..12].iter().any(|w| w.abs() > 0.1));
        assert_eq!(start[12..], [1.0; 3]);

        for (tensors, more, word) in [
            (
                format!("{scale}, {scale}"),
                "",
                "`scale` must be there, and once only",
            ),
            (scale.replace("scale", ""), "", "once only"),
            (scale.replace("[3]", "[0]"), "", "[0]"),
            (kernel.replace("0.5", "-0.5"), "", "finite numbers"),
            (kernel.replace("0.5", "1e39"), "", "finite numbers"),
            (scale.replace("[3]", "[300000000]"), "", "more than"),
            (
                scale.to_owned(),
                r#", {"type": "relu"}"#,
                "must be the only layer",
            ),
        ] {
            let error = external(&tensors, more).unwrap_err().to_string();
            assert!(error.contains(word), "{tensors}: {error}");
        }
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_refused() {
        let model = Model::new(&spec(
            r#"{"input": [3], "layers": [{"type": "embedding", "vocabulary": 5, "units": 2}, {"type": "tied-dense"}], "loss": "softmax-cross-entropy"}"#,
        ))
        .unwrap();
        let parameters = model.initial_parameters(1);
        assert_eq!(parameters.len(), 5 * 2 + 5);
        assert_eq!(model.predict(&parameters, &[0.0, 4.0, 2.0]).unwrap().len(), 15);
        for bad in [5.0, -1.0, 0.5] {
            assert!(matches!(
                model.predict(&parameters, &[0.0, bad, 2.0]),
                Err(EngineError::Data(DataError::Token {
                    example: 0,
                    position: 1,
                    vocabulary: 5
                }))
            ));
        }
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
