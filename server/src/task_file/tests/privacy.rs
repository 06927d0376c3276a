//! The section `[privacy]`, of modes `example` and `central`.

use super::*;

#[test]
fn terms_of_example_level_privacy_that_cannot_be_followed_name_their_field() {
    for (over, field, message) in [
        (
            "privacy.clip_l2=0",
            "privacy.clip_l2",
            "0 is not a number from 1e-6",
        ),
        ("privacy.clip_l2=1e7", "privacy.clip_l2", "10000000.0 is not"),
        (
            "privacy.sampling_rate=1.5",
            "privacy.sampling_rate",
            "1.5 is not a number",
        ),
        ("privacy.sampling_rate=nan", "privacy.sampling_rate", "NaN is not"),
        (
            "privacy.sampling_rate=1e-9",
            "privacy.sampling_rate",
            "is not a number",
        ),
        (
            "privacy.noise_multiplier=300",
            "privacy.noise_multiplier",
            "leaves no room in 32 bits",
        ),
        (
            "training.clip_examples_l2=1",
            "training",
            "privacy.clip_l2 is the norm",
        ),
        (
            "training.accumulate=2",
            "training",
            "accumulate is 2, but must be 1",
        ),
        ("training.epochs=4294967295", "training", "fewer than 2^32 steps"),
        (
            "strategy.aggregation={ type = \"weighted-mean\", max_weight = 5 }",
            "strategy",
            "cannot go with privacy mode \"example\"",
        ),
    ] {
        let mut overrides = EXAMPLE.to_vec();
        overrides.push(over);
        let error = parse(GOOD, &overrides).unwrap_err();
        assert!(error.field.starts_with(field), "{over}: {error:?}");
        assert!(error.message.contains(message), "{over}: {error}");
    }
    for left_out in ["privacy.clip_l2=2", "privacy.sampling_rate=0.01"] {
        let overrides: Vec<&str> = EXAMPLE.into_iter().filter(|over| *over != left_out).collect();
        let error = parse(GOOD, &overrides).unwrap_err();
        assert!(
            error.field == "privacy" && error.message.contains("needs a"),
            "{error}"
        );
    }
    let dropout = GOOD.replace("{ type = \"relu\" }", "{ type = \"dropout\", rate = 0.5 }");
    assert!(parse(&dropout, &[]).is_ok());
    let error = parse(&dropout, &EXAMPLE).unwrap_err();
    assert!(
        error.field == "model" && error.message.contains("dropout"),
        "{error}"
    );
    // What another mode needs may stay in the file.
    let mut overrides = EXAMPLE.to_vec();
    overrides.push("privacy.mode=none");
    assert_eq!(parse(GOOD, &overrides).unwrap().manifest.privacy, Privacy::None);
}

/// The task with noise that the relay adds, and these lines in its section.
fn central(lines: &str) -> String {
    let section = format!("mode = \"central\"\n{lines}");
    GOOD.replace("mode = \"none\"", &section)
}

#[test]
fn a_central_task_tells_its_unit_its_adjacency_its_mechanism_and_whom_to_trust() {
    let text = central(
        "adjacency = \"add-remove\"\ndelta = 1e-6\nadaptive_clip = { initial_l2 = 0.1, count_noise = 2 }",
    );
    schema_takes(&text).unwrap();
    let task = parse(&text, &[]).unwrap();
    let told = serde_json::to_value(task.manifest.privacy).unwrap();
    let expected = serde_json::json!({
        "mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian",
        "adjacency": "add-remove", "noise_multiplier": 1.5, "delta": 1e-6,
        "adaptive_clip": { "initial_l2": 0.1, "quantile": 0.5, "rate": 0.2, "count_noise": 2.0 },
    });
    assert_eq!(told, expected);
    assert!(task.central.is_some());
    let json = task.manifest.to_json();
    assert_eq!(Manifest::from_json(&json).unwrap(), task.manifest);
}

