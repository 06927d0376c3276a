//! Coins of probability exp(−γ) for rational γ: CKS Algorithm 1.

use rand_core::CryptoRng;

use super::NoiseError;
use super::uniform::{below, below_wide};

/// A coin that shows `true` with probability exp(−γ), exactly, for γ = `num / den` ≥ 0 (CKS Algorithm 1).
///
/// # Errors
/// [`NoiseError::ZeroDenominator`].
pub fn bernoulli_exp<R: CryptoRng + ?Sized>(num: u128, den: u128, rng: &mut R) -> Result<bool, NoiseError> {
    if den == 0 {
        return Err(NoiseError::ZeroDenominator);
    }
    Ok(exp_wide(num, den, rng))
}

/// Bernoulli(exp(−`num`/`den`)) for 0 < `den`.
pub(super) fn exp_wide<R: CryptoRng + ?Sized>(num: u128, den: u128, rng: &mut R) -> bool {
    if let (Ok(num), Ok(den)) = (u64::try_from(num), u64::try_from(den)) {
        return exp(num, den, rng);
    }
    // CKS Algorithm 1, the branch γ > 1: ⌊γ⌋ coins of probability exp(−1), then one for what is left of γ.
    for _ in 0..num / den {
        if !exp_minus_one(rng) {
            return false;
        }
    }
    let num = num % den;
    // The branch γ ≤ 1: K ← 1; A ← Bernoulli(γ/K); while A = 1, K ← K + 1; true if K is odd.
    let mut k: u64 = 1;
    // Bernoulli(γ/K) is Bernoulli(γ) and, independently, Bernoulli(1/K): no product can overflow.
    while below_wide(den, rng) < num && below(k, rng) == 0 {
        k += 1;
    }
    k % 2 == 1
}

/// Bernoulli(exp(−`num`/`den`)) for 0 < `den`, in 64 bits.
#[inline]
pub(super) fn exp<R: CryptoRng + ?Sized>(num: u64, den: u64, rng: &mut R) -> bool {
    let mut num = num;
    // CKS Algorithm 1, the branch γ > 1 (see above).
    if num > den {
        for _ in 0..num / den {
            if !exp_minus_one(rng) {
                return false;
            }
        }
        num %= den;
    }
    // The branch γ ≤ 1. K ← 1
    let mut k: u64 = 1;
    loop {
        // A ← Bernoulli(γ/K) = [uniform below den·K is below num]
        let heads = match den.checked_mul(k) {
            Some(n) => below(n, rng) < num,
            None => below(den, rng) < num && below(k, rng) == 0,
        };
        // A = 0: leave the loop, true if K is odd. A = 1: K ← K + 1
        if !heads {
            return k % 2 == 1;
        }
        k += 1;
    }
}

/// The number of trials of Algorithm 1 that one random word decides.
pub(super) const TRIALS: u64 = 15;

/// TRIALS!
pub(super) const FACTORIAL: u64 = factorial(TRIALS);

/// How often TRIALS! fits into the 2⁶⁴ words: each of TRIALS! outcomes gets this many words.
pub(super) const SHARE: u64 = u64::MAX / FACTORIAL;

/// Words that show `true`: those of the outcomes in which the loop ends at an odd K ≤ TRIALS. It ends at K with probability
/// 1/(K−1)! − 1/K!.
pub(super) const ODD: u64 = {
    let (mut sum, mut k) = (0, 1);
    while k <= TRIALS {
        sum += FACTORIAL / factorial(k - 1) - FACTORIAL / factorial(k);
        k += 2;
    }
    sum * SHARE
};

const fn factorial(n: u64) -> u64 {
    if n == 0 { 1 } else { n * factorial(n - 1) }
}

/// Bernoulli(exp(−1)): Algorithm 1 at γ = 1, with the loop's first trials read off one word.
///
/// At γ = 1 trial K succeeds with probability 1/K, so that the first `TRIALS` trials have TRIALS! equally likely joint
/// outcomes. A word below SHARE · TRIALS! names one; the others (one in 10⁷) are drawn again. One outcome, all trials
/// succeeding, leads on into the loop; of the rest, those that end at an odd K are put first.
#[inline]
pub(super) fn exp_minus_one<R: CryptoRng + ?Sized>(rng: &mut R) -> bool {
    loop {
        let word = rng.next_u64();
        if word >= SHARE * FACTORIAL {
            continue;
        }
        if word >= SHARE {
            return word < SHARE + ODD;
        }
        let mut k = TRIALS + 1;
        while below(k, rng) == 0 {
            k += 1;
        }
        return k % 2 == 1;
    }
}
