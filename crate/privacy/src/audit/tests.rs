//! The audit of the local path: it would find out a mechanism that has less noise than it says.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::accounting::analytic_epsilon;
use crate::{Adjacency, Encoding, LocalNoise};

const CLIP: f64 = 1.0;
const DIMENSION: usize = 16;

/// What an attacker who knows both candidates finds out about `clients` updates, each one of two opposite vectors of full clip norm,
/// protected as `protect` does: about the fiftieth of them of which it is most certain, and about each.
fn attack(
    clients: usize,
    seed: u8,
    mut protect: impl FnMut(&[f32], &mut ChaCha20Rng) -> Vec<i32>,
) -> (Audit, Trials) {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let direction = [(CLIP / (DIMENSION as f64).sqrt()) as f32; DIMENSION];
    // The evidence for +, times the coin.
    let mut scores: Vec<(i64, bool)> = (0..clients)
        .map(|_| {
            let plus = rng.next_u32() & 1 == 1;
            let update: Vec<f32> = direction.iter().map(|x| if plus { *x } else { -*x }).collect();
            let sum: i64 = protect(&update, &mut rng).iter().map(|x| i64::from(*x)).sum();
            (sum, plus)
        })
        .collect();
    scores.sort_by_key(|(sum, _)| std::cmp::Reverse(sum.abs()));
    let guesses = clients / 50;
    let right = scores[..guesses]
        .iter()
        .filter(|(sum, plus)| (*sum > 0) == *plus)
        .count();
    let audit = Audit::new(clients as u64, guesses as u64, right as u64).unwrap();
    let said_plus = |of: bool| {
        let all = scores.iter().filter(|(_, plus)| *plus == of);
        let said = all.clone().filter(|(sum, _)| *sum > 0).count() as u64;
        [said, all.count() as u64]
    };
    (audit, Trials::new(said_plus(true), said_plus(false)).unwrap())
}

#[test]
fn the_local_path_passes_its_audit_and_too_little_noise_fails_it() {
    // δ times the number of canaries must be far below the probability of failing.
    let (z, delta, clients) = (4.0, 1e-11, 100_000);
    let encoding = Encoding::new(CLIP, 1.0 / 1024.0, DIMENSION).unwrap();
    let claimed = LocalNoise::new(&encoding, z)
        .unwrap()
        .rho(Adjacency::ReplaceOne)
        .epsilon(delta)
        .unwrap();
    let with = |multiplier: f64| {
        let noise = LocalNoise::new(&encoding, multiplier).unwrap();
        move |update: &[f32], rng: &mut ChaCha20Rng| {
            let mut coordinates = encoding.encode(update, rng).unwrap().coordinates;
            noise.add(&mut coordinates, rng).unwrap();
            coordinates
        }
    };
    // A private mechanism fails with probability at most 10⁻⁶.
    let found = |(audit, _): (Audit, Trials)| audit.epsilon_at_least(delta, 1.0 - 1e-6).unwrap();
    let honest = found(attack(clients, 1, with(z)));
    assert!(honest <= claimed, "{honest} {claimed}");
    // It is no blunt attack: it shows a good part of what there is. (The best that any attack could show is the exact ε.)
    let exact = analytic_epsilon(z, 1, delta, Adjacency::ReplaceOne).unwrap();
    assert!(honest > 0.2 * exact, "{honest} {exact}");
    // Positive controls: a quarter of the noise (the variance where the deviation was meant), and none.
    // Half of the noise it does not notice: that is how much it can tell.
    let half = found(attack(clients, 4, with(z / 2.0)));
    assert!(half <= claimed, "{half} {claimed}");
    let quarter = found(attack(clients, 2, with(z / 4.0)));
    assert!(quarter > claimed, "{quarter} {claimed}");
    let none = found(attack(clients, 3, |update, rng| {
        encoding.encode(update, rng).unwrap().coordinates
    }));
    assert!(none > claimed, "{none} {claimed}");
}

#[test]
fn in_independent_trials_a_tenth_less_noise_is_noticed() {
    // What the exact curve of the Gaussian has for these δ; a private mechanism is refuted at one of them with probability at most 10⁻⁶.
    let z = 4.0;
    let encoding = Encoding::new(CLIP, 1.0 / 1024.0, DIMENSION).unwrap();
    let claims: Vec<(f64, f64)> = [0.18, 0.15, 0.1, 0.05, 0.01, 1e-3]
        .map(|delta| {
            (
                analytic_epsilon(z, 1, delta, Adjacency::ReplaceOne).unwrap(),
                delta,
            )
        })
        .into();
    let refuted = |multiplier: Option<f64>, seed| {
        let noise = multiplier.map(|multiplier| LocalNoise::new(&encoding, multiplier).unwrap());
        let (_, trials) = attack(200_000, seed, |update, rng| {
            let mut coordinates = encoding.encode(update, rng).unwrap().coordinates;
            if let Some(noise) = &noise {
                noise.add(&mut coordinates, rng).unwrap();
            }
            coordinates
        });
        let holds = |(epsilon, delta): &(f64, f64)| !trials.refute(*epsilon, *delta, 1.0 - 1e-6).unwrap();
        !claims.iter().all(holds)
    };
    for seed in 10..14 {
        assert!(!refuted(Some(z), seed), "what it claims, {seed}");
    }
    for (seed, share) in [(14, 0.9), (15, 0.75), (16, 0.5), (17, 0.25)] {
        assert!(refuted(Some(share * z), seed), "{share} of the noise");
    }
    assert!(refuted(None, 18), "no noise");
}

