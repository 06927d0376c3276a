//! The sections `[rounds]` and `[retention]`.

use super::*;
use crate::round::Chance;

const BY_CHANCE: &str = "selection = { type = \"chance\", probability = 0.1 }";

fn with_rounds(line: &str) -> String {
    GOOD.replace("deadline_ms = 60_000", &format!("deadline_ms = 60_000\n{line}"))
}

/// Where in the text a line begins with `start`, from 1.
fn line_of(text: &str, start: &str) -> Option<usize> {
    text.lines()
        .position(|line| line.starts_with(start))
        .map(|at| at + 1)
}

#[test]
fn a_task_selects_by_chance_where_it_says_so_and_its_clients_agree_to_nothing_new() {
    let plain = parse(GOOD, &[]).unwrap();
    assert_eq!(plain.chance, None);
    for (line, chance) in [
        ("selection = { type = \"first-come\" }", None),
        (BY_CHANCE, Chance::new(0.1)),
        (
            "selection = { type = \"chance\", probability = 1 }",
            Chance::new(1.0),
        ),
        (
            "selection.type = \"chance\"\nselection.probability = 1e-6",
            Chance::new(1e-6),
        ),
    ] {
        let text = with_rounds(line);
        schema_takes(&text).unwrap();
        let task = parse(&text, &[]).unwrap();
        assert_eq!(task.chance, chance, "{line}");
        assert_eq!(task.manifest, plain.manifest);
    }
    // With a bound on how many are invited, too.
    let both = with_rounds(&format!("{BY_CHANCE}\ninvited_clients = 4"));
    schema_takes(&both).unwrap();
    assert_eq!(parse(&both, &[]).unwrap().invited, Some(4));
}

#[test]
fn a_selection_that_cannot_be_is_refused_with_line_field_and_reason() {
    for (line, field, message) in [
        (
            "selection = { type = \"chance\", probability = 0 }",
            "selection.probability",
            "0.0 is not a number from 1e-6 to 1",
        ),
        (
            "selection = { type = \"chance\", probability = 1.5 }",
            "selection.probability",
            "1.5 is not a number from",
        ),
        (
            "selection = { type = \"chance\", probability = nan }",
            "selection.probability",
            "NaN is not a number from",
        ),
        (
            "selection = { type = \"chance\", probability = \"0.1\" }",
            "selection.probability",
            "string \"0.1\"",
        ),
        (
            "selection = { type = \"chance\" }",
            "selection",
            "missing field `probability`",
        ),
        (
            "selection = { type = \"lottery\" }",
            "selection.type",
            "unknown variant `lottery`",
        ),
        (
            "selection = { type = \"first-come\", probability = 0.1 }",
            "selection.probability",
            "unknown field `probability`",
        ),
    ] {
        let text = with_rounds(line);
        let error = parse(&text, &[]).unwrap_err();
        assert_eq!(error.field, format!("rounds.{field}"), "{line}: {error}");
        assert_eq!(error.line, line_of(&text, "selection"), "{line}: {error}");
        assert!(error.message.contains(message), "{line}: {error}");
        if !line.contains("nan") {
            assert!(schema_takes(&text).is_err(), "{line}"); // JSON has no NaN
        }
    }
    let text =
        with_rounds(BY_CHANCE) + "\n[strategy]\naggregation = { type = \"fed-buff\", max_staleness = 3 }\n";
    let error = parse(&text, &[]).unwrap_err();
    assert_eq!(
        (error.field.as_str(), error.line),
        ("rounds.selection", line_of(&text, "selection"))
    );
    assert!(
        error.message.contains("asynchronous rounds take whoever comes"),
        "{error}"
    );
    assert!(parse(&text, &["strategy.aggregation.max_staleness=0"]).is_ok());
}

#[test]
fn no_round_is_to_wait_for_more_clients_than_it_lets_in() {
    let clients = |min: u32, target: u32| {
        GOOD.replace("min_clients = 2", &format!("min_clients = {min}"))
            .replace("target_clients = 3", &format!("target_clients = {target}"))
    };
    let most = crate::round::MAX_CHECK_INS as u32;
    for good in [clients(most, most), clients(1, most)] {
        schema_takes(&good).unwrap();
        assert_eq!(parse(&good, &[]).unwrap().manifest.rounds.target_clients, most);
    }
    for (bad, field) in [
        (clients(70_000, 70_000), "min_clients"),
        (clients(2, most + 1), "target_clients"),
        (with_rounds("invited_clients = 65_537"), "invited_clients"),
    ] {
        assert!(schema_takes(&bad).is_err());
        let error = parse(&bad, &[]).unwrap_err();
        assert_eq!(
            (error.field, error.line),
            (format!("rounds.{field}"), line_of(&bad, field))
        );
        assert!(
            error.message.contains("is not a whole number from 1 to 65536"),
            "{}",
            error.message
        );
    }
}

#[test]
fn a_task_says_how_many_models_are_kept_of_it() {
    let with = |line: &str| format!("{GOOD}\n[retention]\n{line}\n");
    let plain = parse(GOOD, &[]).unwrap();
    assert_eq!(plain.keep_models, None);
    for (line, kept) in [
        ("", None),
        ("keep_models = 1", Some(1)),
        ("keep_models = 1_000", Some(1_000)),
    ] {
        let text = with(line);
        schema_takes(&text).unwrap();
        let task = parse(&text, &[]).unwrap();
        assert_eq!((task.keep_models, task.manifest), (kept, plain.manifest.clone()));
    }
    for (line, field, message) in [
        (
            "keep_models = 0",
            "retention.keep_models",
            "0 is not a whole number of at least 1",
        ),
        (
            "keep_models = -1",
            "retention.keep_models",
            "-1 is not a whole number",
        ),
        (
            "keep_model = 3",
            "retention.keep_model",
            "unknown field `keep_model`",
        ),
    ] {
        let text = with(line);
        assert!(schema_takes(&text).is_err(), "{line}");
        let error = parse(&text, &[]).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.line),
            (field, line_of(&text, "keep_model"))
        );
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn invitations_are_for_a_target_and_for_synchronous_rounds() {
    let with = |invited: &str| parse(GOOD, &[&format!("rounds.invited_clients={invited}")]);
    let target = parse(GOOD, &[]).unwrap().manifest.rounds.target_clients;
    assert_eq!(with(&target.to_string()).unwrap().invited, Some(target));
    assert_eq!(parse(GOOD, &[]).unwrap().invited, None);
    let asynchronous = "strategy.aggregation={ type = \"fed-buff\", max_staleness = 3 }";
    let invited = format!("rounds.invited_clients={}", target + 1);
    for (error, message) in [
        (with(&(target - 1).to_string()), "below target_clients"),
        (with("0"), "0 is not a whole number"),
        (parse(GOOD, &[asynchronous, &invited]), "asynchronous"),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.field, "rounds.invited_clients", "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}
