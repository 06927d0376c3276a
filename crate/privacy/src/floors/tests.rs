use super::*;

#[test]
fn terms_at_the_floor_are_good_enough_and_below_it_are_not() {
    let floors = ClientFloors {
        min_noise_multiplier: 2.0,
        max_clip_l2: 10.0,
        min_cohort: 5,
        ..ClientFloors::default()
    };
    assert_eq!(floors.check(Some(2.0), 10.0, 5), Ok(()));
    let weak = FloorError::NoiseTooWeak {
        found: 1.99,
        floor: 2.0,
    };
    assert_eq!(floors.check(Some(1.99), 10.0, 5), Err(weak));
    assert_eq!(
        floors.check(None, 10.0, 5),
        Err(FloorError::NoNoise { floor: 2.0 })
    );
    let clip = FloorError::ClipTooLarge {
        found: 10.1,
        floor: 10.0,
    };
    assert_eq!(floors.check(Some(2.0), 10.1, 5), Err(clip));
    assert_eq!(
        floors.check(Some(2.0), 10.0, 4),
        Err(FloorError::CohortTooSmall { found: 4, floor: 5 })
    );
}

#[test]
fn nan_is_never_good_enough() {
    let floors = ClientFloors::default();
    assert!(matches!(
        floors.check(Some(f64::NAN), 1.0, 9),
        Err(FloorError::NoiseTooWeak { .. })
    ));
    assert!(matches!(
        floors.check(Some(9.0), f64::NAN, 9),
        Err(FloorError::ClipTooLarge { .. })
    ));
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let noise = ClientFloors {
            min_noise_multiplier: bad,
            ..floors
        };
        assert!(matches!(
            noise.check(Some(9.0), 1.0, 9),
            Err(FloorError::Floor {
                field: "minNoiseMultiplier",
                ..
            })
        ));
        let clip = ClientFloors {
            max_clip_l2: bad,
            ..floors
        };
        assert!(matches!(
            clip.check(Some(9.0), 1.0, 9),
            Err(FloorError::Floor {
                field: "maxClipL2",
                ..
            })
        ));
    }
}

#[test]
fn every_reason_names_the_floor_to_change() {
    let floors = ClientFloors::default();
    for (terms, name) in [
        ((None, 1.0, 9), "minNoiseMultiplier"),
        ((Some(0.1), 1.0, 9), "minNoiseMultiplier"),
        ((Some(9.0), 101.0, 9), "maxClipL2"),
        ((Some(9.0), 1.0, 1), "minCohort"),
    ] {
        let reason = floors.check(terms.0, terms.1, terms.2).unwrap_err().to_string();
        assert!(reason.contains(name), "{reason}");
    }
}

#[test]
fn fields_left_out_have_their_defaults_and_unknown_ones_are_refused() {
    let floors: ClientFloors = serde_json::from_str(r#"{"minCohort": 7}"#).unwrap();
    assert_eq!(
        floors,
        ClientFloors {
            min_cohort: 7,
            ..ClientFloors::default()
        }
    );
    let daily: ClientFloors = serde_json::from_str(r#"{"maxRoundsPerDay": 0}"#).unwrap();
    assert_eq!(daily.max_rounds_per_day, 0);
    assert!(serde_json::from_str::<ClientFloors>(r#"{"min_cohort": 7}"#).is_err());
}

#[test]
fn protecting_single_examples_only_has_to_be_asked_for() {
    let floors = ClientFloors::default();
    let refused = floors.check_example_level().unwrap_err();
    assert!(refused.to_string().contains("exampleLevel"), "{refused}");
    let read = |json: &str| serde_json::from_str::<ClientFloors>(json);
    let asked = read(r#"{"exampleLevel": true}"#).unwrap();
    assert_eq!(asked.check_example_level(), Ok(()));
    assert!(!read("{}").unwrap().example_level && read(r#"{"exampleLevel": 1}"#).is_err());
    // Tasks that protect nothing are allowed: then those that protect something are.
    let open = ClientFloors {
        min_noise_multiplier: 0.0,
        ..floors
    };
    assert_eq!(open.check_example_level(), Ok(()));
}

#[test]
fn a_relay_is_trusted_with_the_noise_only_where_the_person_says_so() {
    assert_eq!(
        ClientFloors::default().check_trust(),
        Err(FloorError::RelayNotTrusted)
    );
    let open: ClientFloors = serde_json::from_str(r#"{"trustRelay": true}"#).unwrap();
    assert_eq!(open.check_trust(), Ok(()));
}
