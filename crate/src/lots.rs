//! The chance of training that is private for each example: the platform's randomness, by way of the exact samplers.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use unsaid_engine::{Chance, EngineError};
use unsaid_privacy::ExampleNoise;

use crate::{ClientError, random::Random};

/// Lots and noise of one training, from generators of its own: one for each step's lot and one for each step's noise, all streams of one
/// key. So a step that is done again, since its GPU was lost, has the same.
pub(crate) struct Lots<'a> {
    noise: &'a ExampleNoise,
    key: [u8; 32],
}

/// What a stream is for.
enum Stream {
    Lot,
    Noise,
}

impl<'a> Lots<'a> {
    /// # Errors
    /// [`ClientError::NoEntropy`].
    pub fn new(noise: &'a ExampleNoise) -> Result<Self, ClientError> {
        // A generator's first bytes are as good a key as its seed.
        let key = Random::default().bytes()?;
        Ok(Self { noise, key })
    }

    fn generator(&self, step: u32, of: Stream) -> ChaCha20Rng {
        let mut generator = ChaCha20Rng::from_seed(self.key);
        generator.set_stream(2 * u64::from(step) + of as u64);
        generator
    }
}

impl Chance for Lots<'_> {
    fn lot(&mut self, step: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        let mut generator = self.generator(step, Stream::Lot);
        self.noise.lot(examples, lot, &mut generator);
        Ok(())
    }

    fn noise(&mut self, step: u32, noise: &mut [i32]) -> Result<(), EngineError> {
        let mut generator = self.generator(step, Stream::Noise);
        let drawn = self.noise.noise(noise, &mut generator);
        drawn.map_err(|error| EngineError::Chance(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(lots: &mut Lots<'_>, step: u32) -> (Vec<u32>, Vec<i32>) {
        let (mut lot, mut noise) = (Vec::new(), vec![0; 8]);
        lots.lot(step, 64, &mut lot).unwrap();
        lots.noise(step, &mut noise).unwrap();
        (lot, noise)
    }

    /// Two of these differ by chance but with probability below 2⁻⁶⁴.
    #[test]
    fn a_step_has_the_same_lot_and_noise_again_and_no_other_step_or_training_has() {
        let noise = ExampleNoise::new(1.0, 0.5, 8).unwrap();
        let [mut lots, mut others] = [(); 2].map(|()| Lots::new(&noise).unwrap());
        let first = draw(&mut lots, 0);
        let second = draw(&mut lots, 1);
        assert!(first.0 != second.0 && first.1 != second.1);
        let again = draw(&mut lots, 0);
        assert_eq!(first, again);
        let other = draw(&mut others, 0);
        assert!(first.0 != other.0 && first.1 != other.1);
        // The noise is not the stream of the lots over again.
        let mut generator = lots.generator(0, Stream::Lot);
        let mut same = vec![0; 8];
        noise.noise(&mut same, &mut generator).unwrap();
        assert_ne!(same, first.1);
    }
}
