//! What is said of a mistake, word for word, and where it is said to be.

use super::*;

#[test]
fn a_value_that_is_no_number_is_told_what_it_should_be() {
    for (good, bad, field, message) in [
        (
            "clip_l2 = 1",
            "clip_l2 = \"1\"",
            "update.clip_l2",
            "invalid type: string \"1\", expected a number above 0 and at most 1e6",
        ),
        (
            "grid_step = 0.0009765625",
            "grid_step = [1]",
            "update.grid_step",
            "invalid type: sequence, expected a number above 0 and at most 1e6",
        ),
        (
            "min_clients = 2",
            "min_clients = true",
            "rounds.min_clients",
            "invalid type: boolean `true`, expected a whole number from 1 to 65536",
        ),
        (
            "deadline_ms = 60_000",
            "deadline_ms = \"1m\"",
            "rounds.deadline_ms",
            "invalid type: string \"1m\", expected a whole number from 1 to 2592000000",
        ),
        (
            "noise_multiplier = 1.5",
            "noise_multiplier = 1979-05-27",
            "privacy.noise_multiplier",
            "invalid type: map, expected a number above 0 and at most 1e6",
        ),
    ] {
        assert_eq!(GOOD.matches(good).count(), 1, "{good}");
        let error = parse(&GOOD.replace(good, bad), &[]).unwrap_err();
        let line = GOOD[..GOOD.find(good).unwrap()].matches('\n').count() + 1;
        assert_eq!((error.line, error.field.as_str()), (Some(line), field), "{error}");
        assert_eq!(error.message, message);
    }
}

#[test]
fn a_value_inside_a_strategy_is_pointed_at_where_it_stands() {
    let line = GOOD.lines().count() + 3;
    for (lines, field, message) in [
        (
            "aggregation = { type = \"krum\", byzantine = -1 }",
            "aggregation.byzantine",
            "invalid value: integer `-1`, expected u32",
        ),
        (
            "aggregation = { type = \"krum\", byzantine = 1.5 }",
            "aggregation.byzantine",
            "invalid type: floating point `1.5`, expected u32",
        ),
        (
            "aggregation = { type = \"trimmed-mean\", trim = \"one\" }",
            "aggregation.trim",
            "invalid type: string \"one\", expected u32",
        ),
        (
            "server = { type = \"fed-adam\", learning_rate = true }",
            "server.learning_rate",
            "invalid type: boolean `true`, expected f64",
        ),
        (
            // Of two that are alike nobody can say which is meant.
            "aggregation = { type = \"multi-krum\", byzantine = -1, chosen = -1 }",
            "aggregation",
            "invalid value: integer `-1`, expected u32",
        ),
    ] {
        let error = parse(&with_strategy(lines), &[]).unwrap_err();
        let field = format!("strategy.{field}");
        assert_eq!(
            (error.line, error.field.as_str()),
            (Some(line), field.as_str()),
            "{error}"
        );
        assert_eq!(error.message, message);
        let column = |text: &str| lines.find(text).map(|at| at + 1);
        if let Some((key, _)) = lines
            .split_once(" }")
            .and_then(|(inner, _)| inner.rsplit_once(" = "))
            && field != "strategy.aggregation"
        {
            let column = column(&lines[key.len() + 3..]).unwrap();
            assert_eq!(error.place, format!("t.toml:{line}:{column}"));
        }
    }
}

#[test]
fn control_variates_without_a_number_of_steps_name_the_field_that_is_missing() {
    let text = with_strategy("aggregation = { type = \"scaffold\", population = 10 }");
    let error = parse(&text, &[]).unwrap_err();
    let section = text
        .lines()
        .position(|line| line == "[training]")
        .map(|at| at + 1);
    assert_eq!(
        (error.line, error.field.as_str()),
        (section, "training.steps_per_epoch")
    );
    assert_eq!(
        error.message,
        "scaffold needs steps_per_epoch: with an epoch of each example once, clients take steps by their number of examples, which nobody is told"
    );
}

#[test]
fn asynchronous_rounds_are_told_their_own_reason_why_the_relay_adds_no_noise_to_them() {
    let text = with_strategy("aggregation = { type = \"fed-buff\", max_staleness = 3 }").replace(
        "mode = \"none\"",
        "mode = \"central\"\nadjacency = \"add-remove\"\ndelta = 1e-5",
    );
    let error = parse(&text, &[]).unwrap_err();
    let line = text
        .lines()
        .position(|line| line.starts_with("aggregation"))
        .map(|at| at + 1);
    assert_eq!((error.line, error.field.as_str()), (line, "strategy.aggregation"));
    assert_eq!(
        error.message,
        "fed-buff cannot go with privacy mode \"central\": its updates start from models of several rounds and are weighed by their age, \
         and the noise and its accounting are for one plain sum of one round"
    );
}
