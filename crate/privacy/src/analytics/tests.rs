//! Statistical tests have fixed seeds, and say with what probability they would fail on correct code for a random one.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::Adjacency;
use crate::statistics::{FALSE_ALARM, chi_square_p};

const SCHEMES: [FrequencyScheme; 3] = [
    FrequencyScheme::RandomizedResponse,
    FrequencyScheme::UnaryEncoding,
    FrequencyScheme::Hadamard,
];

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// The exact probability of each report, for schemes whose report is an index.
fn probabilities(oracle: &FrequencyOracle, value: u32) -> Vec<f64> {
    let (k, e) = (oracle.categories(), oracle.epsilon().exp());
    match oracle.scheme() {
        FrequencyScheme::RandomizedResponse => (0..k)
            .map(|at| (if at == value { e } else { 1.0 }) / (e + f64::from(k) - 1.0))
            .collect(),
        _ => {
            let columns = (k + 1).next_power_of_two();
            (0..columns)
                .map(|column| {
                    let plus = ((value + 1) & column).count_ones().is_multiple_of(2);
                    (if plus { e } else { 1.0 }) / (e + 1.0) / f64::from(columns / 2)
                })
                .collect()
        }
    }
}

#[test]
fn reports_have_their_exact_probabilities_and_the_wrong_value_is_noticed() {
    for (seed, scheme) in [FrequencyScheme::RandomizedResponse, FrequencyScheme::Hadamard]
        .into_iter()
        .enumerate()
    {
        let oracle = FrequencyOracle::new(scheme, 5, 1.3).unwrap();
        let mut rng = rng(seed as u8);
        let samples = 100_000;
        let mut counts = vec![0.0; 8];
        for _ in 0..samples {
            match oracle.report(2, &mut rng).unwrap() {
                Report::Index(at) => counts[at as usize] += 1.0,
                Report::Bits(_) => panic!("not an index"),
            }
        }
        let p = |value| {
            let expected = probabilities(&oracle, value);
            let statistic = expected
                .iter()
                .zip(&counts)
                .map(|(p, count)| (count - p * f64::from(samples)).powi(2) / (p * f64::from(samples)))
                .sum();
            chi_square_p(statistic, expected.len() - 1)
        };
        assert!(
            p(2) > FALSE_ALARM && p(3) < FALSE_ALARM,
            "{scheme:?}: {} {}",
            p(2),
            p(3)
        );
    }
}

#[test]
fn the_bits_of_unary_encoding_are_set_as_often_as_they_should_be() {
    // The true value's bit with 1/2, another's with 1/(e^ε + 1): each count of 100,000 is binomial, and its chi-square test of one
    // degree fails on correct code with probability 10⁻⁶.
    let oracle = FrequencyOracle::new(FrequencyScheme::UnaryEncoding, 70, 1.3).unwrap();
    let (mut rng, samples) = (rng(3), 100_000);
    let mut counts = [0.0; 3];
    let bits = [66, 2, 69];
    for _ in 0..samples {
        let Report::Bits(words) = oracle.report(66, &mut rng).unwrap() else {
            panic!("not bits")
        };
        for (count, at) in counts.iter_mut().zip(bits) {
            *count += (words[at / 64] >> (at % 64) & 1) as f64;
        }
    }
    let fit = |count: f64, p: f64| {
        let expected = p * f64::from(samples);
        chi_square_p((count - expected).powi(2) / (expected * (1.0 - p)), 1)
    };
    let other = 1.0 / (1.3_f64.exp() + 1.0);
    assert!(fit(counts[0], 0.5) > FALSE_ALARM, "{counts:?}");
    assert!(
        counts[1..].iter().all(|count| fit(*count, other) > FALSE_ALARM),
        "{counts:?}"
    );
    // Positive controls: one for the other, and ε off by a twentieth.
    assert!(fit(counts[0], other) < FALSE_ALARM && fit(counts[1], 0.5) < FALSE_ALARM);
    assert!(fit(counts[1], 1.0 / (1.365_f64.exp() + 1.0)) < FALSE_ALARM);
}

#[test]
fn no_report_is_more_than_e_to_the_epsilon_as_likely_under_one_value_as_under_another() {
    for epsilon in [1e-4, 0.3, 1.0, 4.0, 20.0] {
        for scheme in SCHEMES {
            let oracle = FrequencyOracle::new(scheme, 7, epsilon).unwrap();
            // The fraction is below e^ε, and near it.
            assert!(oracle.epsilon() <= epsilon && oracle.epsilon() > epsilon - 2e-6);
        }
        // From the probabilities themselves, of every report under every two values.
        for scheme in [FrequencyScheme::RandomizedResponse, FrequencyScheme::Hadamard] {
            let oracle = FrequencyOracle::new(scheme, 7, epsilon).unwrap();
            let all: Vec<Vec<f64>> = (0..7).map(|value| probabilities(&oracle, value)).collect();
            for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
                for (x, y) in a.iter().zip(b) {
                    assert!(x / y <= epsilon.exp() * (1.0 + 1e-12));
                }
            }
        }
    }
}

