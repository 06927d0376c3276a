//! Where the noise that the relay adds comes from, and the keys by which it draws whom it lets in: ChaCha20, seeded by the platform each
//! time anew, failing closed; for a node of a tree over rounds by a seed that such a generator gave.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// A generator for each round. There is no way to seed it but the platform's; a simulation, whose noise protects nobody, brings its own
/// (`simulate/random.rs`).
pub struct Randomness(Source);

type Source = Box<dyn Fn(u64) -> Result<ChaCha20Rng, getrandom::Error> + Send + Sync>;

impl std::fmt::Debug for Randomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Randomness") // never its state
    }
}

impl Default for Randomness {
    fn default() -> Self {
        Self(Box::new(|_| seeded_by(getrandom::fill)))
    }
}

impl Randomness {
    /// The generator of a simulated round, or one that fails.
    pub(crate) fn simulated(
        source: impl Fn(u64) -> Result<ChaCha20Rng, getrandom::Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(source))
    }

    /// A fresh generator for `round`.
    ///
    /// # Errors
    /// The platform's, where it gives no randomness: then there is no noise, and nothing may be published.
    pub fn of(&self, round: u64) -> Result<ChaCha20Rng, getrandom::Error> {
        (self.0)(round)
    }
}

/// The generator of a tree's node, of a seed that [`Randomness`] drew: the same whenever it is asked for.
pub(crate) fn of_node(seed: [u8; 32]) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(seed)
}

fn seeded_by(
    source: impl FnOnce(&mut [u8]) -> Result<(), getrandom::Error>,
) -> Result<ChaCha20Rng, getrandom::Error> {
    let mut seed = [0; 32];
    source(&mut seed)?;
    Ok(ChaCha20Rng::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn without_randomness_there_is_no_generator_and_with_it_no_two_are_alike() {
        assert!(seeded_by(|_| Err(getrandom::Error::UNSUPPORTED)).is_err());
        let randomness = Randomness::default();
        let (mut one, mut other) = (randomness.of(1).unwrap(), randomness.of(1).unwrap());
        assert_ne!(one.next_u64(), other.next_u64());
    }
}
