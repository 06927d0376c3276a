use super::*;

pub(crate) fn manifest() -> Manifest {
    Manifest {
        protocol: crate::VERSION,
        task: "digits".parse().unwrap(),
        title: "Digits".into(),
        description: String::new(),
        model: serde_json::json!({ "input": [4], "layers": [] }),
        parameters: 10,
        training: serde_json::json!({ "epochs": 1 }),
        data: DataSchema::Classification {
            features: 4,
            classes: 2,
        },
        strategy: None,
        identity: None,
        control_variates: false,
        update: UpdateEncoding {
            max_weight: None,
            clip_l2: 1.0,
            grid_step: 1.0 / 1024.0,
        },
        privacy: Privacy::Local {
            noise_multiplier: 1.0,
        },
        rounds: RoundPolicy {
            min_clients: 2,
            target_clients: 4,
            deadline_ms: 60_000,
        },
    }
}

const fn example([clip_l2, noise_multiplier, sampling_rate]: [f64; 3]) -> Privacy {
    Privacy::Example {
        clip_l2,
        noise_multiplier,
        sampling_rate,
    }
}

#[test]
fn every_privacy_mode_is_read_as_it_was_written_and_weights_need_the_one_without_noise() {
    for privacy in [Privacy::None, manifest().privacy, example([1.0, 1.1, 0.01])] {
        let mut terms = manifest();
        terms.privacy = privacy;
        assert_eq!(Manifest::from_json(&terms.to_json()), Ok(terms.clone()));
        terms.update.max_weight = Some(600);
        assert_eq!(terms.check().is_ok(), privacy == Privacy::None, "{privacy:?}");
    }
}