#[test]
fn a_tree_is_told_with_its_rounds_and_their_separation() {
    let text = central(
        "adjacency = \"add-remove\"\ndelta = 1e-6\nmechanism = \"tree-aggregation\"\ntree = { restart_every = 64, min_separation = 8 }",
    );
    schema_takes(&text).unwrap();
    let task = parse(&text, &[]).unwrap();
    let told = serde_json::to_value(task.manifest.privacy).unwrap();
    let expected = serde_json::json!({
        "mode": "central", "unit": "participant", "trust": "relay", "mechanism": "tree-aggregation",
        "adjacency": "add-remove", "noise_multiplier": 1.5, "delta": 1e-6,
        "tree": { "restart_every": 64, "min_separation": 8 },
    });
    assert_eq!(told, expected);
    assert!(task.central.unwrap().has_tree());
    let json = task.manifest.to_json();
    assert_eq!(Manifest::from_json(&json).unwrap(), task.manifest);
    // A unit that is not the mechanism's is none that a client knows.
    let text = String::from_utf8(json).unwrap();
    for (good, bad) in [
        ("\"participant\"", "\"update\""),
        ("tree-aggregation", "discrete-gaussian"),
        (",\"tree\":{\"restart_every\":64,\"min_separation\":8}", ""),
    ] {
        assert!(text.contains(good), "{good}");
        assert!(
            Manifest::from_json(text.replace(good, bad).as_bytes()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn each_mistake_in_a_central_section_is_reported_with_its_line_and_field() {
    let good = "adjacency = \"replace-one\"\ndelta = 1e-5";
    parse(&central(good), &[]).unwrap();
    for (lines, field, message) in [
        ("delta = 1e-5", "privacy", "needs an adjacency"),
        ("adjacency = \"add-remove\"", "privacy", "needs a delta"),
        (
            "adjacency = \"both\"\ndelta = 1e-5",
            "privacy.adjacency",
            "unknown variant `both`",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1",
            "privacy.delta",
            "1 is not a number above 0 and below 1",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = nan",
            "privacy.delta",
            "NaN is not",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nadaptive_clip = { initial_l2 = 2 }",
            "privacy.adaptive_clip",
            "initial_l2 is 2, but must be from update.grid_step to update.clip_l2",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nadaptive_clip = { initial_l2 = 0.5, rate = 0 }",
            "privacy.adaptive_clip",
            "the rate is 0",
        ),
        (
            // The usual σ of a target of three is 0.15.
            "adjacency = \"add-remove\"\ndelta = 1e-5\nadaptive_clip = { initial_l2 = 0.5 }",
            "privacy.adaptive_clip",
            "leaves nothing for the sum",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"",
            "privacy",
            "needs a [privacy.tree]",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\ntree = { restart_every = 64, min_separation = 8 }",
            "privacy",
            "needs mechanism \"tree-aggregation\"",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree\"",
            "privacy.mechanism",
            "unknown variant `tree`",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"\ntree.restart_every = 0\ntree.min_separation = 1",
            "privacy.tree.restart_every",
            "0 is not a whole number from 1 to 1048576",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"\ntree.restart_every = 9\ntree.min_separation = 65537",
            "privacy.tree.min_separation",
            "65537 is not a whole number from 1 to 65536",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"\ntree = { restart_every = 9, min_separation = 2 }\nadaptive_clip = { initial_l2 = 0.5, count_noise = 2 }",
            "privacy",
            "adaptive_clip cannot go with",
        ),
    ] {
        let text = central(lines);
        let error = parse(&text, &[]).unwrap_err();
        assert_eq!(error.field, field, "{lines}: {error}");
        assert!(error.message.contains(message), "{lines}: {error}");
        let line = error.line.unwrap();
        let named = field.rsplit('.').next().unwrap();
        assert!(text.lines().nth(line - 1).unwrap().contains(named), "{error}");
    }
    let lonely = parse(&central(good), &["rounds.min_clients=1"]).unwrap_err();
    assert!(lonely.message.contains("too few for privacy mode"), "{lonely}");
    // They may stay while the noise is off.
    let off = central(good).replace("\"central\"", "\"none\"");
    assert_eq!(parse(&off, &[]).unwrap().manifest.privacy, Privacy::None);
    schema_takes(&off).unwrap();
}
