//! Convolution over images.
//!
//! `y[n, i, j, o] = b[o] + Σ_{u, v, c} x[n, i·sₕ + u − pₕ, j·s_w + v − p_w, c] · W[u, v, c, o]`, with zeros outside the image
//! (LeCun et al. 1998, section II.A; a cross-correlation, as everywhere in the field). Shapes, row-major: `x [rows, height,
//! width, channels]`, `W [kernel height, kernel width, channels, filters]`, `b [filters]`, `y [rows, height', width', filters]`.
//! The kernel and then the bias lie together in the flat vector.
//!
//! It is a product of matrices: the line of `P` for an output pixel is the patch of the image that its window covers, and
//! `y = P·W + b` (Chellapilla, Puri, Simard 2006). Hence `dW = Pᵀ·dy`, `db = Σ dy`, and `dx` is `dy·Wᵀ` with each line added
//! back to where its patch came from. On the CPU `P` is made a few lines at a time; on the GPU it is never made.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod patches;

use std::ops::Range;

use crate::{SpecError, layout::Init, model::Placement, ops::window::Window, spec::Padding};

/// A convolution: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv2d {
    /// Where its windows lie.
    pub window: Window,
    /// Channels of the output.
    pub filters: usize,
    /// Where the kernel begins in the flat vector; the bias follows it.
    pub offset: usize,
    /// Whether the output is rectified.
    pub relu: bool,
}

impl Conv2d {
    /// The layer behind a value of shape `input`, and the shape of its output.
    pub(crate) fn new(
        at: &mut Placement<'_>,
        input: &[usize],
        filters: usize,
        [kernel, stride]: [[usize; 2]; 2],
        padding: Padding,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        at.at_least_one("filters", filters)?;
        at.at_least_one("kernel", kernel[0].min(kernel[1]))?;
        let window = Window::new(at, input, kernel, stride, padding)?;
        let taps = kernel[0].saturating_mul(kernel[1]);
        let init = Init::GlorotUniform {
            fan_in: taps.saturating_mul(window.channels),
            fan_out: taps.saturating_mul(filters),
        };
        let shape = vec![kernel[0], kernel[1], window.channels, filters];
        let offset = at.parameter("kernel", shape, init)?;
        at.parameter("bias", vec![filters], Init::Zeros)?;
        let output = vec![window.output[0], window.output[1], filters];
        let conv = Self {
            window,
            filters,
            offset,
            relu: false,
        };
        Ok((conv, output))
    }

    /// The kernel's place in the flat vector.
    fn kernel(&self) -> Range<usize> {
        self.offset..self.offset + self.window.patch_len() * self.filters
    }

    /// The bias's place in the flat vector.
    fn bias(&self) -> Range<usize> {
        let start = self.kernel().end;
        start..start + self.filters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerSpec, LossSpec, Model, ModelSpec};

    fn model(input: &[usize], layer: &str) -> Result<Model, SpecError> {
        Model::new(&ModelSpec {
            input: input.to_vec(),
            layers: vec![
                LayerSpec::Relu {},
                serde_json::from_str(layer).unwrap(),
                LayerSpec::Flatten {},
            ],
            loss: LossSpec::SoftmaxCrossEntropy,
        })
    }

    #[test]
    fn kernel_and_bias_lie_together_in_the_order_of_the_product() {
        let json =
            r#"{"type": "conv2d", "filters": 32, "kernel": [5, 3], "stride": [2, 1], "padding": "same"}"#;
        let model = model(&[28, 28, 3], json).unwrap();
        assert_eq!(model.output_shape(), [14 * 28 * 32]);
        let shapes: Vec<_> = model
            .layout()
            .tensors()
            .iter()
            .map(|t| (t.offset, t.shape.clone()))
            .collect();
        assert_eq!(shapes, [(0, vec![5, 3, 3, 32]), (1440, vec![32])]);
        let limit = (6.0f32 / (15.0 * (3.0 + 32.0))).sqrt();
        let weights = &model.initial_parameters(1)[..1440];
        assert!(weights.iter().all(|w| w.abs() <= limit) && weights.iter().any(|w| w.abs() > 0.9 * limit));
    }

    #[test]
    fn an_impossible_convolution_names_layer_and_shape() {
        let (layer, kind) = (1, "conv2d");
        for (json, field) in [
            (r#"{"type": "conv2d", "filters": 0, "kernel": [3, 3]}"#, "filters"),
            (r#"{"type": "conv2d", "filters": 1, "kernel": [3, 0]}"#, "kernel"),
            (
                r#"{"type": "conv2d", "filters": 1, "kernel": [3, 3], "stride": [0, 1]}"#,
                "stride",
            ),
        ] {
            let error = model(&[28, 28, 1], json).unwrap_err();
            assert_eq!(error, SpecError::Zero { layer, kind, field });
        }
        let three = r#"{"type": "conv2d", "filters": 1, "kernel": [3, 3]}"#;
        for shape in [&[784][..], &[28, 28], &[28, 28, 1, 1], &[2, 28, 1], &[28, 2, 1]] {
            let error = model(shape, three).unwrap_err();
            assert!(
                error.to_string().starts_with("layer 1 (conv2d) takes an image"),
                "{error}"
            );
            assert!(error.to_string().contains(&format!("{shape:?}")), "{error}");
        }
        let huge =
            r#"{"type": "conv2d", "filters": 8, "kernel": [18446744073709551615, 3], "padding": "same"}"#;
        assert!(matches!(
            model(&[28, 28, 1], huge),
            Err(SpecError::TooLarge { .. })
        ));
        let wrong = serde_json::from_str::<LayerSpec>(
            r#"{"type": "conv2d", "filters": 8, "kernel": [3, 3], "padding": "full"}"#,
        );
        assert!(wrong.is_err());
    }
}
