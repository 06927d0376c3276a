//! Where all chance in a simulation comes from: one seed. The only generator of the relay that can be seeded, and the module is
//! private: nothing but a simulation can make noise with it.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_protocol::ContentHash;

use crate::randomness::Randomness;

/// What is drawn. Each purpose, round and client has a generator of its own, so that no draw depends on another's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Which clients a round chooses.
    Cohort,
    /// Which client starts next in asynchronous rounds, and how long it takes.
    Flight,
    /// The order of a client's examples.
    Order,
    /// How a client rounds, and its noise.
    Protection,
    /// Which examples a client's private steps take, and their noise.
    Lots,
    /// The relay's noise.
    Aggregation,
    /// The order in which a baseline sees its examples.
    Baseline,
}

/// A simulation's seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// ChaCha20, seeded by the SHA-256 of all that it is for.
    pub(super) fn generator(self, purpose: Purpose, round: u64, client: u64) -> ChaCha20Rng {
        let name = format!("unsaid simulation {} {purpose:?} {round} {client}", self.0);
        ChaCha20Rng::from_seed(*ContentHash::of(name.as_bytes()).as_bytes())
    }

    /// Where a simulated relay's noise comes from.
    pub(super) fn aggregation(self) -> Randomness {
        Randomness::simulated(move |round| Ok(self.generator(Purpose::Aggregation, round, 0)))
    }

    /// A seed for the engine, which orders examples by it.
    pub(super) fn order(self, purpose: Purpose, round: u64, client: u64) -> u64 {
        self.generator(purpose, round, client).next_u64()
    }
}

/// Uniform in `0..bound`, off by less than 2⁻⁴⁰ for fewer than 2²⁴.
pub(super) fn below(rng: &mut impl Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}
