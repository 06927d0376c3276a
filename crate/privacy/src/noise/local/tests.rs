use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::noise::uniform::below;

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

#[test]
fn local_noise_never_has_less_variance_than_asked_for() {
    let mut rng = rng(140);
    for _ in 0..3_000 {
        // z from 2⁻¹⁰ to 2¹⁰, all 53 bits random; clips from 1 to 2¹⁶ steps; up to 2¹⁶ coordinates.
        let mantissa = rng.next_u64() >> 11 | 1 << 52;
        let exponent = 42 + below(21, &mut rng) as i32; // z = mantissa / 2^exponent
        let z = mantissa as f64 / 2f64.powi(exponent);
        let clip = (1 + below(1 << 16, &mut rng)) as f64 + 0.37;
        let encoding = Encoding::new(clip, 1.0, 1 + below(1 << 16, &mut rng) as usize).unwrap();
        let noise = LocalNoise::new(&encoding, z).unwrap();
        let (num, den) = noise.gaussian().variance();
        // num/den ≥ mantissa²·Δ²/2^(2·exponent), in whole numbers: num·2^(2·exponent) ≥ mantissa²·Δ²·den
        let asked = product(&[mantissa, mantissa, encoding.bound_squared(), den]);
        let given = product(&[num, 1 << exponent, 1 << exponent]);
        assert!(given >= asked, "z = {z}, Δ² = {}", encoding.bound_squared());
        // At most one part in 65,536 above (and the rounding of floats).
        let above = noise.variance_steps() / (z * z * encoding.bound_squared() as f64);
        assert!(above <= 1.0 + 1.0 / 65_535.0, "{above}");
        // So the cost is at most that of the multiplier, and hardly less.
        for adjacency in [Adjacency::ReplaceOne, Adjacency::AddRemove] {
            let (given, asked) = (
                noise.rho(adjacency).get(),
                Rho::local_round(z, adjacency).unwrap().get(),
            );
            assert!(
                given <= asked * (1.0 + 1e-14) && given > asked * 0.9999,
                "{given} for {asked}"
            );
        }
    }
}

/// Base-2³² digits of a product, the most significant first and padded to a common length, so that they compare as numbers.
fn product(factors: &[u64]) -> Vec<u32> {
    let mut digits = vec![1_u32];
    digits.resize(10, 0);
    for factor in factors {
        let mut carry = 0_u128;
        for digit in &mut digits {
            let value = u128::from(*digit) * u128::from(*factor) + carry;
            *digit = value as u32;
            carry = value >> 32;
        }
        assert_eq!(carry, 0);
    }
    digits.reverse();
    digits
}

#[test]
fn noise_that_cannot_be_right_is_refused() {
    let encoding = Encoding::new(1.0, 1.0 / 1_024.0, 100).unwrap();
    for z in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(LocalNoise::new(&encoding, z), Err(NoiseError::NoiseMultiplier(_))),
            "{z}"
        );
    }
    assert!(matches!(
        LocalNoise::new(&encoding, 1e6),
        Err(NoiseError::TooWide { .. })
    ));
    assert!(matches!(
        LocalNoise::new(&encoding, f64::MAX),
        Err(NoiseError::TooWide { .. })
    ));
    assert!(matches!(
        LocalNoise::new(&encoding, 1e-9),
        Err(NoiseError::OutOfRange { .. })
    ));
    assert!(matches!(
        LocalNoise::new(&encoding, f64::MIN_POSITIVE),
        Err(NoiseError::OutOfRange { .. })
    ));
    // The widest that fits, and the narrowest.
    let finest = Encoding::new(1.0, 1.0 / Encoding::MAX_CLIP_STEPS, 100).unwrap();
    assert!(LocalNoise::new(&finest, 7.9).is_ok());
    assert!(LocalNoise::new(&encoding, 2.5e-7).is_ok());
}

#[test]
fn a_coordinate_that_leaves_32_bits_is_an_error() {
    let gaussian = DiscreteGaussian::with_variance(1_000_000, 1).unwrap();
    let mut errors = 0;
    for seed in 0..20 {
        let mut coordinates = [5, i32::MAX, i32::MIN, 7];
        if let Err(error) = add_samples(&gaussian, &mut coordinates, &mut rng(seed)) {
            assert!(matches!(error, NoiseError::Saturated { index: 1 | 2 }));
            errors += 1;
        }
    }
    // One of the two saturates with probability 3/4.
    assert!(errors > 5, "{errors}");
}

#[test]
fn noise_is_never_put_on_what_it_is_too_small_for() {
    let encoding = Encoding::new(1.0, 1.0 / 1_024.0, 4).unwrap();
    let noise = LocalNoise::new(&encoding, 1.0).unwrap();
    let longest = (encoding.bound_squared() as f64).sqrt() as i32;
    assert_eq!(noise.add(&mut [longest, 0, 0, 0], &mut rng(1)), Ok(()));
    for bad in [
        vec![longest + 1, 0, 0, 0],
        vec![i32::MIN; 4],
        vec![0; 3],
        vec![0; 5],
        vec![],
    ] {
        let mut coordinates = bad;
        assert_eq!(
            noise.add(&mut coordinates, &mut rng(1)),
            Err(NoiseError::Unbounded)
        );
        assert!(coordinates.iter().all(|x| *x == 0));
    }
}
