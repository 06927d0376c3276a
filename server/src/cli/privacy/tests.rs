use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

/// What the command line prints, or why it prints nothing.
fn output(line: &str) -> Result<String, String> {
    let words = ["unsaid-relay", "privacy"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let Command::Privacy(command) = cli.command else {
        return Err("another command".into());
    };
    let mut out = Vec::new();
    run(command, &mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

const RUN: &str = "--sampling-rate 0.01 --steps 1000 --delta 1e-5 --adjacency add-remove";

#[test]
fn epsilon_is_printed_as_json_with_its_bounds() {
    for (accountant, published) in [("rdp", 2.1014), ("pld", 1.8282)] {
        let printed = output(&format!(
            "epsilon --noise-multiplier 1.0 {RUN} --accountant {accountant} --json"
        ))
        .unwrap();
        let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let number = |key: &str| value[key].as_f64().unwrap();
        assert!((number("epsilon") - published).abs() <= 5e-4, "{printed}");
        assert!(number("lower") <= number("epsilon") && number("epsilon") == number("upper"));
        assert_eq!(value.as_object().unwrap().len(), 3);
    }
    let words = output(&format!("epsilon --noise-multiplier 1.0 {RUN}")).unwrap();
    assert!(
        words.starts_with("epsilon 1.82") && words.contains("add/remove"),
        "{words}"
    );
}

#[test]
fn printed_bounds_are_rounded_outwards_and_a_lower_one_is_claimed_only_where_there_is_one() {
    let mut to_nearest_is_wrong = false;
    for multiplier in [1.0, 1.1, 1.3, 1.7, 2.3] {
        let line = format!("epsilon --noise-multiplier {multiplier} {RUN}");
        let value: serde_json::Value =
            serde_json::from_str(&output(&format!("{line} --json")).unwrap()).unwrap();
        let (lower, upper) = (value["lower"].as_f64().unwrap(), value["upper"].as_f64().unwrap());
        let words = output(&line).unwrap();
        let printed: Vec<f64> = words
            .split([' ', ')'])
            .filter_map(|word| word.parse().ok())
            .collect();
        assert!(printed[0] >= upper && printed[0] < upper + 1.1e-6, "{words}");
        assert!(printed[1] <= lower && printed[1] > lower - 1.1e-6, "{words}");
        let nearest = |x: f64| format!("{x:.6}").parse::<f64>().unwrap();
        to_nearest_is_wrong |= nearest(upper) < upper || nearest(lower) > lower;
    }
    // Positive control.
    assert!(to_nearest_is_wrong);
    let subset = "epsilon --noise-multiplier 2 --sampling-rate 0.1 --steps 50 --delta 1e-6 --adjacency replace-one \
                  --sampling without-replacement";
    let words = output(subset).unwrap();
    assert!(
        words.contains("is not known") && !words.contains("no accountant"),
        "{words}"
    );
}

#[test]
fn replace_one_costs_more_than_add_remove() {
    let epsilon = |adjacency: &str, sampling: &str| -> f64 {
        let line = format!(
            "epsilon --noise-multiplier 2 --sampling-rate 0.1 --steps 50 --delta 1e-6 --adjacency {adjacency} \
             --sampling {sampling} --accountant rdp --json"
        );
        let value: serde_json::Value = serde_json::from_str(&output(&line).unwrap()).unwrap();
        value["epsilon"].as_f64().unwrap()
    };
    let added = epsilon("add-remove", "poisson");
    let replaced = epsilon("replace-one", "poisson");
    assert!(added < replaced && replaced < epsilon("replace-one", "without-replacement"));
}

#[test]
fn calibrate_prints_a_noise_multiplier_that_keeps_the_epsilon() {
    let printed = output(&format!("calibrate --epsilon 2 {RUN} --accountant rdp")).unwrap();
    let multiplier: f64 = printed.trim().parse().unwrap();
    let back = output(&format!(
        "epsilon --noise-multiplier {multiplier} {RUN} --accountant rdp --json"
    ))
    .unwrap();
    let value: serde_json::Value = serde_json::from_str(&back).unwrap();
    let epsilon = value["epsilon"].as_f64().unwrap();
    assert!(epsilon <= 2.0 && epsilon > 1.999, "{epsilon}");
    let json = output(&format!("calibrate --epsilon 2 {RUN} --accountant rdp --json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["noise_multiplier"].as_f64(), Some(multiplier));
}

#[test]
fn samples_are_whole_numbers_one_a_line_and_of_the_spread_that_was_asked_for() {
    // Standard deviations: σ; scale·√2 and a little less; σ. Of 20,000 samples the deviation is within 4 % but for 10⁻⁸ (six
    // standard errors of at most 1/√(2·20,000), and √(5/4/20,000) for Laplace).
    for (mechanism, sigma, deviation, tolerance) in [
        ("discrete-gaussian", "2.5", 2.5, 0.03),
        ("discrete-laplace", "1e2", 141.4, 0.05),
        ("skellam", "0.4e1", 4.0, 0.03),
    ] {
        let printed = output(&format!(
            "sample --mechanism {mechanism} --sigma {sigma} --count 20000"
        ))
        .unwrap();
        let samples: Vec<i64> = printed.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(samples.len(), 20_000);
        let square: f64 = samples.iter().map(|x| (*x as f64).powi(2)).sum::<f64>() / 20_000.0;
        assert!(
            (square.sqrt() / deviation - 1.0).abs() < tolerance,
            "{mechanism}: {}",
            square.sqrt()
        );
    }
    assert_eq!(
        output("sample --mechanism skellam --sigma 1 --count 0").unwrap(),
        ""
    );
}

#[test]
fn senseless_arguments_are_refused_with_what_is_wrong() {
    let epsilon = |multiplier: &str, rate: &str, steps: &str, delta: &str| {
        output(&format!(
            "epsilon --noise-multiplier {multiplier} --sampling-rate {rate} --steps {steps} --delta {delta} \
             --adjacency add-remove --accountant pld --json"
        ))
    };
    for (refused, reason) in [
        (epsilon("0", "0.01", "10", "1e-5"), "noise multiplier is 0"),
        (epsilon("-1", "0.01", "10", "1e-5"), "noise multiplier is -1"),
        (epsilon("NaN", "0.01", "10", "1e-5"), "noise multiplier is NaN"),
        (epsilon("inf", "0.01", "10", "1e-5"), "noise multiplier is inf"),
        (epsilon("1", "1.5", "10", "1e-5"), "sampling rate is 1.5"),
        (epsilon("1", "0", "10", "1e-5"), "sampling rate is 0"),
        (epsilon("1", "nan", "10", "1e-5"), "sampling rate is NaN"),
        (epsilon("1", "0.1", "0", "1e-5"), "0 steps"),
        (epsilon("1", "0.1", "99999999999", "1e-5"), "99999999999 steps"),
        (
            epsilon("1", "0.1", "99999999999999999999999", "1e-5"),
            "invalid value",
        ),
        (epsilon("1", "0.1", "-4", "1e-5"), "invalid value"),
        (epsilon("1", "0.1", "10", "0"), "delta is 0"),
        (epsilon("1", "0.1", "10", "1"), "delta is 1"),
        (epsilon("1", "0.1", "10", "-0.5"), "delta is -0.5"),
        (epsilon("1", "0.1", "10", "NaN"), "delta is NaN"),
        (epsilon("1", "0.1", "10", "1e-40"), "rdp accountant"),
        (output(&format!("calibrate --epsilon 0 {RUN}")), "epsilon is 0"),
        (output(&format!("calibrate --epsilon -2 {RUN}")), "epsilon is -2"),
        (
            output(&format!("calibrate --epsilon NaN {RUN}")),
            "epsilon is NaN",
        ),
        (
            output("sample --mechanism skellam --sigma 0 --count 1"),
            "--sigma is \"0\"",
        ),
        (
            output("sample --mechanism skellam --sigma NaN --count 1"),
            "--sigma is \"NaN\"",
        ),
        (
            output("sample --mechanism discrete-laplace --sigma -1 --count 1"),
            "--sigma is \"-1\"",
        ),
        (
            output("sample --mechanism discrete-gaussian --sigma 1e18 --count 1"),
            "outside the range",
        ),
        (
            output("sample --mechanism discrete-gaussian --sigma 1e99 --count 1"),
            "--sigma",
        ),
        (
            output(
                "epsilon --noise-multiplier 1 --sampling-rate 0.1 --sampling without-replacement --steps 1 --delta 1e-5 \
                 --adjacency add-remove",
            ),
            "fixed size",
        ),
    ] {
        let message = refused.expect_err(reason);
        assert!(message.contains(reason), "{message:?} does not say {reason:?}");
    }
}

#[test]
fn decimals_are_taken_exactly() {
    assert_eq!(fraction("2.5"), Some((25, 10)));
    assert_eq!(fraction("0.3"), Some((3, 10)));
    assert_eq!(fraction("1e3"), Some((1_000, 1)));
    assert_eq!(fraction("1.5E-3"), Some((15, 10_000)));
    for text in [
        "",
        ".",
        "e5",
        "1e",
        "1e40",
        "0.0",
        "-1",
        "+1",
        "1_000",
        "0x10",
        "1.2.3",
        "1234567890123456789",
    ] {
        assert_eq!(fraction(text), None, "{text}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let command = || PrivacyCommand::Sample {
        mechanism: MechanismName::DiscreteGaussian,
        sigma: "10".into(),
        count: 100_000,
    };
    assert!(run(command(), Closed).is_ok());
}

#[test]
fn without_randomness_there_is_no_noise() {
    let refused = seeded_by(|_| Err(getrandom::Error::UNSUPPORTED)).map(|_| ());
    let message = PrivacyCommandError::from(refused.unwrap_err()).to_string();
    assert!(message.contains("there is no noise"), "{message}");
    // Two generators of the system's are not the same one.
    let sample = || -> Vec<i64> {
        let mut rng = seeded_by(getrandom::fill).unwrap();
        let wide = DiscreteGaussian::with_variance(1 << 40, 1).unwrap();
        (0..8).map(|_| wide.sample(&mut rng)).collect()
    };
    assert_ne!(sample(), sample());
}
