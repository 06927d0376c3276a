use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;

fn rules() -> Rules {
    Rules {
        policy: RoundPolicy {
            min_clients: 2,
            target_clients: 3,
            deadline_ms: MINUTE,
        },
        limit: None,
        manifest: ContentHash::of(b"manifest"),
    }
}

fn model(round: u64) -> ContentHash {
    ContentHash::of(&round.to_le_bytes())
}

fn rounds() -> Rounds {
    Rounds::first(rules(), model(0))
}

fn client(client: u8) -> ClientId {
    ClientId::from_bytes([client; 16])
}

fn ask(id: u8) -> CheckIn {
    CheckIn {
        client: client(id),
        manifest: rules().manifest,
    }
}

fn claim(rounds: &Rounds, id: u8) -> Claim {
    let mut update = [id; 16];
    update[..8].copy_from_slice(&rounds.round().to_le_bytes());
    Claim {
        update: UpdateId::from_bytes(update),
        client: client(id),
        manifest: rules().manifest,
        model: rounds.model(),
        round: rounds.round(),
        digest: ContentHash::of(&update),
        bytes: 100,
    }
}

fn report(rounds: &mut Rounds, id: u8, now_ms: u64) -> Claim {
    rounds.check_in(&ask(id), now_ms).unwrap();
    let claim = claim(rounds, id);
    assert_eq!(rounds.judge(&claim), Ok(Judgement::New));
    rounds.count(&claim, now_ms);
    claim
}

#[test]
fn the_first_check_in_starts_the_deadline_and_later_ones_do_not_move_it() {
    let mut rounds = rounds();
    assert_eq!(rounds.phase(), RoundPhase::Idle);
    assert_eq!(rounds.tick(10 * MINUTE), Due::Nothing);
    for (id, now_ms, left) in [
        (1, 5, MINUTE),
        (2, 1_005, MINUTE - 1_000),
        (1, 2_005, MINUTE - 2_000),
    ] {
        let reply = rounds.check_in(&ask(id), now_ms);
        assert_eq!(
            reply,
            Ok(CheckInReply::Train {
                round: 1,
                model: model(0),
                deadline_ms: left
            })
        );
    }
    assert_eq!((rounds.phase(), rounds.checked_in()), (RoundPhase::Collecting, 2));
}

#[test]
fn a_round_publishes_at_its_target() {
    let mut rounds = rounds();
    report(&mut rounds, 1, 10);
    report(&mut rounds, 2, 20);
    assert_eq!(rounds.tick(20), Due::Nothing);
    report(&mut rounds, 3, 30);
    assert_eq!(rounds.tick(30), Due::Publish);
    let metrics = rounds.publish(model(1), 400, 35);
    assert_eq!((metrics.round, metrics.clients, metrics.checked_in), (1, 3, 3));
    assert_eq!((metrics.bytes_up, metrics.model_bytes), (300, 400));
    assert_eq!((metrics.duration_ms, metrics.published_at_ms), (25, 35));
    assert_eq!(
        (rounds.round(), rounds.model(), rounds.phase()),
        (2, model(1), RoundPhase::Idle)
    );
    assert_eq!(
        (rounds.received(), rounds.checked_in(), rounds.span()),
        (0, 0, None)
    );
}

#[test]
fn a_round_publishes_at_its_deadline_with_the_minimum() {
    let mut rounds = rounds();
    report(&mut rounds, 1, 0);
    report(&mut rounds, 2, 0);
    assert_eq!(rounds.tick(MINUTE - 1), Due::Nothing);
    assert_eq!(rounds.tick(MINUTE), Due::Publish);
}

#[test]
fn below_the_minimum_the_span_starts_again_and_the_updates_stay() {
    let mut rounds = rounds();
    let first = report(&mut rounds, 1, 0);
    assert_eq!(rounds.tick(MINUTE + 7), Due::Extended);
    assert_eq!(rounds.span().unwrap().deadline_ms, 2 * MINUTE + 7);
    assert_eq!(rounds.judge(&first), Ok(Judgement::Duplicate { round: 1 }));
    report(&mut rounds, 2, 2 * MINUTE);
    assert_eq!(rounds.tick(2 * MINUTE + 7), Due::Publish);
    assert_eq!(
        rounds.publish(model(1), 1, 2 * MINUTE + 7).duration_ms,
        2 * MINUTE + 7
    );
}

#[test]
fn without_updates_the_round_is_idle_again_and_a_slow_client_may_still_report() {
    let mut rounds = rounds();
    rounds.check_in(&ask(1), 0).unwrap();
    assert_eq!(rounds.tick(MINUTE), Due::Lapsed);
    assert_eq!(rounds.phase(), RoundPhase::Idle);
    assert_eq!(rounds.tick(100 * MINUTE), Due::Nothing);
    let slow = claim(&rounds, 1);
    assert_eq!(rounds.judge(&slow), Ok(Judgement::New));
    rounds.count(&slow, 100 * MINUTE);
    assert_eq!(
        rounds.span(),
        Some(Span {
            started_ms: 100 * MINUTE,
            deadline_ms: 101 * MINUTE
        })
    );
}