#[test]
fn a_share_of_trials_is_held_within_its_exact_interval() {
    // Nothing of n: at most 1 − level^(1/n); all of n: at least that. Here level = 0.025.
    let all = Trials::new([20, 20], [0, 20]).unwrap();
    let least = 0.025_f64.powf(0.05);
    let ratio = (least / (1.0 - least)).ln();
    assert!(all.refute(ratio - 1e-6, 0.0, 0.95).unwrap() && !all.refute(ratio + 1e-6, 0.0, 0.95).unwrap());
    // 8 of 10 at 95 %: 0.4439 (tables of Clopper and Pearson); against an alarm that is sure to be none, to 10⁻⁵.
    let some = Trials::new([8, 10], [0, 4_000_000]).unwrap();
    assert!(some.refute(0.0, 0.4438, 0.95).unwrap() && !some.refute(0.0, 0.444, 0.95).unwrap());
    // With the inputs exchanged it is as bad.
    let other = Trials::new([0, 4_000_000], [8, 10]).unwrap();
    assert!(
        !other.refute(0.0, 0.4438, 0.95).unwrap(),
        "they were said to be what they were not"
    );
    let other = Trials::new([4_000_000, 4_000_000], [2, 10]).unwrap();
    assert!(other.refute(0.0, 0.4438, 0.95).unwrap() && !other.refute(0.0, 0.444, 0.95).unwrap());
    for (hits, alarms) in [
        ([2, 1], [0, 1]),
        ([0, 0], [0, 1]),
        ([1, 1], [2, 1]),
        ([1, 1], [0, 0]),
        ([0, 10_000_001], [0, 1]),
    ] {
        assert!(matches!(
            Trials::new(hits, alarms),
            Err(AuditError::Counts { .. })
        ));
    }
    for (delta, confidence) in [(1.0, 0.9), (f64::NAN, 0.9), (0.0, 1.0), (0.0, f64::NAN)] {
        assert!(matches!(
            all.refute(1.0, delta, confidence),
            Err(AuditError::Level { .. })
        ));
    }
}

#[test]
fn randomised_response_is_audited_to_its_own_epsilon() {
    // The mechanism for which the bound is tight: each coin told rightly with probability e^ε/(e^ε + 1).
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    for epsilon in [0.5_f64, 1.0, 3.0] {
        let coins = 200_000;
        let hit = (f64::from(u32::MAX) / (1.0 + (-epsilon).exp())) as u32;
        let right = (0..coins).filter(|_| rng.next_u32() < hit).count() as u64;
        let found = Audit::new(coins, coins, right)
            .unwrap()
            .epsilon_at_least(0.0, 1.0 - 1e-6)
            .unwrap();
        assert!(found <= epsilon && found > 0.93 * epsilon, "{epsilon}: {found}");
    }
}

#[test]
fn the_p_value_without_delta_is_the_binomial_tail() {
    // 9 or more of 10 heads: 11/1024.
    let audit = Audit::new(10, 10, 9).unwrap();
    assert!((audit.p_value(0.0, 0.0) - 11.0 / 1024.0).abs() < 1e-12);
    // With δ: the means of the one, two, … outcomes below 9, which have 45, 120, 210, 252, 210, 120 of 1,024.
    let means = [45.0, 82.5, 125.0, 156.75, 167.4, 159.5];
    let steepest = means.into_iter().fold(0.0, f64::max) / 1024.0;
    let expected = 11.0 / 1024.0 + 2.0 * 10.0 * 1e-3 * steepest;
    assert!((audit.p_value(0.0, 1e-3) - expected).abs() < 1e-12);
    // It rises with ε and with δ.
    assert!(audit.p_value(1.0, 1e-3) > expected && audit.p_value(0.0, 2e-3) > expected);
}

#[test]
fn senseless_audits_are_typed_errors() {
    for (canaries, guesses, right) in [(10, 11, 5), (10, 5, 6), (10, 0, 0), (0, 0, 0), (10_000_001, 1, 1)] {
        assert!(matches!(
            Audit::new(canaries, guesses, right),
            Err(AuditError::Counts { .. })
        ));
    }
    let audit = Audit::new(10, 10, 10).unwrap();
    for (delta, confidence) in [
        (1.0, 0.9),
        (-0.1, 0.9),
        (f64::NAN, 0.9),
        (0.0, 1.0),
        (0.0, 0.0),
        (0.0, f64::NAN),
    ] {
        assert!(matches!(
            audit.epsilon_at_least(delta, confidence),
            Err(AuditError::Level { .. })
        ));
    }
    // Everything right, and nothing right.
    assert!(audit.epsilon_at_least(0.0, 0.9).unwrap() > 1.0);
    assert_eq!(Audit::new(10, 10, 0).unwrap().epsilon_at_least(0.0, 0.9), Ok(0.0));
}
