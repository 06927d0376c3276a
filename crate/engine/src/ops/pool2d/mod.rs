//! Pooling over images: the largest or the mean number of each window, channel by channel.
//!
//! `y[n, i, j, c] = max_{u, v} x[n, i·sₕ + u, j·s_w + v, c]` (Ranzato et al. 2007), or the mean of the same (LeCun et al. 1998,
//! section II.A, without its trained factor). There is no padding: lines and columns that fill no whole window are left out.
//! Shapes, row-major: `x [rows, height, width, channels]`, `y [rows, height', width', channels]`. Where the window is the whole
//! image ("global"), `y [rows, channels]` (Lin, Chen, Yan 2014).
//!
//! Gradients: that of a maximum goes to the number that was it, to the first of several; that of a mean goes to all `k` numbers,
//! each `1/k` of it. A maximum keeps where in its window it was. NaN is larger than everything, so that a broken model shows in
//! its loss.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use crate::{SpecError, model::Placement, ops::window::Window, spec::Padding};

/// What is taken of each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The largest number.
    Max,
    /// The mean.
    Average,
}

/// A pool: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool2d {
    /// What is taken of each window.
    pub pooling: Pooling,
    /// Where the windows lie.
    pub window: Window,
}

impl Pool2d {
    /// The layer behind a value of shape `input`, and the shape of its output.
    pub(crate) fn new(
        at: &Placement<'_>,
        input: &[usize],
        pooling: Pooling,
        size: [usize; 2],
        stride: [usize; 2],
    ) -> Result<(Self, Vec<usize>), SpecError> {
        at.at_least_one("size", size[0].min(size[1]))?;
        let window = Window::new(at, input, size, stride, Padding::Valid)?;
        let output = vec![window.output[0], window.output[1], window.channels];
        Ok((Self { pooling, window }, output))
    }

    /// As [`Pool2d::new`], with one window that is the whole image, and no dimensions for it in the output.
    pub(crate) fn global(
        at: &Placement<'_>,
        input: &[usize],
        pooling: Pooling,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        let size = match *input {
            [height, width, _] => [height, width],
            _ => [1; 2], // refused by `new`
        };
        let (pool, output) = Self::new(at, input, pooling, size, [1; 2])?;
        Ok((pool, output[2..].to_vec()))
    }

    /// Numbers in the output of one example.
    const fn output_len(&self) -> usize {
        self.window.positions() * self.window.channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        LayerSpec, LossSpec, Model, ModelSpec,
        ops::{Forward, InputGradient, Op},
    };

    fn model(input: &[usize], layer: &str) -> Result<Model, SpecError> {
        Model::new(&ModelSpec {
            input: input.to_vec(),
            layers: vec![serde_json::from_str(layer).unwrap(), LayerSpec::Flatten {}],
            loss: LossSpec::SoftmaxCrossEntropy,
        })
    }

    #[test]
    fn the_largest_passes_through_and_nan_is_larger() {
        let model = model(&[2, 5, 1], r#"{"type": "max-pool2d", "size": [2, 2]}"#).unwrap();
        let row = [1.0, 2.0, f32::NAN, 5.0, 9.0, 4.0, 3.0, 6.0, 7.0, 9.0];
        let mut pass = crate::backend::cpu::CpuPass::new(&model, 1);
        let y = pass.forward(&model, &[], &row, 1, None);
        assert!(y[0] == 4.0 && y[1].is_nan() && y.len() == 2);
    }

    #[test]
    fn the_gradient_of_a_tie_goes_to_the_first() {
        let window = Window {
            input: [2, 4],
            channels: 1,
            size: [2, 2],
            stride: [2, 2],
            before: [0, 0],
            output: [1, 2],
        };
        let pool = Pool2d {
            pooling: Pooling::Max,
            window,
        };
        let x = [1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 2.0, 2.0];
        let (mut y, mut kept, mut dx) = ([0.0; 2], [9.0; 2], [9.0; 8]);
        pool.forward_cpu(Forward {
            rows: 1,
            x: &x,
            other: &[],
            parameters: &[],
            y: &mut y,
            kept: &mut kept,
            step_key: None,
            apart: false,
        });
        pool.input_gradient_cpu(InputGradient {
            rows: 1,
            x: &x,
            y: &y,
            dy: &mut [5.0, 7.0],
            kept: &mut kept,
            parameters: &[],
            dx: Some(&mut dx),
            d_other: None,
            step_key: None,
            apart: false,
        });
        assert_eq!(y, [1.0, 2.0]);
        assert_eq!(dx, [5.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn an_impossible_pool_names_layer_and_shape() {
        for kind in ["max-pool2d", "average-pool2d"] {
            let zero = format!(r#"{{"type": "{kind}", "size": [0, 2]}}"#);
            assert_eq!(
                model(&[4, 4, 2], &zero).unwrap_err().to_string(),
                format!("layer 0 ({kind}): size must be at least 1")
            );
            let zero = format!(r#"{{"type": "{kind}", "size": [1, 2], "stride": [1, 0]}}"#);
            assert_eq!(
                model(&[4, 4, 2], &zero).unwrap_err().to_string(),
                format!("layer 0 ({kind}): stride must be at least 1")
            );
            for shape in [&[4, 2, 2][..], &[16]] {
                let wide = format!(r#"{{"type": "{kind}", "size": [2, 3]}}"#);
                let error = model(shape, &wide).unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("layer 0 ({kind}) takes an image")),
                    "{error}"
                );
                assert!(error.ends_with(&format!("{shape:?}")), "{error}");
            }
        }
        for kind in ["global-max-pool2d", "global-average-pool2d"] {
            let error = model(&[4, 2], &format!(r#"{{"type": "{kind}"}}"#))
                .unwrap_err()
                .to_string();
            assert_eq!(
                error,
                format!(
                    "layer 0 ({kind}) takes an image [height, width, channels], but the shape that reaches it is [4, 2]"
                )
            );
        }
    }
}
