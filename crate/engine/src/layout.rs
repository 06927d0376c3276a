//! Where each named tensor lies in the one flat parameter vector.

use std::ops::Range;

/// One named tensor of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterTensor {
    /// `layers.<index>.<kernel|bias|…>`, the name in safetensors files.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Index of its first number in the flat vector.
    pub offset: usize,
    /// How it starts.
    pub init: Init,
}

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform in ±√(6 / (`fan_in` + `fan_out`)) (Glorot, Bengio 2010, equation 16).
    GlorotUniform {
        /// Inputs of one output.
        fan_in: usize,
        /// Outputs of one input.
        fan_out: usize,
    },
    /// Uniform in `mean ± spread`.
    Uniform {
        /// The middle.
        mean: f32,
        /// How far from it.
        spread: f32,
    },
}

impl ParameterTensor {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values (never, in a model that was built).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// The named tensors of a model, in the order in which they lie in the flat vector, without gaps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layout {
    tensors: Vec<ParameterTensor>,
    len: usize,
}

impl Layout {
    /// Length of the flat vector.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[ParameterTensor] {
        &self.tensors
    }

    /// Appends a tensor; none where the length would pass `usize`.
    pub(crate) fn push(&mut self, name: String, shape: Vec<usize>, init: Init) -> Option<()> {
        let values = shape
            .iter()
            .try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
        let offset = self.len;
        self.len = offset.checked_add(values)?;
        self.tensors.push(ParameterTensor {
            name,
            shape,
            offset,
            init,
        });
        Some(())
    }
}