#[test]
fn estimates_are_unbiased_and_their_intervals_hold_the_truth_as_often_as_they_say() {
    // Shares 1/2, 3/10, 2/10 and three times 0. In 200 rounds of 2,000 people 95 % intervals of one value hold the truth 190 times, and
    // fewer than 170 or all 200 times with probability below 10⁻⁴ (binomial); six values and three schemes: below 0.2 %.
    let truth = [0.5, 0.3, 0.2, 0.0, 0.0, 0.0];
    for (seed, scheme) in SCHEMES.into_iter().enumerate() {
        let oracle = FrequencyOracle::new(scheme, 6, 1.0).unwrap();
        let mut rng = rng(10 + seed as u8);
        let (mut held, mut sums, mut naive) = ([0; 6], [0.0; 6], 0.0_f64);
        let mut errors = [0.0; 6];
        for _ in 0..200 {
            let reports: Vec<Report> = (0..2_000)
                .map(|i| {
                    oracle
                        .report([0, 0, 0, 0, 0, 1, 1, 1, 2, 2][i % 10], &mut rng)
                        .unwrap()
                })
                .collect();
            let estimates = oracle.estimate(&reports).unwrap();
            for (at, estimate) in estimates.iter().enumerate() {
                let (low, high) = estimate.interval(0.95);
                held[at] += i32::from(low <= truth[at] && truth[at] <= high);
                sums[at] += estimate.value;
                errors[at] = estimate.standard_error;
            }
            naive += oracle.count(&reports).unwrap()[0] / 2_000.0;
        }
        for at in 0..6 {
            assert!((170..200).contains(&held[at]), "{scheme:?} {at}: {}", held[at]);
            // The mean of 200 is off by six of its standard errors with probability 2·10⁻⁹.
            let off = sums[at] / 200.0 - truth[at];
            assert!(
                off.abs() < 6.0 * errors[at] / 200_f64.sqrt(),
                "{scheme:?} {at}: {off}"
            );
        }
        // Positive control: the reports as they are would not pass for the truth.
        assert!((naive / 200.0 - 0.5).abs() > 6.0 * errors[0] / 200_f64.sqrt());
    }
}

#[test]
fn bounded_means_are_unbiased_with_intervals_that_hold() {
    let question = BoundedMean::new(-1.0, 3.0, 0.5).unwrap();
    let mut rng = rng(20);
    let (mut held, mut sum, mut error) = (0, 0.0, 0.0);
    for _ in 0..200 {
        // Mean 1/2, and one in ten beyond the range, which counts as its end: (9·(1/2) + 3)/10 = 3/4.
        let reports: Vec<i64> = (0..1_000)
            .map(|i| {
                question
                    .report(if i % 10 == 0 { 99.0 } else { 0.5 }, &mut rng)
                    .unwrap()
            })
            .collect();
        let estimate = question.estimate(&reports).unwrap();
        let (low, high) = estimate.interval(0.95);
        held += i32::from(low <= 0.75 && 0.75 <= high);
        sum += estimate.value;
        error = estimate.standard_error;
    }
    assert!((170..200).contains(&held), "{held}");
    assert!((sum / 200.0 - 0.75).abs() < 6.0 * error / 200_f64.sqrt());
    // Positive control: the standard error is that of the noise, 4·√2/ε/√1000, not that of the numbers.
    assert!(
        (error / (4.0 * 2_f64.sqrt() / 0.5 / 1_000_f64.sqrt()) - 1.0).abs() < 0.2,
        "{error}"
    );
}

