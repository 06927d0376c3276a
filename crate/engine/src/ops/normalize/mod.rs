//! Layer and group normalisation.
//!
//! Numbers of one example are normalised together in groups, `x̂ = (x − μ) / √(σ² + ε)` with the group's mean `μ` and
//! variance `σ²` (divided by the number, not by one less), and then `y = γ·x̂ + β` with a scale `γ` and an offset `β` for
//! each channel. Shapes, row-major: `x`, `y` `[rows, instances, positions, channels]`, `γ`, `β` `[channels]`.
//!
//! - Layer normalisation (Ba, Kiros, Hinton 2016, section 3): a group is the last dimension; the leading dimensions are instances
//!   with one position.
//! - Group normalisation (Wu, He 2018, section 3.1): a group is `channels / groups` neighbouring channels over the whole image,
//!   whose pixels are the positions of one instance.
//!
//! Gradients, with `g = γ·dy` and means over the group: `dx = (g − mean(g) − x̂·mean(g·x̂)) / √(σ² + ε)`; `dγ = Σ dy·x̂`,
//! `dβ = Σ dy`. For each group `μ` and `1/√(σ² + ε)` are kept.
//!
//! No example is mixed with another, which batch normalisation does: so the gradient of one example exists and can be clipped,
//! and nothing in the model is a statistic of a client's data.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use std::ops::Range;

use crate::{SpecError, layout::Init, model::Placement};

/// A normalisation: see the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// Parts of an example that have groups of their own.
    pub instances: usize,
    /// Pixels of an instance.
    pub positions: usize,
    /// Numbers of a pixel.
    pub channels: usize,
    /// Groups of the channels.
    pub groups: usize,
    /// What is added to the variance.
    pub epsilon: f32,
    /// Where the scale begins in the flat vector; the offset follows it.
    pub offset: usize,
}

impl Normalize {
    /// Layer normalisation of a value of shape `input`.
    pub(crate) fn layer(at: &mut Placement<'_>, input: &[usize], epsilon: f32) -> Result<Self, SpecError> {
        // INVARIANT: shapes have at least one dimension.
        let (leading, channels) = (&input[..input.len() - 1], input[input.len() - 1]);
        Self::new(at, [leading.iter().product(), 1, channels, 1], epsilon)
    }

    /// Group normalisation of an image of shape `input`.
    pub(crate) fn group(
        at: &mut Placement<'_>,
        input: &[usize],
        groups: usize,
        epsilon: f32,
    ) -> Result<Self, SpecError> {
        at.at_least_one("groups", groups)?;
        match *input {
            [height, width, channels] if channels.is_multiple_of(groups) => {
                Self::new(at, [1, height * width, channels, groups], epsilon)
            }
            [_, _, _] => Err(at.shape_error("channels that are a multiple of its groups", input)),
            _ => Err(at.shape_error("an image [height, width, channels]", input)),
        }
    }

    fn new(
        at: &mut Placement<'_>,
        [instances, positions, channels, groups]: [usize; 4],
        epsilon: f32,
    ) -> Result<Self, SpecError> {
        at.positive("epsilon", epsilon)?;
        let offset = at.parameter("scale", vec![channels], Init::Ones)?;
        at.parameter("offset", vec![channels], Init::Zeros)?;
        Ok(Self {
            instances,
            positions,
            channels,
            groups,
            epsilon,
            offset,
        })
    }

    /// The scale's place in the flat vector.
    const fn scale(&self) -> Range<usize> {
        self.offset..self.offset + self.channels
    }

    /// The offset's place in the flat vector.
    const fn shift(&self) -> Range<usize> {
        self.offset + self.channels..self.offset + 2 * self.channels
    }
}

#[cfg(test)]
mod tests {
    use crate::{LossSpec, Model, ModelSpec, SpecError};

    fn model(input: &[usize], layer: &str) -> Result<Model, SpecError> {
        Model::new(&ModelSpec {
            input: input.to_vec(),
            layers: vec![serde_json::from_str(layer).unwrap()],
            loss: LossSpec::SoftmaxCrossEntropy,
        })
    }

    #[test]
    fn a_fresh_layer_gives_mean_0_and_variance_1() {
        let model = model(&[4], r#"{"type": "layer-norm", "epsilon": 1e-12}"#).unwrap();
        let parameters = model.initial_parameters(1);
        assert_eq!(parameters, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let mut pass = crate::backend::cpu::CpuPass::new(&model, 1);
        let y = pass.forward(&model, &parameters, &[103.0, 101.0, 103.0, 101.0], 1, None);
        assert_eq!(y, [1.0, -1.0, 1.0, -1.0]);
    }

    #[test]
    fn an_impossible_normalisation_names_layer_and_shape() {
        let error = |shape: &[usize], json: &str| model(shape, json).unwrap_err().to_string();
        assert_eq!(
            error(&[4, 4, 6], r#"{"type": "group-norm", "groups": 4}"#),
            "layer 0 (group-norm) takes channels that are a multiple of its groups, but the shape that reaches it is [4, 4, 6]"
        );
        assert_eq!(
            error(&[6], r#"{"type": "group-norm", "groups": 2}"#),
            "layer 0 (group-norm) takes an image [height, width, channels], but the shape that reaches it is [6]"
        );
        assert_eq!(
            error(&[4, 4, 6], r#"{"type": "group-norm", "groups": 0}"#),
            "layer 0 (group-norm): groups must be at least 1"
        );
        for epsilon in ["0", "-1e-5", "1e300"] {
            let error = error(
                &[6],
                &format!(r#"{{"type": "layer-norm", "epsilon": {epsilon}}}"#),
            );
            assert!(error.starts_with("layer 0 (layer-norm): epsilon is "), "{error}");
        }
    }

    #[test]
    fn batch_normalisation_is_refused_with_the_reason_and_a_way_out() {
        for json in [
            r#"{"type": "batch-norm"}"#,
            r#"{"type": "batch-norm", "momentum": 0.9, "epsilon": 0.001}"#,
        ] {
            let error = model(&[4, 4, 6], json).unwrap_err();
            assert!(matches!(
                error,
                SpecError::Refused {
                    layer: 0,
                    kind: "batch-norm",
                    ..
                }
            ));
            assert!(error.to_string().contains("group-norm"), "{error}");
        }
    }
}
