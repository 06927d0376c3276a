//! Dense (fully connected) layer.
//!
//! `y[r, o] = b[o] + Σᵢ x[r, i] · W[i, o]`; shapes `x [rows, inputs]`, `W [inputs, outputs]`, `b [outputs]`, `y [rows, outputs]`,
//! all row-major. An example with more dimensions, such as `[time, features]`, is that many rows (positions) of its last one. The kernel and then the bias lie together in the flat vector, so their gradient is one product:
//! `[x | 1]ᵀ · dy`.
//!
//! Gradients (Goodfellow, Bengio, Courville 2016, section 6.5.6): `dW = xᵀ·dy`, `db = Σᵣ dy[r]`, `dx = dy·Wᵀ`.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

#[cfg(feature = "gpu")]
pub(super) use gpu::{Lines, bias_gradient_gpu};

use std::ops::Range;

use crate::{SpecError, layout::Init, model::Placement};

/// A dense layer: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    /// Rows of an example.
    pub positions: usize,
    /// Length of the input.
    pub inputs: usize,
    /// Length of the output.
    pub outputs: usize,
    /// Where the kernel begins in the flat vector; the bias follows it.
    pub offset: usize,
    /// Whether the output is rectified.
    pub relu: bool,
}

impl Dense {
    /// The layer behind a value of shape `input`, and the shape of its output.
    pub(crate) fn new(
        at: &mut Placement<'_>,
        input: &[usize],
        units: usize,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        at.at_least_one("units", units)?;
        // INVARIANT: shapes have at least one dimension.
        let (leading, inputs) = (&input[..input.len() - 1], input[input.len() - 1]);
        let init = Init::GlorotUniform {
            fan_in: inputs,
            fan_out: units,
        };
        let offset = at.parameter("kernel", vec![inputs, units], init)?;
        at.parameter("bias", vec![units], Init::Zeros)?;
        let dense = Self {
            positions: leading.iter().product(),
            inputs,
            outputs: units,
            offset,
            relu: false,
        };
        Ok((dense, [leading, &[units]].concat()))
    }

    /// The place of kernel and bias in the flat vector.
    pub(crate) fn parameters(&self) -> Range<usize> {
        self.offset..self.bias().end
    }

    /// The kernel's place in the flat vector.
    fn kernel(&self) -> Range<usize> {
        self.offset..self.offset + self.inputs * self.outputs
    }

    /// The bias's place in the flat vector.
    fn bias(&self) -> Range<usize> {
        let start = self.kernel().end;
        start..start + self.outputs
    }
}
