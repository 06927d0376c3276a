//! The chance of training that is private for each example: the platform's randomness, by way of the exact samplers.

use unsaid_engine::{Chance, EngineError};
use unsaid_privacy::ExampleNoise;

use crate::random::Random;

/// Lots and noise of one training, from a generator of its own.
pub(crate) struct Lots<'a> {
    noise: &'a ExampleNoise,
    random: Random,
}

impl<'a> Lots<'a> {
    pub fn new(noise: &'a ExampleNoise) -> Self {
        Self {
            noise,
            random: Random::default(),
        }
    }
}

fn failed(error: impl ToString) -> EngineError {
    EngineError::Chance(error.to_string())
}

impl Chance for Lots<'_> {
    fn lot(&mut self, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        self.noise
            .lot(examples, lot, self.random.generator().map_err(failed)?);
        Ok(())
    }

    fn noise(&mut self, noise: &mut [i32]) -> Result<(), EngineError> {
        let generator = self.random.generator().map_err(failed)?;
        self.noise.noise(noise, generator).map_err(failed)
    }
}
