//! What a model is worth and what it says: forward passes without training, on the CPU.

use super::Model;
use crate::{
    DataError, EngineError, Examples,
    backend::cpu::CpuPass,
    ops::{LossInput, Tally},
};

/// Numbers that a forward pass takes at a time: enough rows for the matrix kernels, few enough to stay in cache.
const EVALUATION_NUMBERS: usize = 1 << 20;
/// The most examples at a time.
const EVALUATION_ROWS: usize = 256;

/// How well a model does on labelled examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Share of the labels that are the model's first guess, 0 to 1; 0 where there are no labels.
    pub accuracy: f64,
    /// Share of the labels that are among the model's first [`Evaluation::k`] guesses (top-k recall), 0 to 1.
    pub top_k: f64,
    /// The k of `top_k`.
    pub k: usize,
    /// Mean loss over all labels that count.
    pub loss: f64,
    /// Number of examples.
    pub examples: usize,
}

impl Evaluation {
    /// `exp(loss)`: over how many equally likely labels the model is as unsure. For language models.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// The k of [`Model::evaluate`]: that of next-word suggestions, of which a keyboard shows three.
pub(crate) const USUAL_K: usize = 3;

impl Tally {
    /// An empty tally that counts the first `k` guesses.
    pub const fn new(k: usize) -> Self {
        Self {
            k,
            counted: 0,
            loss: 0.0,
            right: 0,
            in_top_k: 0,
        }
    }

    /// What it says about so many examples.
    pub fn evaluation(&self, examples: usize) -> Evaluation {
        let counted = self.counted.max(1) as f64;
        Evaluation {
            accuracy: self.right as f64 / counted,
            top_k: self.in_top_k as f64 / counted,
            k: self.k,
            loss: self.loss / counted,
            examples,
        }
    }
}

impl Model {
    /// Accuracy, top-3 recall and mean loss on `examples`, on the CPU.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Data`] where the parameters or the examples are not this model's.
    pub fn evaluate(&self, parameters: &[f32], examples: &Examples) -> Result<Evaluation, EngineError> {
        self.evaluate_top(parameters, examples, USUAL_K)
    }

    /// As [`Model::evaluate`], with the recall among the first `k` guesses.
    ///
    /// # Errors
    /// As [`Model::evaluate`].
    pub fn evaluate_top(
        &self,
        parameters: &[f32],
        examples: &Examples,
        k: usize,
    ) -> Result<Evaluation, EngineError> {
        self.check_runs(parameters)?;
        self.check_examples(examples)?;
        let rows = self.evaluation_rows(examples.len());
        let mut pass = CpuPass::new(self, rows);
        let mut tally = Tally::new(k);
        for (x, targets) in examples
            .x()
            .chunks(rows * self.features())
            .zip(examples.y().chunks(rows * examples.targets_per_example()))
        {
            let rows = x.len() / self.features();
            let outputs = pass.forward(self, parameters, x, rows, None);
            let batch = LossInput {
                rows,
                outputs,
                targets,
            };
            self.loss().tally_cpu(batch, &mut tally);
        }
        Ok(tally.evaluation(examples.len()))
    }

    /// The model's answer to each row of `x`, `[rows, features] → [rows, outputs]`, on the CPU: probabilities, where the loss
    /// has them.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Data`] where the parameters or the rows are not this model's.
    pub fn predict(&self, parameters: &[f32], x: &[f32]) -> Result<Vec<f32>, EngineError> {
        self.check_runs(parameters)?;
        let features = self.features();
        if x.is_empty() || !x.len().is_multiple_of(features) {
            return Err(DataError::Length {
                values: x.len(),
                labels: x.len() / features,
                features,
            }
            .into());
        }
        self.check_features(x)?;
        let rows = self.evaluation_rows(x.len() / features);
        let mut pass = CpuPass::new(self, rows);
        let mut answers = Vec::with_capacity(x.len() / features * self.value_lens[self.value_lens.len() - 1]);
        for rows in x.chunks(rows * features) {
            answers.extend_from_slice(pass.forward(self, parameters, rows, rows.len() / features, None));
        }
        self.loss().predict_cpu(&mut answers);
        Ok(answers)
    }

    /// Examples of one forward pass.
    fn evaluation_rows(&self, examples: usize) -> usize {
        let largest = self.value_lens.iter().copied().max().unwrap_or(1).max(1);
        (EVALUATION_NUMBERS / largest)
            .clamp(1, EVALUATION_ROWS)
            .min(examples)
    }
}
