use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::{Adjacency, Rho};

fn charge(number: u64, rho: f64) -> Charge {
    Charge {
        task: "digits".into(),
        round: number,
        update: format!("{number:032x}"),
        frame_sha256: format!("{number:064x}"),
        cost: Rho::new(rho).unwrap().into(),
        at_ms: 1_700_000_000_000 + number,
    }
}

fn ledger(epsilon: f64) -> Ledger {
    Ledger::new(Budget::new(epsilon, 1e-5).unwrap())
}

#[test]
fn debits_add_up_and_stop_before_the_limit() {
    let mut ledger = ledger(8.0);
    let rho = Rho::local_round(5.0, Adjacency::ReplaceOne).unwrap();
    let mut rounds = 0;
    loop {
        let (before, would_be) = (ledger.clone(), ledger.if_one_more(rho));
        match ledger.debit(charge(rounds, rho.get())) {
            Ok(receipt) => {
                rounds += 1;
                assert!(receipt.newly_debited && receipt.spent_epsilon <= 8.0);
                assert_eq!(receipt.spent_epsilon, would_be);
                assert_eq!(receipt.spent_epsilon, ledger.spent_epsilon());
                assert_eq!(ledger.count(), rounds);
            }
            Err(LedgerError::Exhausted {
                would_be: reported,
                limit,
                spent,
            }) => {
                assert!(reported == would_be && would_be > 8.0 && limit == 8.0 && spent <= 8.0);
                assert_eq!(ledger, before);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // ρ = 0.08 a round; ε = 8 at δ = 10⁻⁵ allows for ρ of about 1.0.
    assert_eq!(
        rounds,
        (Rho::for_epsilon(8.0, 1e-5).unwrap().get() / rho.get()) as u64
    );
    assert!((ledger.left_epsilon() - (8.0 - ledger.spent_epsilon())).abs() < 1e-12);
}

#[test]
fn the_same_update_is_paid_for_once() {
    let mut ledger = ledger(100.0);
    ledger.debit(charge(1, 0.1)).unwrap();
    let before = ledger.clone();
    let again = ledger
        .debit(Charge {
            at_ms: 5,
            ..charge(1, 0.1)
        })
        .unwrap();
    assert!(!again.newly_debited);
    assert_eq!(again.spent_epsilon, before.spent_epsilon());
    assert_eq!(ledger, before);
}

#[test]
fn a_retry_is_allowed_even_when_nothing_is_left() {
    let mut ledger = ledger(100.0);
    ledger.debit(charge(1, 0.1)).unwrap();
    ledger.set_budget(Budget::new(0.0, 1e-5).unwrap());
    assert!(!ledger.debit(charge(1, 0.1)).unwrap().newly_debited);
    assert!(matches!(
        ledger.debit(charge(2, 0.1)),
        Err(LedgerError::Exhausted { .. })
    ));
}

#[test]
fn the_same_id_with_other_bytes_or_terms_is_a_conflict() {
    let mut ledger = ledger(100.0);
    ledger.debit(charge(1, 0.1)).unwrap();
    let before = ledger.clone();
    for other in [
        Charge {
            frame_sha256: "f".repeat(64),
            ..charge(1, 0.1)
        },
        Charge {
            task: "words".into(),
            ..charge(1, 0.1)
        },
        Charge {
            round: 2,
            ..charge(1, 0.1)
        },
        Charge {
            cost: Cost::NOTHING,
            ..charge(1, 0.1)
        },
    ] {
        let conflict = LedgerError::Conflict {
            update: format!("{:032x}", 1),
        };
        assert_eq!(ledger.debit(other), Err(conflict));
    }
    assert_eq!(ledger, before);
}

#[test]
fn malformed_charges_are_refused() {
    let mut ledger = ledger(100.0);
    let cases = [
        (
            "task",
            Charge {
                task: String::new(),
                ..charge(1, 0.1)
            },
        ),
        (
            "task",
            Charge {
                task: "x".repeat(65),
                ..charge(1, 0.1)
            },
        ),
        (
            "update",
            Charge {
                update: "A".repeat(32),
                ..charge(1, 0.1)
            },
        ),
        (
            "update",
            Charge {
                update: "a".repeat(31),
                ..charge(1, 0.1)
            },
        ),
        (
            "frame_sha256",
            Charge {
                frame_sha256: "é".repeat(32),
                ..charge(1, 0.1)
            },
        ),
        (
            "rho",
            Charge {
                cost: Cost::from(Rho::new(f64::MAX).unwrap()).times(2),
                ..charge(1, 0.1)
            },
        ),
    ];
    for (expected, bad) in cases {
        match ledger.debit(bad) {
            Err(LedgerError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(ledger.count(), 0);
}

#[test]
fn all_tasks_share_one_budget() {
    let mut ledger = ledger(100.0);
    ledger.debit(charge(1, 0.5)).unwrap();
    ledger
        .debit(Charge {
            task: "words".into(),
            ..charge(2, 0.25)
        })
        .unwrap();
    assert_eq!(ledger.spent().rho().get(), 0.75);
}

#[test]
fn only_the_budget_changes_when_it_is_set() {
    let mut ledger = ledger(8.0);
    ledger.debit(charge(1, 0.5)).unwrap();
    let (spent, epsilon) = (ledger.spent(), ledger.spent_epsilon());
    ledger.set_budget(Budget::new(20.0, 1e-7).unwrap());
    assert_eq!(
        (ledger.spent(), ledger.budget().epsilon(), ledger.budget().delta()),
        (spent, 20.0, 1e-7)
    );
    // The same ρ is worth a larger ε at a smaller δ.
    assert!(ledger.spent_epsilon() > epsilon);
    for (epsilon, delta) in [
        (-1.0, 0.1),
        (f64::NAN, 0.1),
        (f64::INFINITY, 0.1),
        (1.0, 0.0),
        (1.0, 1.0),
        (1.0, f64::NAN),
    ] {
        assert!(
            matches!(Budget::new(epsilon, delta), Err(LedgerError::Budget(_))),
            "{epsilon} {delta}"
        );
    }
}

#[test]
fn old_entries_are_folded_without_losing_any_of_the_cost() {
    let mut ledger = ledger(1e6);
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    // Costs in multiples of 2⁻⁴⁰, whose exact sum fits in a u64.
    let mut exact = 0_u64;
    for number in 0..3_000 {
        let cost = u64::from(rng.next_u32());
        exact += cost;
        ledger.debit(charge(number, cost as f64 / 2f64.powi(40))).unwrap();
        assert!(ledger.entries().len() <= Ledger::KEPT);
    }
    assert_eq!(ledger.count(), 3_000);
    assert_eq!(ledger.entries().len(), Ledger::KEPT);
    assert_eq!(ledger.spent().rho().get(), exact as f64 / 2f64.powi(40));
    assert_eq!(Ledger::from_json(&ledger.to_json()).as_ref(), Ok(&ledger));
    // An update within reach is not paid for again; one beyond it is, which over-counts.
    assert!(
        !ledger
            .debit(charge(2_999, ledger.entries()[1_023].cost.rho().get()))
            .unwrap()
            .newly_debited
    );
    assert!(ledger.debit(charge(0, 0.1)).unwrap().newly_debited);
    assert!(ledger.to_json().len() < 1 << 19, "{}", ledger.to_json().len());
}

#[test]
fn a_ledger_survives_a_round_trip_to_the_last_bit() {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut ledger = ledger(1e300);
    for number in 0..1_000 {
        // Every kind of float.
        let rho = f64::from_bits(rng.next_u64() >> 1);
        if rho < 1e200 {
            ledger.debit(charge(number, rho)).unwrap();
        }
    }
    let stored = ledger.to_json();
    let read = Ledger::from_json(&stored).unwrap();
    assert_eq!(read, ledger);
    assert_eq!(read.to_json(), stored);
}

#[test]
fn the_stored_form_is_the_documented_one() {
    let mut ledger = ledger(8.0);
    ledger.debit(charge(1, 0.125)).unwrap();
    let expected = concat!(
        r#"{"version":1,"budget":{"epsilon":"4020000000000000","delta":"3ee4f8b588e368f1"},"folded":{"count":0,"rho":"0000000000000000"},"entries":["#,
        r#"{"task":"digits","round":1,"update":"00000000000000000000000000000001","#,
        r#""frame_sha256":"0000000000000000000000000000000000000000000000000000000000000001","#,
        r#""rho":"3fc0000000000000","at_ms":1700000000001}]}"#,
    );
    assert_eq!(ledger.to_json(), expected);
}

#[test]
fn a_damaged_ledger_is_never_taken_for_a_good_one() {
    let mut ledger = ledger(8.0);
    ledger.debit(charge(1, 0.125)).unwrap();
    ledger.debit(charge(2, 0.125)).unwrap();
    let good = ledger.to_json();
    assert!(Ledger::from_json(&good).is_ok());
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        Ledger::from_json(&good.replacen(from, to, 1))
    };
    let damaged = [
        (r#""rho":"3fc0000000000000""#, r#""rho":"bfc0000000000000""#), // −0.125
        (r#""rho":"3fc0000000000000""#, r#""rho":"7ff8000000000000""#), // NaN
        (r#""rho":"3fc0000000000000""#, r#""rho":"7ff0000000000000""#), // infinity
        (r#""rho":"3fc0000000000000""#, r#""rho":null"#),
        (r#""rho":"3fc0000000000000""#, r#""rho":0.125"#),
        (r#""rho":"3fc0000000000000""#, r#""rho":"0.125""#),
        (r#""rho":"3fc0000000000000""#, r#""rho":"3FC0000000000000""#),
        (r#""rho":"0000000000000000""#, r#""rho":"3ff0000000000000""#),
        (r#""count":0"#, r#""count":1"#),
        (r#""count":0"#, r#""count":-1"#),
        (r#""round":1,"#, ""),
        (r#""round":1,"#, r#""round":1,"note":"","#),
        (r#""round":1,"#, r#""round":1,"round":1,"#),
        (r#""version":1,"#, r#""version":0,"#),
        (r#""version":1,"#, ""),
        (r#""version":1,"#, r#""version":1,"extra":0,"#),
        ("00000000000000000002\"", "00000000000000000001\""),
        ("]}", "]"),
        ("]}", "]}x"),
        ("{\"version\"", "{ \"version\""),
    ];
    for (from, to) in damaged {
        let read = replaced(from, to);
        assert!(
            matches!(read, Err(LedgerError::Damaged(_))),
            "{from} → {to}: {read:?}"
        );
    }
    assert!(matches!(
        replaced("digits", ""),
        Err(LedgerError::Field { field: "task", .. })
    ));
    assert!(matches!(
        replaced("00000001", "0000000G"),
        Err(LedgerError::Field { .. })
    ));
    assert!(matches!(
        replaced(
            r#""epsilon":"4020000000000000""#,
            r#""epsilon":"c020000000000000""#
        ),
        Err(LedgerError::Budget(_))
    ));
    assert!(matches!(
        replaced(r#""delta":"3ee4f8b588e368f1""#, r#""delta":"3ff8000000000000""#),
        Err(LedgerError::Budget(_))
    ));
    assert_eq!(
        Ledger::from_json(r#"{"version":3,"curves":[]}"#),
        Err(LedgerError::Version { found: 3, known: 2 })
    );
    for text in ["", "{}", "[]", "null", "\0", "{\"version\":1}"] {
        assert!(
            matches!(Ledger::from_json(text), Err(LedgerError::Damaged(_))),
            "{text:?}"
        );
    }
    // Cut off anywhere, it is damaged.
    for end in 0..good.len() {
        assert!(Ledger::from_json(&good[..end]).is_err());
    }
    // More entries than are ever kept.
    let entry = serde_json::to_string(&charge(1, 0.1)).unwrap();
    let many = vec![entry; Ledger::KEPT + 1].join(",");
    let head = r#"{"version":1,"budget":{"epsilon":"4020000000000000","delta":"3ee4f8b588e368f1"},"folded":{"count":0,"rho":"0000000000000000"},"entries":["#;
    assert!(matches!(
        Ledger::from_json(&format!("{head}{many}]}}")),
        Err(LedgerError::Damaged(_))
    ));
}

#[test]
fn a_count_that_was_tampered_with_does_not_overflow() {
    let mut ledger = ledger(1e6);
    (0..=Ledger::KEPT as u64).for_each(|number| assert!(ledger.debit(charge(number, 0.5)).is_ok()));
    let most = format!(r#""count":{}"#, u64::MAX);
    let mut read = Ledger::from_json(&ledger.to_json().replacen(r#""count":1"#, &most, 1)).unwrap();
    assert!(read.debit(charge(9_999, 0.5)).is_ok());
    assert_eq!(read.count(), u64::MAX);
}

#[test]
fn crashes_at_any_moment_never_make_the_ledger_count_less_than_was_sent() {
    // A client debits, stores, sends. It may crash after each step; then it reads the store again, and either retries the
    // stored update (identical bytes) or makes another.
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    for _ in 0..50 {
        let mut stored = ledger(1e6).to_json();
        let mut sent = std::collections::HashMap::new();
        let mut pending = with_cost(0, eighths(2, 1));
        for number in 1..60 {
            let crash_at = rng.next_u32() % 5;
            let mut ledger = Ledger::from_json(&stored).unwrap();
            if crash_at > 0 {
                ledger.debit(pending.clone()).unwrap();
            }
            if crash_at > 1 {
                stored = ledger.to_json();
            }
            if crash_at > 2 {
                sent.insert(
                    pending.update.clone(),
                    (pending.cost.rho().get(), pending.cost.curve()[0]),
                );
            }
            // 4: all went well. Otherwise an update whose debit was stored may be sent again as it is.
            if crash_at == 4 || rng.next_u32().is_multiple_of(2) {
                pending = with_cost(number, eighths(1 + rng.next_u32() % 8, rng.next_u32() % 4));
            }
        }
        let spent = Ledger::from_json(&stored).unwrap().spent();
        assert!(spent.rho().get() >= sent.values().map(|(rho, _)| rho).sum::<f64>());
        assert!(spent.curve()[0] >= sent.values().map(|(_, curve)| curve).sum::<f64>());
    }
}

/// A cost in multiples of 1/8, whose sums are exact.
fn eighths(rho: u32, curve: u32) -> Cost {
    let eighths = |number| f64::from(number) / 8.0;
    let mut cost = Cost::from(Rho::new(eighths(rho)).unwrap());
    cost.curve = exact_curve([eighths(curve); 8]);
    cost
}

/// Not widened, as `Cost::of_examples` would.
fn exact_curve(values: [f64; 8]) -> Curve {
    let text: Vec<String> = values
        .iter()
        .map(|value| format!("{:016x}", value.to_bits()))
        .collect();
    unsaid_document::Field::read(&serde_json::json!(text)).unwrap()
}

fn with_cost(number: u64, cost: Cost) -> Charge {
    Charge {
        cost,
        ..charge(number, 0.0)
    }
}

#[test]
fn a_ledger_of_the_first_version_goes_on_and_loses_nothing() {
    // As version 1 wrote it, folded costs included.
    let entries: Vec<String> = (0..Ledger::KEPT as u64)
        .map(|number| {
            let (update, hash) = (format!("{number:032x}"), format!("{number:064x}"));
            format!(
                r#"{{"task":"digits","round":{number},"update":"{update}","frame_sha256":"{hash}","rho":"3fc0000000000000","at_ms":1}}"#
            )
        })
        .collect();
    let stored = format!(
        r#"{{"version":1,"budget":{{"epsilon":"412e848000000000","delta":"3ee4f8b588e368f1"}},"folded":{{"count":3,"rho":"3fe0000000000000"}},"entries":[{}]}}"#,
        entries.join(",")
    );
    let mut ledger = Ledger::from_json(&stored).unwrap();
    assert_eq!(ledger.spent(), Cost::from(Rho::new(128.5).unwrap()));
    assert!(ledger.spent_epsilon() >= Rho::new(128.5).unwrap().epsilon(1e-5).unwrap());
    // A program of version 1 may be running in another tab: as long as it can, it reads what this one writes.
    assert_eq!(ledger.to_json(), stored);
    ledger.debit(with_cost(5_000, eighths(1, 0))).unwrap();
    assert!(ledger.to_json().starts_with(r#"{"version":1,"#));
    ledger.debit(with_cost(5_001, eighths(0, 1))).unwrap();
    let mixed = ledger.to_json();
    assert!(mixed.starts_with(r#"{"version":2,"#));
    assert_eq!(Ledger::from_json(&mixed).as_ref(), Ok(&ledger));
    assert_eq!(ledger.spent(), eighths(1029, 1));
}

#[test]
fn the_stored_form_of_a_curve_is_the_documented_one() {
    let mut ledger = ledger(1e6);
    ledger.debit(with_cost(1, eighths(1, 4))).unwrap();
    let half = r#""3fe0000000000000""#;
    let curve = format!(
        r#""rho":"3fc0000000000000","curve":[{}],"at_ms""#,
        [half; 8].join(",")
    );
    let good = ledger.to_json();
    assert!(good.contains(&curve), "{good}");
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        Ledger::from_json(&good.replacen(from, to, 1))
    };
    let zeros = [r#""0000000000000000""#; 8].join(",");
    let halves = [half; 8].join(",");
    for (from, to) in [
        (half, r#""bfe0000000000000""#),                     // −1/2
        (half, r#""7ff8000000000000""#),                     // NaN
        (half, r#""8000000000000000""#),                     // −0
        (half, "0.5"),                                       // a number
        (&*format!("{half},{half}]"), &*format!("{half}]")), // seven
        (&*format!("[{half}"), &*format!("[{half},{half}")), // nine
        (&*halves, &*zeros),                                 // a curve of nothing is left out
        (r#""version":2"#, r#""version":1"#),                // which knows no curves
        (
            r#""count":0,"rho":"0000000000000000""#,
            &*format!(r#""count":0,"rho":"0000000000000000","curve":[{halves}]"#),
        ),
    ] {
        let read = replaced(from, to);
        assert!(
            matches!(read, Err(LedgerError::Damaged(_))),
            "{from} → {to}: {read:?}"
        );
    }
    // An order that was too expensive to count is no damage: the others decide.
    let one_order_less = replaced(half, r#""7ff0000000000000""#).unwrap();
    assert!(one_order_less.spent_epsilon() >= ledger.spent_epsilon());
}

#[test]
fn curves_are_folded_without_losing_any_of_the_cost() {
    let mut ledger = ledger(1e300);
    let (mut rho, mut curve) = (0, 0);
    for number in 0..1_500 {
        let cost = (number as u32 % 3, number as u32 % 5);
        (rho, curve) = (rho + cost.0, curve + cost.1);
        ledger.debit(with_cost(number, eighths(cost.0, cost.1))).unwrap();
    }
    assert_eq!(ledger.spent(), eighths(rho, curve));
    assert_eq!(Ledger::from_json(&ledger.to_json()).as_ref(), Ok(&ledger));
}

#[test]
fn one_example_level_round_turns_the_sum_to_the_orders_of_the_list() {
    let mut ledger = ledger(4.0);
    ledger.debit(charge(1, 0.02)).unwrap();
    let before = ledger.spent_epsilon();
    // Good at small orders only, as sampled sums are.
    let sampled = Cost::of_examples(|order| 1e-4 * (order / 4.0).exp());
    ledger.debit(with_cost(2, sampled)).unwrap();
    assert!(ledger.spent_epsilon() > before && ledger.spent_epsilon() < 4.0);
    // A round that no order of the list can pay for is refused, and another may still be paid for.
    let enormous = Cost::of_examples(|_| f64::INFINITY);
    let refused = ledger.debit(with_cost(3, enormous));
    assert!(matches!(refused, Err(LedgerError::Exhausted { would_be, .. }) if would_be.is_infinite()));
    ledger.debit(with_cost(4, sampled)).unwrap();
    assert_eq!(ledger.count(), 3);
}

#[test]
fn a_day_has_as_many_updates_as_the_person_allows_whatever_the_clock_does() {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let mut ledger = ledger(1e6);
    let now = 100 * DAY;
    for (number, at_ms) in [(1, now - 2 * DAY), (2, now - DAY + 1), (3, now)] {
        let booked = Charge {
            at_ms,
            ..charge(number, 0.1)
        };
        ledger.debit(booked).unwrap();
    }
    assert_eq!(ledger.check_day(3, now), Ok(()));
    assert_eq!(
        ledger.check_day(2, now),
        Err(LedgerError::DailyLimit { limit: 2 })
    );
    assert_eq!(
        ledger.check_day(0, now),
        Err(LedgerError::DailyLimit { limit: 0 })
    );
    // A day later one of the two is a day old.
    assert_eq!(ledger.check_day(2, now + 1), Ok(()));
    // Set back, by a little or to the beginning: what is later than now counts as of today.
    for now in [now - 1, now - 50 * DAY, 0] {
        assert!(ledger.check_day(2, now).is_err(), "{now}");
    }
    assert_eq!(ledger.check_day(1, u64::MAX), Ok(()));
    // What was booked stays booked.
    assert_eq!(ledger.count(), 3);
}
