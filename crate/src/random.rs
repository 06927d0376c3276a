//! Randomness: ChaCha20, seeded by the platform, failing closed. There is no way to seed it from outside.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::ClientError;

/// The client's generator: noise, ids, and the order of the examples.
#[derive(Default)]
pub struct Random {
    generator: Option<ChaCha20Rng>,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random") // never its state
    }
}

impl Random {
    /// The generator, seeded on first use.
    ///
    /// # Errors
    /// [`ClientError::NoEntropy`] where the platform gives no randomness.
    pub fn generator(&mut self) -> Result<&mut ChaCha20Rng, ClientError> {
        self.seeded_by(getrandom::fill)
    }

    /// The generator, seeded by `source` on first use: no seed, no generator.
    fn seeded_by(
        &mut self,
        source: impl FnOnce(&mut [u8]) -> Result<(), getrandom::Error>,
    ) -> Result<&mut ChaCha20Rng, ClientError> {
        if self.generator.is_none() {
            let mut seed = [0; 32];
            source(&mut seed).map_err(|error| ClientError::NoEntropy(error.to_string()))?;
            self.generator = Some(ChaCha20Rng::from_seed(seed));
        }
        self.generator
            .as_mut()
            .ok_or_else(|| ClientError::NoEntropy("no generator".into()))
    }

    /// Random bytes.
    ///
    /// # Errors
    /// [`ClientError::NoEntropy`].
    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ClientError> {
        let mut bytes = [0; N];
        self.generator()?.fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_randomness_there_is_an_error_and_no_generator() {
        let mut random = Random::default();
        for _ in 0..2 {
            let refused = random.seeded_by(|_| Err(getrandom::Error::UNSUPPORTED));
            assert!(matches!(refused, Err(ClientError::NoEntropy(_))));
            assert!(random.generator.is_none());
        }
        // A platform that can do it later is asked again.
        assert!(random.generator().is_ok());
        assert!(random.generator.is_some());
    }
}