#[test]
fn control_variates_are_written_where_there_are_any() {
    let plain = String::from_utf8(manifest().to_json()).unwrap();
    assert!(!plain.contains("control"));
    let terms = Manifest {
        control_variates: true,
        ..manifest()
    };
    let json = String::from_utf8(terms.to_json()).unwrap();
    assert!(json.contains(r#""control_variates":true"#), "{json}");
    assert_eq!(Manifest::from_json(json.as_bytes()), Ok(terms));
    let odd = json.replace(r#""control_variates":true"#, r#""control_variates":1"#);
    assert!(matches!(
        Manifest::from_json(odd.as_bytes()),
        Err(ManifestError::Json(_))
    ));
}

#[test]
fn a_manifest_survives_a_round_trip_and_is_named_by_its_bytes() {
    let bytes = manifest().to_json();
    assert_eq!(
        Manifest::from_json_named(&bytes, ContentHash::of(&bytes)),
        Ok(manifest())
    );
    let other = ContentHash::of(b"other");
    assert!(matches!(
        Manifest::from_json_named(&bytes, other),
        Err(ManifestError::Hash { .. })
    ));
}

#[test]
fn a_strategy_and_weights_are_written_only_where_there_are_any() {
    let plain = String::from_utf8(manifest().to_json()).unwrap();
    assert!(!plain.contains("strategy") && !plain.contains("max_weight"));
    let mut weighted = manifest();
    weighted.privacy = Privacy::None;
    weighted.update.max_weight = Some(600);
    weighted.strategy = Some(serde_json::json!({ "server": { "type": "fed-adam" } }));
    assert_eq!(Manifest::from_json(&weighted.to_json()), Ok(weighted.clone()));
    weighted.privacy = manifest().privacy;
    let refused = weighted.check().unwrap_err().to_string();
    assert!(
        refused.contains("update.max_weight is 600, but must be left out in a task with noise"),
        "{refused}"
    );
}

#[test]
fn each_senseless_value_names_its_field() {
    type Change = fn(&mut Manifest);
    let cases: [(&str, Change); 16] = [
        ("update.max_weight", |m| m.update.max_weight = Some(0)),
        ("update.max_weight", |m| m.update.max_weight = Some((1 << 20) + 1)),
        ("parameters", |m| m.parameters = 0),
        ("data.classes", |m| {
            m.data = DataSchema::Classification {
                features: 1,
                classes: 1,
            }
        }),
        ("update.clip_l2", |m| m.update.clip_l2 = f64::NAN),
        ("update.clip_l2", |m| m.update.clip_l2 = 0.0),
        ("update.grid_step", |m| m.update.grid_step = -1.0),
        ("update.grid_step", |m| m.update.grid_step = 1e-9),
        ("privacy.noise_multiplier", |m| {
            m.privacy = Privacy::Local {
                noise_multiplier: f64::INFINITY,
            }
        }),
        ("privacy.noise_multiplier", |m| {
            m.privacy = example([1.0, 0.0, 0.1])
        }),
        ("privacy.clip_l2", |m| m.privacy = example([f64::NAN, 1.0, 0.1])),
        ("privacy.sampling_rate", |m| m.privacy = example([1.0, 1.0, 1.01])),
        ("privacy.sampling_rate", |m| m.privacy = example([1.0, 1.0, 0.0])),
        ("rounds.min_clients", |m| m.rounds.min_clients = 0),
        ("rounds.target_clients", |m| m.rounds.target_clients = 1),
        ("rounds.deadline_ms", |m| m.rounds.deadline_ms = 0),
    ];
    for (expected, change) in cases {
        let mut manifest = manifest();
        change(&mut manifest);
        match manifest.check() {
            Err(ManifestError::Value { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_field_that_is_there_twice_is_refused_at_every_depth() {
    let good = String::from_utf8(manifest().to_json()).unwrap();
    for (once, twice) in [
        ("\"parameters\":10", "\"parameters\":10,\"parameters\":10"),
        ("\"parameters\":10", "\"parameters\":9,\"param\\u0065ters\":10"),
        ("\"min_clients\":2", "\"min_clients\":1,\"min_clients\":2"),
        ("\"epochs\":1", "\"epochs\":9,\"epochs\":1"),
        ("\"layers\":[]", "\"layers\":[{\"a\":1,\"a\":1}]"),
    ] {
        assert_eq!(good.matches(once).count(), 1, "{once}");
        let result = Manifest::from_json(good.replace(once, twice).as_bytes());
        let Err(ManifestError::Json(reason)) = result else {
            panic!("{twice}: {result:?}")
        };
        assert!(reason.contains("twice"), "{reason}");
    }
}

#[test]
fn strings_that_look_like_fields_are_none() {
    for title in [
        "\"a\": 1, \"a\": 2",
        ":::",
        "\\",
        "\\\"",
        "{\"x\":{\"x\":1}}",
        "“:”",
        "\u{0}\n:",
    ] {
        let manifest = Manifest {
            title: title.into(),
            model: serde_json::json!({ title: [{ title: 1 }, { title: 1 }] }),
            ..manifest()
        };
        assert_eq!(
            Manifest::from_json(&manifest.to_json()),
            Ok(manifest.clone()),
            "{title}"
        );
        let pretty = serde_json::to_vec_pretty(&manifest).unwrap();
        assert_eq!(Manifest::from_json(&pretty), Ok(manifest), "{title}");
    }
}

#[test]
fn a_later_version_is_called_that() {
    let bytes = br#"{"protocol": 2, "something": "new"}"#;
    assert_eq!(
        Manifest::from_json(bytes),
        Err(ManifestError::Version {
            found: 2,
            expected: 1
        })
    );
    // What is no version at all is a manifest that cannot be read.
    for bad in [
        "{",
        "{}",
        "{\"protocol\": -1}",
        "{\"protocol\": 65536}",
        "{\"protocol\": \"1\"}",
        "[]",
        "1",
    ] {
        let result = Manifest::from_json(bad.as_bytes());
        assert!(matches!(result, Err(ManifestError::Json(_))), "{bad}");
    }
}
