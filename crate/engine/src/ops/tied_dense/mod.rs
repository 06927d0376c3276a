//! Tied dense layer: logits over the vocabulary by the embedding's own table (Press, Wolf 2017; Inan et al. 2017).
//!
//! `y[r, v] = b[v] + Σᵤ x[r, u] · E[v, u]`; shapes `x [rows, units]`, `E [vocabulary, units]`, `b [vocabulary]`,
//! `y [rows, vocabulary]`, where every position of an example is a row. `E` is the table of the model's
//! [embedding](super::embedding), whose vectors must be as long as those that reach this layer; `b` is its own.
//!
//! Gradients: `dx = dy·E`, `db = Σᵣ dy[r]`, and for the table `dyᵀ·x`, which is written; the embedding, whose turn comes later in
//! the backward pass, adds its own.
//!
//! For the norm of an example's gradient the two cannot be taken apart: with `A = Σₜ dyₜ ⊗ xₜ` from here and `B = Σₛ 1[kₛ] ⊗ eₛ`
//! from the embedding (tokens `k`, its outputs' gradients `e`), `⟨A, B⟩ = Σₛ ⟨Σₜ dyₜ[kₛ]·xₜ, eₛ⟩`, which makes no
//! `[vocabulary, units]` either.

mod cpu;
#[cfg(feature = "gpu")]
mod gpu;

use std::ops::Range;

use super::embedding::Embedding;
use crate::{SpecError, layout::Init, model::Placement};

/// A tied dense layer: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TiedDense {
    /// Rows of an example.
    pub positions: usize,
    /// The embedding whose table it uses.
    pub embedding: Embedding,
    /// Where the bias begins in the flat vector.
    pub bias: usize,
}

impl TiedDense {
    /// The layer behind a value of shape `input`, and the shape of its output. `embedding` is the model's, where there is one
    /// that no other layer shares.
    pub(crate) fn new(
        at: &mut Placement<'_>,
        input: &[usize],
        embedding: Option<Embedding>,
    ) -> Result<(Self, Vec<usize>), SpecError> {
        let Some(embedding) = embedding else {
            return Err(at.rule("needs an embedding as the first layer, which no other layer shares"));
        };
        // INVARIANT: shapes have at least one dimension.
        let (leading, inputs) = (&input[..input.len() - 1], input[input.len() - 1]);
        if inputs != embedding.units {
            return Err(at.shape_error("as many features as the embedding has units", input));
        }
        let vocabulary = embedding.vocabulary;
        let tied = Self {
            positions: leading.iter().product(),
            embedding,
            bias: at.parameter("bias", vec![vocabulary], Init::Zeros)?,
        };
        Ok((tied, [leading, &[vocabulary]].concat()))
    }

    /// The bias's place in the flat vector.
    const fn bias(&self) -> Range<usize> {
        self.bias..self.bias + self.embedding.vocabulary
    }
}
