//! Dense (fully connected) layer.
//!
//! `y[r, o] = b[o] + Σᵢ x[r, i] · W[i, o]`; shapes `x [rows, inputs]`, `W [inputs, outputs]`, `b [outputs]`, `y [rows, outputs]`,
//! all row-major. The kernel and then the bias lie together in the flat vector, so their gradient is one product:
//! `[x | 1]ᵀ · dy`.
//!
//! Gradients (Goodfellow, Bengio, Courville 2016, section 6.5.6): `dW = xᵀ·dy`, `db = Σᵣ dy[r]`, `dx = dy·Wᵀ`.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use std::ops::Range;

use crate::SpecError;

/// A dense layer: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    /// Length of the input.
    pub inputs: usize,
    /// Length of the output.
    pub outputs: usize,
    /// Where the kernel begins in the flat vector; the bias follows it.
    pub offset: usize,
}

impl Dense {
    pub(crate) fn new(layer: usize, input: &[usize], units: usize, offset: usize) -> Result<Self, SpecError> {
        let kind = "dense";
        let &[inputs] = input else {
            let expected = "one dimension, [features]";
            return Err(SpecError::Shape {
                layer,
                kind,
                expected,
                found: input.to_vec(),
            });
        };
        if units == 0 {
            return Err(SpecError::Zero {
                layer,
                kind,
                field: "units",
            });
        }
        Ok(Self {
            inputs,
            outputs: units,
            offset,
        })
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