#[test]
fn intervals_of_single_answers_hold_the_truth_as_often_as_they_say() {
    // 20,000 answers of each kind at 99.9 %: 20 misses at most are expected, and more than 50 come with probability below 10⁻⁸
    // (binomial).
    let mut rng = rng(21);
    let records: Vec<f64> = (0..2_000).map(|i| f64::from(i % 100)).collect();
    let mut misses = [0; 3];
    let mut normal = 0;
    for _ in 0..20_000 {
        let answer = noised_count(0.1, &mut rng);
        let miss = |estimate: &Estimate, truth: f64| {
            let (low, high) = estimate.interval(0.999);
            i32::from(truth < low || high < truth)
        };
        misses[0] += miss(&answer, 0.0);
        normal += miss(&Estimate::of_many(answer.value, answer.standard_error), 0.0);
    }
    for (at, adjacency) in [Adjacency::AddRemove, Adjacency::ReplaceOne]
        .into_iter()
        .enumerate()
    {
        for _ in 0..1_000 {
            let mut data = PrivateData::new(records.clone(), 1.0, adjacency).unwrap();
            let (low, high) = data
                .mean(|x| *x, (0.0, 200.0), 0.5, &mut rng)
                .unwrap()
                .interval(0.999);
            misses[1 + at] += i32::from(49.5 < low || high < 49.5);
        }
    }
    // Of 1,000 means one miss is expected, and more than 12 come with probability below 10⁻⁸.
    assert!(
        (1..=50).contains(&misses[0]) && misses[1] <= 12 && misses[2] <= 12,
        "{misses:?}"
    );
    // Positive control: the normal approximation misses ten times as often as it says (2e^(−47/10)/(1 + e^(−1/10)) = 0.95 %).
    assert!((150..240).contains(&normal), "{normal}");
    // Exactly, without drawing: P(|X| ≥ k) = 2·e^(−k/t)/(1 + e^(−1/t)) for the first k beyond the interval.
    for epsilon in [0.01, 0.1, 0.7, 1.0, 1.3, 4.0, 20.0] {
        for confidence in [0.1, 0.5, 0.9, 0.99, 0.999, 0.999_999] {
            let answer = noised_count(epsilon, &mut rng);
            let reach = answer.interval(confidence).1 - answer.value;
            let first = reach.floor() + 1.0;
            let outside = 2.0 * (-first * epsilon).exp() / (1.0 + (-epsilon).exp());
            assert!(
                outside <= (1.0 - confidence) * (1.0 + 1e-3),
                "{epsilon} {confidence}: {outside}"
            );
        }
    }
}

/// The noised count of no records.
fn noised_count(epsilon: f64, rng: &mut ChaCha20Rng) -> Estimate {
    let mut nobody = PrivateData::new(Vec::<u8>::new(), 20.0, Adjacency::AddRemove).unwrap();
    nobody.count(|_| true, epsilon, rng).unwrap()
}

