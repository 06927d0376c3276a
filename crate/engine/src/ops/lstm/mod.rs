//! Long short-term memory, in full and with coupled gates.
//!
//! For each step `t` of a sequence, with `h₋₁ = c₋₁ = 0` (Hochreiter, Schmidhuber 1997, with the forget gate of Gers, Schmidhuber,
//! Cummins 2000, without peepholes):
//!
//! ```text
//! [i f g o] = xₜ·W + hₜ₋₁·R + b        four pre-activations side by side, in this order
//! i, f, o   ← 1 / (1 + e⁻ˣ)            input, forget and output gate
//! g         ← tanh                      what could be remembered
//! cₜ        = f ∘ cₜ₋₁ + i ∘ g
//! mₜ        = o ∘ tanh cₜ
//! hₜ        = mₜ, or mₜ·P with a projection (Sak, Senior, Beaufays 2014, equation 7)
//! ```
//!
//! Shapes: `x [rows, time, features]`, `y = h [rows, time, outputs]`, `c` and `m` `[rows, time, units]`; `W [features, 4·units]`,
//! `R [outputs, 4·units]`, `b [4·units]`, `P [units, outputs]`. `cifg-lstm` couples the input and the forget gate, `i = 1 − f` (Greff
//! et al. 2017; the cell of Hard et al. 2018): three pre-activations `[f g o]` in this order, and `3·units` for `4·units`.
//!
//! In the flat vector: `recurrent_kernel` R, `projection` P where there is one, `input_kernel` W, `bias` b. The last two are those of
//! a [dense](super::dense) layer over all steps, whose output is what each step starts from. The kernels begin as Glorot and
//! Bengio's, each gate's by itself; all biases, the forget gate's too, at zero.
//!
//! Gradients by the chain rule through time (Werbos 1990), last step to first, with `dh` the sum of what comes from above and
//! from the next step:
//!
//! ```text
//! dm = dh·Pᵀ                 (dh without a projection)
//! dc = dm ∘ o ∘ (1 − tanh² c) + what the next step passes down
//! di, df, dg, do = dc∘g∘i(1−i), dc∘cₜ₋₁∘f(1−f), dc∘i∘(1−g²), dm∘tanh c∘o(1−o)
//! df = dc∘(cₜ₋₁ − g)∘f(1−f)  (coupled)
//! passed down: dc∘f to dcₜ₋₁, [di df dg do]·Rᵀ to dhₜ₋₁
//! ```
//!
//! These take the place of the kept gates; `dh` takes that of `dy`. What is left are products over all steps at once:
//! `dW = xᵀ·dgates`, `dR = hₜ₋₁ᵀ·dgates`, `db = Σ dgates`, `dP = mᵀ·dh`, `dx = dgates·Wᵀ`, and the norms of an example's gradient are
//! those of such products and sums.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use std::ops::Range;

use super::dense::Dense;
use crate::{SpecError, layout::Init, model::Placement};

/// A long short-term memory: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lstm {
    /// Steps of an example.
    pub time: usize,
    /// Cells.
    pub units: usize,
    /// Length of the output of a step.
    pub outputs: usize,
    /// Whether the input gate is what the forget gate leaves.
    pub coupled: bool,
    /// Where the projection begins in the flat vector; none where a step's output is `m`.
    pub projection: Option<usize>,
    /// Where the recurrent kernel begins in the flat vector.
    pub offset: usize,
    /// What the input says to the gates, over all steps.
    pub input: Dense,
}

impl Lstm {
    /// The full layer behind a value of shape `input`, and the shape of its output.
    pub(crate) fn new(
        at: &mut Placement<'_>,
        input: &[usize],
        units: usize,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        Self::build(at, input, units, None, false)
    }

    /// The layer with coupled gates.
    pub(crate) fn coupled(
        at: &mut Placement<'_>,
        input: &[usize],
        units: usize,
        projection: Option<usize>,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        Self::build(at, input, units, projection, true)
    }

    fn build(
        at: &mut Placement<'_>,
        input: &[usize],
        units: usize,
        projected: Option<usize>,
        coupled: bool,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        at.at_least_one("units", units)?;
        at.at_least_one("projection", projected.unwrap_or(1))?;
        let &[time, features] = input else {
            return Err(at.shape_error("a sequence: [time, features]", input));
        };
        let outputs = projected.unwrap_or(units);
        let gates = units
            .checked_mul(if coupled { 3 } else { 4 })
            .ok_or_else(|| at.too_large())?;
        let between = |fan_in, fan_out| Init::GlorotUniform { fan_in, fan_out };
        let offset = at.parameter("recurrent_kernel", vec![outputs, gates], between(outputs, units))?;
        let projection = projected
            .map(|outputs| at.parameter("projection", vec![units, outputs], between(units, outputs)))
            .transpose()?;
        let kernel = at.parameter("input_kernel", vec![features, gates], between(features, units))?;
        at.parameter("bias", vec![gates], Init::Zeros)?;
        let lstm = Self {
            time,
            units,
            outputs,
            coupled,
            projection,
            offset,
            input: Dense {
                positions: time,
                inputs: features,
                outputs: gates,
                offset: kernel,
                relu: false,
            },
        };
        Ok((lstm, vec![time, outputs]))
    }

    /// Pre-activations of a step.
    const fn gates(&self) -> usize {
        self.input.outputs
    }

    /// The recurrent kernel's place in the flat vector.
    const fn recurrent_kernel(&self) -> Range<usize> {
        self.offset..self.offset + self.outputs * self.gates()
    }

    /// The projection's place in the flat vector, where there is one.
    fn projection(&self) -> Option<Range<usize>> {
        self.projection
            .map(|start| start..start + self.units * self.outputs)
    }
}
