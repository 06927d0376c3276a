//! In which order examples are visited. Seeded, and the same on every back end and every platform.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// The order of the examples in `epoch` (from 0): a Fisher–Yates shuffle (Knuth, TAOCP 2, algorithm 3.4.2 P) driven by
/// ChaCha20 seeded with `seed`, stream `epoch`. Each epoch's order can be had without the ones before it, so an epoch can be
/// repeated after a fault.
pub(crate) fn epoch_order(examples: usize, seed: u64, epoch: u32) -> Vec<u32> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(epoch));
    let mut order: Vec<u32> = (0..examples as u32).collect();
    for last in (1..examples).rev() {
        order.swap(last, below(&mut rng, last as u64 + 1) as usize);
    }
    order
}

/// Uniform in `0..bound` (Lemire 2019, without the division-free short cut: rejection keeps it exact).
fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    let threshold = bound.wrapping_neg() % bound; // 2⁶⁴ mod bound
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// Uniform in [−1, 1), with the 24 bits that an `f32` resolves there. For initial weights.
pub(crate) fn signed_unit(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0
}

/// What dropout draws from in step `index` (from 0) of a training: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), which
/// sends neighbouring steps far apart.
pub(crate) const fn step_key(seed: u64, index: u32) -> u32 {
    let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as u32
}

/// A generator for initial weights.
pub(crate) fn weight_rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_that_depends_on_seed_and_epoch() {
        let order = epoch_order(100, 7, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, epoch_order(100, 7, 0));
        assert_ne!(order, epoch_order(100, 7, 1));
        assert_ne!(order, epoch_order(100, 8, 0));
        assert_eq!(epoch_order(1, 0, 0), [0]);
    }

    /// 6 orders of 3 examples, 6,000 draws: chi-square with 5 degrees of freedom; the threshold 25.7 has a false-alarm
    /// rate of 1e-4, and the seeds are fixed.
    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(epoch_order(3, seed, 0)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        let chi2: f64 = counts
            .values()
            .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi2 < 25.7, "{chi2}");
    }
}
