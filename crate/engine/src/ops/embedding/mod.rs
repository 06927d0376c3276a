//! Embedding: token ids to vectors.
//!
//! `y[r, t] = E[x[r, t]]`; shapes `x [rows, time]` (whole numbers below `vocabulary`), `E [vocabulary, units]`,
//! `y [rows, time, units]`. It is the product of one-hot rows with `E` (Bengio et al. 2003, section 2), so its gradient is
//! `dE[v] = Σ dy[r, t]` over all positions with token `v`. It is the first layer, since token ids have no gradient.
//!
//! The gradient of one example has a row for each of its distinct tokens, and its squared norm is the sum of theirs: dy is
//! summed over the positions of equal tokens, and no `[vocabulary, units]` is made.
//!
//! Where a [tied](super::tied_dense) layer uses `E` too, that layer's gradient is there first, and this one's is added.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use std::ops::Range;

use crate::{SpecError, layout::Init, model::Placement};

/// Token ids are features, and `f32` tells whole numbers up to here apart.
const MAX_VOCABULARY: usize = 1 << 24;

/// An embedding: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Tokens of an example.
    pub time: usize,
    /// Number of tokens there are.
    pub vocabulary: usize,
    /// Length of each token's vector.
    pub units: usize,
    /// Where the table begins in the flat vector.
    pub offset: usize,
    /// Whether another layer uses the table too.
    pub tied: bool,
}

impl Embedding {
    /// The layer behind a value of shape `input`, and the shape of its output.
    pub(crate) fn new(
        at: &mut Placement<'_>,
        input: &[usize],
        [vocabulary, units]: [usize; 2],
        tied: bool,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        at.at_least_one("vocabulary", vocabulary)?;
        at.at_least_one("units", units)?;
        if at.layer != 0 {
            return Err(at.rule("must be the first layer"));
        }
        if vocabulary > MAX_VOCABULARY {
            return Err(at.rule("can tell at most 2^24 tokens apart"));
        }
        let &[time] = input else {
            return Err(at.shape_error("token ids: [time]", input));
        };
        // Rows whose norm is near 1, whatever the vocabulary: a tied layer's outputs then begin of the size of its inputs.
        let init = Init::GlorotUniform {
            fan_in: units,
            fan_out: units,
        };
        let embedding = Self {
            time,
            vocabulary,
            units,
            offset: at.parameter("table", vec![vocabulary, units], init)?,
            tied,
        };
        Ok((embedding, vec![time, units]))
    }

    /// The table's place in the flat vector.
    pub(super) const fn table(&self) -> Range<usize> {
        self.offset..self.offset + self.vocabulary * self.units
    }
}
