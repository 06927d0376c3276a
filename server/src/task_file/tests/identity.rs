//! The section `[identity]`.

use super::*;

#[test]
fn the_section_on_identities_is_read_bound_by_the_manifest_and_says_where_it_is_wrong() {
    let with = |lines: &str| format!("{GOOD}\n[identity]\n{lines}\n");
    let plain = parse(GOOD, &[]).unwrap();
    for none in ["", "required = \"none\"\nmax_epsilon = 3"] {
        let task = parse(&with(none), &[]).unwrap();
        assert_eq!(task.identity, None);
        assert_eq!(
            task.manifest.to_json(),
            plain.manifest.to_json(),
            "nothing changes"
        );
    }
    let task = parse(&with("required = \"open\""), &[]).unwrap();
    let rules = task.identity.unwrap();
    assert_eq!(
        (rules.per_round, rules.per_day, rules.max_epsilon),
        (1, None, None)
    );
    assert_eq!(task.manifest.identity, Some(unsaid_protocol::Enrolment::Open));
    assert_ne!(task.manifest.to_json(), plain.manifest.to_json());
    let all = "required = \"invitation\"\nupdates_per_round = 2\nupdates_per_day = 24\nmax_epsilon = 50\ndelta = 1e-6";
    schema_takes(&with(all)).unwrap();
    let rules = parse(&with(all), &["privacy.mode=local"])
        .unwrap()
        .identity
        .unwrap();
    assert_eq!((rules.per_round, rules.per_day), (2, Some(24)));
    assert_eq!((rules.max_epsilon, rules.delta), (Some(50.0), 1e-6));
    let local: &[&str] = &["privacy.mode=local"];
    let central: &[&str] = &[
        "privacy.mode=central",
        "privacy.adjacency=add-remove",
        "privacy.delta=1e-7",
    ];
    let told = parse(&with("required = \"open\"\nupdates_per_round = 1"), central).unwrap();
    let rules = told.identity.unwrap();
    assert_eq!((rules.per_round, rules.delta), (1, 1e-7));
    for (lines, overrides, field, message) in [
        (
            "required = \"closed\"",
            local,
            "identity.required",
            "unknown variant `closed`",
        ),
        (
            "updates_per_round = 0",
            local,
            "identity.updates_per_round",
            "0 is not a whole number",
        ),
        (
            "required = \"open\"\nupdates_per_round = 2",
            central,
            "identity.updates_per_round",
            "too many for privacy mode \"central\"",
        ),
        (
            "updates_per_dya = 1",
            local,
            "identity.updates_per_dya",
            "unknown field",
        ),
        ("delta = 1.0", local, "identity.delta", "1.0 is not"),
        ("max_epsilon = -1", local, "identity.max_epsilon", "-1 is not"),
        (
            "required = \"open\"\nmax_epsilon = 9",
            local,
            "identity.max_epsilon",
            "needs a delta",
        ),
        (
            "required = \"open\"\nmax_epsilon = 9\ndelta = 1e-6",
            &[],
            "identity.max_epsilon",
            "without noise",
        ),
        (
            "required = \"open\"\nmax_epsilon = 0.1\ndelta = 1e-6",
            local,
            "identity.max_epsilon",
            "nobody could take part",
        ),
    ] {
        let text = with(lines);
        let error = parse(&text, overrides).unwrap_err();
        assert_eq!(error.field, field, "{lines}: {error}");
        assert!(
            error.message.contains(message) && error.line.is_some(),
            "{lines}: {error}"
        );
    }
}