/// What anyone could do against noise without a budget: ask again and again, and average.
#[test]
fn unmetered_answers_average_the_noise_away_and_metered_ones_are_refused_first() {
    let records: Vec<u32> = (0..1_000).collect();
    let secret = 417;
    let question = |record: &u32| *record < secret;
    let mut rng = rng(30);

    // A fresh budget for every question is no budget: after 20,000 answers at ε = 0.1 (standard error 14) the mean is within 1/2 of the
    // truth but for a probability of 10⁻⁶ (five standard errors of 0.1).
    let unmetered: f64 = (0..20_000)
        .map(|_| {
            let mut data = PrivateData::new(records.clone(), 1.0, Adjacency::AddRemove).unwrap();
            data.count(question, 0.1, &mut rng).unwrap().value
        })
        .sum();
    assert_eq!((unmetered / 20_000.0).round(), f64::from(secret));

    // One budget for all: ten answers at ε = 0.1, and no more, however often it is asked.
    let mut data = PrivateData::new(records, 1.01, Adjacency::AddRemove).unwrap();
    let mut answers = Vec::new();
    let mut refused = 0;
    for _ in 0..20_000 {
        match data.count(question, 0.1, &mut rng) {
            Ok(estimate) => answers.push(estimate),
            Err(AnalyticsError::Exhausted { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((answers.len(), refused), (10, 19_990));
    // Their mean is still uncertain by 4.5, as its standard error says.
    let error = answers
        .iter()
        .map(|one| one.standard_error.powi(2))
        .sum::<f64>()
        .sqrt()
        / 10.0;
    assert!((4.4..4.6).contains(&error), "{error}");
    // Smaller questions do not get around it, and other kinds of question are refused as well.
    assert!(matches!(
        data.histogram(3, |_| 0, 0.1, &mut rng),
        Err(AnalyticsError::Exhausted { .. })
    ));
    assert!(matches!(
        data.mean(|x| f64::from(*x), (0.0, 1.0), 0.1, &mut rng),
        Err(AnalyticsError::Exhausted { .. })
    ));
}

#[test]
fn the_budget_is_spent_to_the_last_unit_and_never_beyond() {
    let mut rng = rng(31);
    // 0.3 three times is 0.9 and a little more than floats would make of it.
    let mut data = PrivateData::new(vec![(); 5], 0.9, Adjacency::ReplaceOne).unwrap();
    let mut told = 0.0;
    while data.count(|()| true, 0.3, &mut rng).is_ok() {
        told += 0.3;
    }
    assert!((0.6..=0.9).contains(&told) && (0.0..0.31).contains(&data.left()));
    let before = data.left();
    assert!(data.count(|()| true, 0.5, &mut rng).is_err());
    assert_eq!(data.left(), before);
}

#[test]
fn histograms_and_means_are_near_the_truth_by_their_own_errors() {
    for adjacency in [Adjacency::AddRemove, Adjacency::ReplaceOne] {
        let records: Vec<u32> = (0..3_000).collect();
        let mut data = PrivateData::new(records, 20.0, adjacency).unwrap();
        let mut rng = rng(32);
        let shares = data.histogram(3, |x| x % 4, 1.0, &mut rng).unwrap();
        for estimate in &shares {
            // Laplace: beyond 20 scales with probability 2·10⁻⁹; a scale is the standard error over √2.
            assert!((estimate.value - 750.0).abs() < 15.0 * estimate.standard_error);
        }
        let expected = adjacency.sensitivity_factor() * 2_f64.sqrt();
        assert!((shares[0].standard_error / expected - 1.0).abs() < 0.1);
        let mean = data
            .mean(|x| f64::from(*x), (0.0, 3_000.0), 1.0, &mut rng)
            .unwrap();
        assert!(
            (mean.value - 1_499.5).abs() < 15.0 * mean.standard_error + 3.0,
            "{mean:?}"
        );
        assert!(mean.standard_error < 3.0, "{mean:?}");
        // A record that is no number is no error, which would tell that it is there.
        let middle = data
            .mean(
                |x| if *x == 0 { f64::NAN } else { 10.0 },
                (0.0, 20.0),
                5.0,
                &mut rng,
            )
            .unwrap();
        assert!((middle.value - 10.0).abs() < 0.1);
    }
}

#[test]
fn senseless_questions_and_reports_are_typed_errors() {
    let mut rng = rng(40);
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY, 21.0, 1e-5] {
        for scheme in SCHEMES {
            let refused = FrequencyOracle::new(scheme, 4, epsilon);
            assert!(matches!(refused, Err(AnalyticsError::Epsilon(_))), "{epsilon}");
        }
        assert!(matches!(
            BoundedMean::new(0.0, 1.0, epsilon),
            Err(AnalyticsError::Epsilon(_))
        ));
        assert!(matches!(
            PrivateData::new(vec![1], epsilon, Adjacency::AddRemove),
            Err(AnalyticsError::Epsilon(_))
        ));
    }
    for categories in [0, 1, (1 << 20) + 1, u32::MAX] {
        let refused = FrequencyOracle::new(FrequencyScheme::Hadamard, categories, 1.0);
        assert_eq!(refused, Err(AnalyticsError::Categories(categories)));
    }
    for (low, high) in [
        (1.0, 1.0),
        (2.0, 1.0),
        (f64::NAN, 1.0),
        (0.0, f64::INFINITY),
        (f64::MIN, f64::MAX),
    ] {
        assert!(matches!(
            BoundedMean::new(low, high, 1.0),
            Err(AnalyticsError::Range { .. })
        ));
    }
    let question = BoundedMean::new(0.0, 1.0, 1.0).unwrap();
    for value in [f64::NAN, f64::INFINITY] {
        assert_eq!(question.report(value, &mut rng), Err(AnalyticsError::NonFinite));
    }
    assert_eq!(question.estimate(&[3]), Err(AnalyticsError::Empty));
    for scheme in SCHEMES {
        let oracle = FrequencyOracle::new(scheme, 70, 1.0).unwrap();
        assert_eq!(
            oracle.report(70, &mut rng),
            Err(AnalyticsError::Value {
                value: 70,
                categories: 70
            })
        );
        assert_eq!(oracle.estimate(&[]), Err(AnalyticsError::Empty));
        // Reports of another scheme, beyond the range, of another length, with a bit beyond the last value.
        let good = oracle.report(3, &mut rng).unwrap();
        for bad in [
            Report::Index(128),
            Report::Index(u32::MAX),
            Report::Bits(vec![0]),
            Report::Bits(vec![0, 0, 0]),
            Report::Bits(vec![0, 1 << 6]),
            Report::Bits(vec![]),
        ] {
            let refused = oracle.estimate(&[good.clone(), bad.clone()]);
            assert_eq!(
                refused,
                Err(AnalyticsError::Report { index: 1 }),
                "{scheme:?} {bad:?}"
            );
        }
    }
}

#[test]
fn what_is_printed_for_debugging_holds_no_record() {
    let data = PrivateData::new(vec![76_543, 76_543], 1.0, Adjacency::AddRemove).unwrap();
    let printed = format!("{data:?}");
    assert!(
        printed.contains("left: 1.0") && !printed.contains("76543"),
        "{printed}"
    );
}
