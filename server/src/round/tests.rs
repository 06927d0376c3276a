use proptest::prelude::*;
use unsaid_protocol::{CheckIn, CheckInReply, IdentityId};

use super::*;

mod asynchronous;
mod chance;
mod faults;
mod separation;

const MINUTE: u64 = 60_000;

fn rules() -> Rules {
    Rules {
        policy: RoundPolicy {
            min_clients: 2,
            target_clients: 3,
            deadline_ms: MINUTE,
        },
        limit: None,
        invited: None,
        chance: None,
        manifest: ContentHash::of(b"manifest"),
        max_staleness: 0,
        min_separation: 0,
        by_identity: false,
        shares: None,
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
        digest: FrameDigest::of(&update),
        bytes: 100,
        identity: None,
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

/// At most four of a target of three.
fn over_selecting() -> Rounds {
    let rules = Rules {
        invited: Some(4),
        ..rules()
    };
    Rounds::first(rules, model(0))
}

fn wait(rounds: &mut Rounds, id: ClientId, now_ms: u64) -> Option<u64> {
    let ask = CheckIn { client: id, ..ask(0) };
    match rounds.check_in(&ask, now_ms).unwrap() {
        CheckInReply::Wait { retry_after_ms, .. } => Some(retry_after_ms),
        _ => None,
    }
}

#[test]
fn more_are_invited_than_are_needed_and_no_more_than_that() {
    let mut rounds = over_selecting();
    for id in 1..=4 {
        assert_eq!(wait(&mut rounds, client(id), 0), None);
    }
    assert!(
        wait(&mut rounds, client(5), 0) >= Some(MINUTE),
        "not in this span"
    );
    assert_eq!(wait(&mut rounds, client(1), 0), None, "who is in may ask again");
    let fourth = claim(&rounds, 4);
    for id in 1..=3 {
        report(&mut rounds, id, 1);
    }
    assert_eq!(rounds.tick(1), Due::Publish, "without the fourth");
    rounds.publish(model(1), 1, 1);
    let late = Refusal::Closed { asked: 1, open: 2 };
    assert_eq!(rounds.judge(&fourth), Err(late));
    assert_eq!(
        wait(&mut rounds, client(5), 2),
        None,
        "the next round is another's"
    );
}

#[test]
fn who_drops_out_is_made_up_for_in_the_next_span() {
    let mut rounds = over_selecting();
    for id in 1..=4 {
        wait(&mut rounds, client(id), 0);
    }
    report(&mut rounds, 1, 1);
    assert_eq!(rounds.tick(MINUTE), Due::Extended);
    let mut others = Rounds::resume(rounds.rules, &rounds.head(), [], []);
    others.catch_up(
        &rounds.head(),
        (1..=4).map(|id| (1, client(id))),
        rounds.counted.values().copied().collect::<Vec<_>>(),
    );
    for mut rounds in [rounds, others] {
        let let_in = |id: &u8| wait(&mut rounds, client(*id), MINUTE).is_none();
        assert_eq!((5..=9).filter(let_in).count(), 3, "the one that reported counts");
        report(&mut rounds, 2, MINUTE); // a slow one is not sent away
        report(&mut rounds, 5, MINUTE);
        assert_eq!(rounds.tick(MINUTE), Due::Publish);
    }
    // Where none reported, another span begins with another's check-in.
    let mut rounds = over_selecting();
    for id in 1..=4 {
        wait(&mut rounds, client(id), 0);
    }
    assert_eq!(rounds.tick(MINUTE), Due::Lapsed);
    let let_in = (5..=9).filter(|&id| wait(&mut rounds, client(id), MINUTE).is_none());
    assert_eq!(let_in.count(), 4);
}

/// A thousand clients for a round of four: 250 rounds of a minute. Each is told a time by its id; about as many are to come in
/// any of ten equal parts of that time. In each, the number is binomial (1,000, 1/10): 100, with a standard deviation of 9.5. A
/// part beyond 50 to 150 has a probability below 10⁻⁶; the ids are fixed, so it either is or is not.
#[test]
fn those_that_wait_come_back_spread_over_the_rounds_that_they_need() {
    let mut rounds = over_selecting();
    rounds.rules.policy.deadline_ms = 2_000;
    let stranger = |number: u64| {
        let half = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        ClientId::from_bytes([half, [7; 8]].concat().try_into().unwrap())
    };
    for number in 0..1_000 {
        wait(&mut rounds, stranger(number), 0);
    }
    let first = wait(&mut rounds, stranger(999), 0);
    assert_eq!(
        wait(&mut rounds, stranger(999), 0),
        first,
        "asking again changes nothing"
    );
    let mut parts = [0; 10];
    for number in 4..1_000 {
        let told = wait(&mut rounds, stranger(number), 0).unwrap();
        assert!((2_000..502_000).contains(&told), "{told}");
        parts[(told as usize - 2_000) / 50_000] += 1;
    }
    assert!(parts.iter().all(|part| (50..150).contains(part)), "{parts:?}");
    // Few that wait are told little more than the end of the span.
    let mut quiet = over_selecting();
    for id in 1..=4 {
        wait(&mut quiet, client(id), 0);
    }
    let told = wait(&mut quiet, client(5), 0).unwrap();
    assert!((MINUTE..=2 * MINUTE).contains(&told));
}

#[test]
fn an_update_id_of_another_client_is_taken_whatever_the_digest() {
    let mut rounds = rounds();
    let counted = report(&mut rounds, 1, 0);
    rounds.check_in(&ask(2), 0).unwrap();
    let same = |client| Claim { client, ..counted };
    let duplicate = Judgement::Duplicate { round: 1 };
    assert_eq!(rounds.judge(&same(client(1))), Ok(duplicate));
    assert_eq!(
        rounds.judge(&same(client(2))),
        Err(Refusal::Conflict { round: 1 })
    );
}

#[test]
fn whoever_follows_forgets_the_same_check_ins() {
    let mut rounds = rounds();
    let stranger = |number: usize| ClientId::from_bytes((number as u128).to_le_bytes());
    let let_in = |rounds: &mut Rounds, client: ClientId| {
        rounds.check_in(&CheckIn { client, ..ask(0) }, 0).unwrap();
    };
    let_in(&mut rounds, client(0xfe));
    for number in 0..60_000 {
        let_in(&mut rounds, stranger(number));
    }
    // It does not see the last of them, as the store has forgotten them before it looks.
    let mut follower = rounds.clone();
    for number in 60_000..MAX_CHECK_INS - 1 {
        let_in(&mut rounds, stranger(number));
    }
    let reported = rounds.count(&claim(&rounds, 0xfe), 0);
    assert_eq!(rounds.tick(MINUTE), Due::Extended);
    let_in(&mut rounds, client(0xfd));
    let_in(&mut rounds, stranger(1));
    let new = [client(0xfd), stranger(1)].map(|client| (1, client));
    follower.catch_up(&rounds.head(), new, [reported]);
    assert_eq!((rounds.checked_in(), follower.checked_in()), (3, 3));
    for (client, is_in) in [(0xfd, true), (0xfc, false)] {
        assert_eq!(follower.judge(&claim(&rounds, client)).is_ok(), is_in);
    }
}

#[test]
fn a_store_full_of_check_ins_that_were_forgotten_is_no_full_round() {
    let left = (0..MAX_CHECK_INS as u128).map(|number| (1, ClientId::from_bytes(number.to_le_bytes())));
    let idle = rounds();
    let mut rounds = Rounds::resume(idle.rules, &idle.head(), left, []);
    assert!(rounds.check_in(&ask(0xfe), 0).is_ok());
}

#[test]
fn a_clock_that_is_set_back_leaves_a_round_a_whole_span_and_no_more() {
    const DAY: u64 = 24 * 60 * MINUTE;
    let collecting = |reports: u8| {
        let mut rounds = rounds();
        rounds.check_in(&ask(9), DAY).unwrap();
        for id in 1..=reports {
            report(&mut rounds, id, DAY);
        }
        rounds
    };
    for (reports, due) in [(0, Due::Lapsed), (1, Due::Extended), (2, Due::Publish)] {
        let mut rounds = collecting(reports);
        assert_eq!(rounds.tick(MINUTE), Due::Moved);
        let span = Span {
            started_ms: MINUTE,
            deadline_ms: 2 * MINUTE,
        };
        assert_eq!(rounds.span(), Some(span));
        assert_eq!(rounds.tick(2 * MINUTE - 1), Due::Nothing, "once is enough");
        assert_eq!(rounds.tick(2 * MINUTE), due, "{reports}");
    }
    // A span that was extended began long before its deadline: by as much the clock may be set back, and its beginning is past.
    let mut rounds = collecting(1);
    for later in 1..=5 {
        assert_eq!(rounds.tick(DAY + later * MINUTE), Due::Extended);
    }
    assert_eq!(rounds.tick(DAY + 2 * MINUTE), Due::Moved);
    let span = Span {
        started_ms: DAY,
        deadline_ms: DAY + 3 * MINUTE,
    };
    assert_eq!(rounds.span(), Some(span));
    let mut restarted = Rounds::resume(rules(), &collecting(0).head(), [(1, client(9))], []);
    assert_eq!(restarted.tick(MINUTE), Due::Moved, "what a store kept, too");
    let mut rounds = collecting(2);
    assert!(matches!(
        rounds.check_in(&ask(1), 0),
        Ok(CheckInReply::Wait {
            retry_after_ms: 250..=5_000,
            ..
        })
    ));
    assert_eq!(rounds.publish(model(1), 1, 0).duration_ms, 0);
}

#[test]
fn a_publication_that_cannot_be_made_is_tried_again_at_the_deadline() {
    let mut rounds = rounds();
    for id in 1..=3 {
        report(&mut rounds, id, 0);
    }
    for tried in 0..3 {
        let now = tried * MINUTE;
        assert_eq!(rounds.tick(now), Due::Publish);
        rounds.put_off(now);
        assert_eq!(rounds.tick(now), Due::Nothing);
        assert_eq!(rounds.tick(now + MINUTE - 1), Due::Nothing);
    }
    assert_eq!(rounds.tick(3 * MINUTE), Due::Publish);
    rounds.publish(model(1), 1, 3 * MINUTE);
    for id in 1..=3 {
        report(&mut rounds, id, 3 * MINUTE);
    }
    assert_eq!(rounds.tick(3 * MINUTE), Due::Publish, "the next one has its own");
}

#[test]
fn a_round_beyond_the_last_has_no_deadline() {
    let mut collecting = rounds();
    report(&mut collecting, 1, 0);
    let head = collecting.head();
    assert!(head.span.is_some());
    let finished = Rules {
        limit: Some(0),
        ..rules()
    };
    let mut rounds = Rounds::resume(finished, &head, [], []);
    assert_eq!((rounds.span(), rounds.tick(MINUTE)), (None, Due::Nothing));
    assert_eq!(rounds.head().span, head.span, "a higher limit goes on with it");
}

#[test]
fn whoever_let_a_span_end_is_not_waited_for_and_may_report_all_the_same() {
    let everyone = [[0; 16], [0xff; 16]];
    let under_way = |rounds: &Rounds| rounds.under_way_of(everyone, &client(8), 0);
    let mut rounds = rounds();
    rounds.check_in(&ask(1), 0).unwrap();
    assert_eq!(under_way(&rounds), 1);
    assert_eq!(rounds.tick(MINUTE), Due::Lapsed);
    let restarted = Rounds::resume(rules(), &rounds.head(), [(1, client(1))], []);
    assert_eq!((under_way(&rounds), under_way(&restarted)), (0, 0));
    rounds.check_in(&ask(2), MINUTE).unwrap();
    assert_eq!(under_way(&rounds), 1, "of the new span");
    rounds.check_in(&ask(1), MINUTE).unwrap();
    assert_eq!(under_way(&rounds), 2, "it is back");
    report(&mut rounds, 2, MINUTE);
    let mut other = Rounds::resume(rules(), &rounds.head(), [(1, client(1)), (1, client(2))], []);
    assert_eq!(rounds.tick(2 * MINUTE), Due::Extended);
    rounds.check_in(&ask(3), 2 * MINUTE).unwrap();
    other.catch_up(&rounds.head(), [(1, client(3))], []);
    assert!(rounds.judge(&claim(&rounds, 1)).is_ok(), "late");
    for follower in [&mut rounds, &mut other] {
        assert_eq!(follower.under_way_of([[1; 16]; 2], &client(8), 0), 0);
        assert_eq!(follower.under_way_of([[3; 16]; 2], &client(8), 0), 1);
    }
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
                        check_ins.push((rounds.round(), client(id)));
                    }
                }
                Step::Report(id) => {
                    let claim = claim(&rounds, id);
                    match rounds.judge(&claim) {
                        Ok(Judgement::New) => {
                            prop_assert!(check_ins.contains(&(rounds.round(), client(id))));
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