#[test]
fn ids_of_closed_rounds_are_known_for_a_while() {
    let mut rounds = rounds();
    let first = report(&mut rounds, 1, 0);
    for round in 1..=REMEMBERED_ROUNDS {
        rounds.publish(model(round), 1, 0);
        assert_eq!(
            rounds.judge(&first),
            Ok(Judgement::Duplicate { round: 1 }),
            "{round}"
        );
    }
    rounds.publish(model(99), 1, 0);
    let (asked, open) = (1, rounds.round());
    let forgotten = Refusal::Forgotten { asked, open };
    assert_eq!(rounds.judge(&first), Err(forgotten.clone()), "not counted again");
    assert!(
        !forgotten.to_string().contains("was not counted"),
        "nobody is told what the relay no longer knows: {forgotten}"
    );
    // Of an update that is remembered not to be counted, that is said.
    let late = Claim {
        update: UpdateId::from_bytes([9; 16]),
        round: 2,
        ..first
    };
    let closed = Refusal::Closed { asked: 2, open };
    assert_eq!(rounds.judge(&late), Err(closed.clone()));
    assert!(closed.to_string().contains("was not counted"), "{closed}");
    // The terms come before the round (PROTOCOL.md, 2.5): after a change of the manifest that is what is said.
    let old_terms = Claim {
        manifest: ContentHash::of(b"other"),
        ..first
    };
    let in_force = rules().manifest;
    assert_eq!(rounds.judge(&old_terms), Err(Refusal::Manifest { in_force }));
}

#[test]
fn the_last_round_finishes_the_task_and_a_higher_limit_goes_on() {
    let rules = Rules {
        limit: Some(1),
        ..rules()
    };
    let mut rounds = Rounds::first(rules, model(0));
    report(&mut rounds, 1, 0);
    rounds.publish(model(1), 1, 0);
    assert_eq!(rounds.phase(), RoundPhase::Finished);
    assert_eq!(
        rounds.check_in(&ask(1), 0),
        Ok(CheckInReply::Finished {
            round: 1,
            model: model(1)
        })
    );
    assert_eq!(
        rounds.judge(&claim(&rounds, 2)),
        Err(Refusal::NotOpen { asked: 2, open: 2 })
    );
    assert_eq!(rounds.tick(u64::MAX), Due::Nothing);
    let rounds = Rounds::resume(
        Rules {
            limit: Some(2),
            ..rules
        },
        &rounds.head(),
        [],
        [],
    );
    assert_eq!(rounds.phase(), RoundPhase::Idle);
}

#[test]
fn strangers_cannot_fill_a_round_for_good() {
    let mut rounds = rounds();
    for number in 0..MAX_CHECK_INS as u128 {
        let stranger = ClientId::from_bytes(number.to_le_bytes());
        rounds
            .check_in(
                &CheckIn {
                    client: stranger,
                    ..ask(0)
                },
                0,
            )
            .unwrap();
    }
    assert_eq!(rounds.check_in(&ask(0xfe), 0), Err(Refusal::Full { round: 1 }));
    assert_eq!(rounds.tick(MINUTE), Due::Lapsed);
    assert!(rounds.check_in(&ask(0xfe), MINUTE).is_ok());
}

#[test]
fn a_clock_that_runs_backwards_breaks_nothing() {
    let mut rounds = rounds();
    report(&mut rounds, 1, 10 * MINUTE);
    assert_eq!(rounds.tick(0), Due::Nothing);
    assert!(matches!(
        rounds.check_in(&ask(1), 0),
        Ok(CheckInReply::Wait {
            retry_after_ms: 250..=5_000,
            ..
        })
    ));
    assert_eq!(rounds.publish(model(1), 1, 0).duration_ms, 0);
}

#[derive(Debug, Clone)]
enum Step {
    CheckIn(u8),
    Report(u8),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6).prop_map(Step::CheckIn),
        (0u8..6).prop_map(Step::Report),
        (0..2 * MINUTE).prop_map(Step::Wait),
        Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens in whatever order, with restarts in between: what was counted is in exactly one round, each round
    /// publishes within its policy, and a client is in a round once.
    #[test]
    fn each_counted_update_is_in_exactly_one_round(steps in prop::collection::vec(step(), 0..200)) {
        let (mut rounds, mut now_ms) = (rounds(), 0);
        let (mut counted, mut check_ins, mut published) = (Vec::<Counted>::new(), Vec::new(), 0u64);
        for step in steps {
            match step {
                Step::CheckIn(id) => {
                    if matches!(rounds.check_in(&ask(id), now_ms), Ok(CheckInReply::Train { .. })) {
                        check_ins.push(client(id));
                    }
                }
                Step::Report(id) => {
                    let claim = claim(&rounds, id);
                    match rounds.judge(&claim) {
                        Ok(Judgement::New) => {
                            prop_assert!(check_ins.contains(&client(id)));
                            counted.push(rounds.count(&claim, now_ms));
                        }
                        Ok(Judgement::Duplicate { round }) => prop_assert_eq!(round, claim.round),
                        Err(refusal) => prop_assert_eq!(refusal, Refusal::NotCheckedIn { round: claim.round }),
                    }
                }
                Step::Wait(ms) => now_ms += ms,
                Step::Restart => {
                    let head = rounds.head();
                    let again = Rounds::resume(rules(), &head, check_ins.iter().copied(), counted.iter().copied());
                    prop_assert_eq!((again.received(), again.checked_in()), (rounds.received(), rounds.checked_in()));
                    rounds = again;
                }
            }
            if rounds.tick(now_ms) == Due::Publish {
                let open = rounds.round();
                let metrics = rounds.publish(model(open), 1, now_ms);
                prop_assert_eq!(metrics.clients as usize, counted.iter().filter(|entry| entry.round == open).count());
                prop_assert!((2..=3).contains(&metrics.clients));
                prop_assert!(metrics.checked_in >= metrics.clients);
                published += u64::from(metrics.clients);
                check_ins.clear();
            }
        }
        prop_assert_eq!(published + u64::from(rounds.received()), counted.len() as u64);
        let distinct: std::collections::BTreeSet<_> = counted.iter().map(|entry| (entry.round, entry.client)).collect();
        prop_assert_eq!(distinct.len(), counted.len());
    }
}
