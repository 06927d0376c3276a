//! Uniform numbers below a bound, and biased coins of rational probability: the base of every sampler.

use rand_core::CryptoRng;

use super::NoiseError;

/// A number drawn uniformly from `0..n`, without bias.
///
/// # Errors
/// [`NoiseError::EmptyRange`] for `n` = 0.
pub fn uniform_below<R: CryptoRng + ?Sized>(n: u128, rng: &mut R) -> Result<u128, NoiseError> {
    if n == 0 {
        return Err(NoiseError::EmptyRange);
    }
    Ok(below_wide(n, rng))
}

/// A coin that shows `true` with probability `num / den`, exactly.
///
/// # Errors
/// [`NoiseError::ZeroDenominator`], and [`NoiseError::ProbabilityAboveOne`] for `num` > `den`.
pub fn bernoulli<R: CryptoRng + ?Sized>(num: u128, den: u128, rng: &mut R) -> Result<bool, NoiseError> {
    if den == 0 {
        return Err(NoiseError::ZeroDenominator);
    }
    if num > den {
        return Err(NoiseError::ProbabilityAboveOne);
    }
    Ok(below_wide(den, rng) < num)
}

/// Uniform in `0..n` for 0 < `n`, by multiplication and rejection (Lemire, “Fast Random Integer Generation in an
/// Interval”, ACM TOMACS 2019, Algorithm 5), on 32-bit words where `n` allows it: a 32-bit word costs half as much.
#[inline]
pub(super) fn below<R: CryptoRng + ?Sized>(n: u64, rng: &mut R) -> u64 {
    match u32::try_from(n) {
        Ok(n) => u64::from(below_32(n, rng)),
        Err(_) => below_64(n, rng),
    }
}

#[inline]
pub(super) fn below_32<R: CryptoRng + ?Sized>(n: u32, rng: &mut R) -> u32 {
    debug_assert!(n > 0);
    let mut product = u64::from(rng.next_u32()) * u64::from(n);
    if (product as u32) < n {
        // 2³² mod n words too many: those whose low half falls below that are drawn again.
        let surplus = n.wrapping_neg() % n;
        while (product as u32) < surplus {
            product = u64::from(rng.next_u32()) * u64::from(n);
        }
    }
    (product >> 32) as u32
}

#[inline]
fn below_64<R: CryptoRng + ?Sized>(n: u64, rng: &mut R) -> u64 {
    debug_assert!(n > 0);
    let mut product = u128::from(rng.next_u64()) * u128::from(n);
    if (product as u64) < n {
        let surplus = n.wrapping_neg() % n;
        while (product as u64) < surplus {
            product = u128::from(rng.next_u64()) * u128::from(n);
        }
    }
    (product >> 64) as u64
}

/// Uniform in `0..n` for 0 < `n`: above 64 bits by drawing as many bits as `n − 1` has until they are below `n`, which takes
/// fewer than two draws on average.
pub(super) fn below_wide<R: CryptoRng + ?Sized>(n: u128, rng: &mut R) -> u128 {
    debug_assert!(n > 0);
    if let Ok(n) = u64::try_from(n) {
        return u128::from(below(n, rng));
    }
    let mask = u128::MAX >> (n - 1).leading_zeros();
    loop {
        let word = (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())) & mask;
        if word < n {
            return word;
        }
    }
}
