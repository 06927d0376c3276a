//! Enlarging an image by repeating its pixels (nearest neighbour).
//!
//! `y[n, i, j, c] = x[n, ⌊i/f⌋, ⌊j/f⌋, c]`; shapes, row-major: `x [rows, height, width, channels]`,
//! `y [rows, f·height, f·width, channels]`. Followed by a convolution it is the usual way up in a decoder, without the
//! chequerboards of transposed convolutions (Odena, Dumoulin, Olah 2016). Gradient: `dx` is the sum of the `f²` numbers of `dy`.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use crate::{SpecError, model::Placement};

/// An enlargement: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upsample2d {
    /// Lines of the input.
    pub height: usize,
    /// Pixels of a line of the input.
    pub width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
    /// How often each pixel is repeated in either direction.
    pub factor: usize,
}

impl Upsample2d {
    /// The layer behind a value of shape `input`, and the shape of its output.
    pub(crate) fn new(
        at: &Placement<'_>,
        input: &[usize],
        factor: usize,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        at.at_least_one("factor", factor)?;
        let &[height, width, channels] = input else {
            return Err(at.shape_error("an image [height, width, channels]", input));
        };
        // A size that is out of bounds is refused with the shape.
        let output = vec![
            height.saturating_mul(factor),
            width.saturating_mul(factor),
            channels,
        ];
        let upsample = Self {
            height,
            width,
            channels,
            factor,
        };
        Ok((upsample, output))
    }

    /// Numbers of a line of the output.
    const fn line_len(&self) -> usize {
        self.width * self.factor * self.channels
    }
}

#[cfg(test)]
mod tests {
    use crate::{LayerSpec, LossSpec, Model, ModelSpec, SpecError};

    fn model(input: &[usize], factor: usize) -> Result<Model, SpecError> {
        Model::new(&ModelSpec {
            input: input.to_vec(),
            layers: vec![LayerSpec::Upsample2d { factor }, LayerSpec::Flatten {}],
            loss: LossSpec::SoftmaxCrossEntropy,
        })
    }

    #[test]
    fn pixels_are_repeated_in_both_directions() {
        let model = model(&[1, 2, 1], 2).unwrap();
        let mut pass = crate::backend::cpu::CpuPass::new(&model, 1);
        let y = pass.forward(&model, &[], &[3.0, 4.0], 1, None);
        assert_eq!(y, [3.0, 3.0, 4.0, 4.0, 3.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn an_impossible_enlargement_names_layer_and_shape() {
        assert_eq!(
            model(&[2, 2, 1], 0).unwrap_err().to_string(),
            "layer 0 (upsample2d): factor must be at least 1"
        );
        assert_eq!(
            model(&[4, 2], 2).unwrap_err().to_string(),
            "layer 0 (upsample2d) takes an image [height, width, channels], but the shape that reaches it is [4, 2]"
        );
        assert!(matches!(
            model(&[2, 2, 1], usize::MAX),
            Err(SpecError::TooLarge { .. })
        ));
    }
}
