//! Rounds whose updates may start from older models (FedBuff).

use super::*;

fn asynchronous(max_staleness: u32) -> Rules {
    Rules {
        max_staleness,
        min_separation: 0,
        ..rules()
    }
}

/// An update that starts from the model of `base`.
fn stale_claim(id: u8, base: u64, number: u8) -> Claim {
    let mut update = [id; 16];
    update[8] = number;
    update[..8].copy_from_slice(&base.to_le_bytes());
    Claim {
        update: UpdateId::from_bytes(update),
        client: client(id),
        manifest: rules().manifest,
        model: model(base - 1),
        round: base,
        digest: FrameDigest::of(&update),
        bytes: 100,
        identity: None,
    }
}

#[test]
fn an_update_from_an_older_model_counts_in_the_open_round_until_it_is_too_old() {
    let mut rounds = Rounds::first(asynchronous(2), model(0));
    rounds.check_in(&ask(1), 0).unwrap();
    rounds.check_in(&ask(2), 0).unwrap();
    rounds.publish(model(1), 1, 0);
    rounds.publish(model(2), 1, 0);
    let late = stale_claim(1, 1, 0);
    assert_eq!(rounds.judge(&late), Ok(Judgement::New));
    assert_eq!(rounds.staleness(&late), 2);
    let other_model = Claim {
        model: model(1),
        ..late
    };
    let (round, expected) = (1, model(0));
    assert_eq!(
        rounds.judge(&other_model),
        Err(Refusal::Model { round, expected })
    );
    let closed = |asked| {
        Err(Refusal::Closed {
            asked,
            open: rounds.round(),
        })
    };
    assert_eq!(rounds.judge(&stale_claim(3, 1, 0)), closed(1), "it never came");
    // After a restart, too.
    let check_ins = [(1, client(1)), (1, client(2))];
    let mut again = Rounds::resume(asynchronous(2), &rounds.head(), check_ins, []);
    assert_eq!(again.count(&late, 5).round, 3, "the open round counts it");
    assert_eq!((again.received(), again.checked_in()), (1, 0));
    assert_eq!(again.judge(&late), Ok(Judgement::Duplicate { round: 3 }));
    assert_eq!(again.span().unwrap().started_ms, 5);
    again.publish(model(3), 1, 0);
    let (asked, open) = (1, 4);
    assert_eq!(
        again.judge(&stale_claim(2, 1, 0)),
        Err(Refusal::Closed { asked, open }),
        "too old"
    );
    let mut synchronous = Rounds::first(rules(), model(0));
    synchronous.check_in(&ask(1), 0).unwrap();
    synchronous.publish(model(1), 1, 0);
    let (asked, open) = (1, 2);
    assert_eq!(synchronous.judge(&late), Err(Refusal::Closed { asked, open }));
}

#[test]
fn a_client_counts_once_in_a_round_and_once_for_a_check_in() {
    let mut rounds = Rounds::first(asynchronous(2), model(0));
    rounds.check_in(&ask(1), 0).unwrap();
    rounds.publish(model(1), 1, 0);
    rounds.count(&stale_claim(1, 1, 0), 0);
    assert!(matches!(
        rounds.check_in(&ask(1), 0),
        Ok(CheckInReply::Wait { round: 2, .. })
    ));
    let twice = stale_claim(1, 1, 1);
    assert_eq!(rounds.judge(&twice), Err(Refusal::AlreadyReported { round: 2 }));
    rounds.publish(model(2), 1, 0);
    assert_eq!(rounds.judge(&twice), Err(Refusal::AlreadyReported { round: 3 }));
    assert!(matches!(
        rounds.check_in(&ask(1), 0),
        Ok(CheckInReply::Train { round: 3, .. })
    ));
    assert_eq!(rounds.judge(&stale_claim(1, 3, 0)), Ok(Judgement::New));
}

#[test]
fn after_a_rollback_nothing_counts_that_started_before_it() {
    let mut rounds = Rounds::first(asynchronous(2), model(0));
    rounds.check_in(&ask(1), 0).unwrap();
    rounds.publish(model(1), 1, 0);
    rounds.check_in(&ask(2), 0).unwrap();
    rounds.pause(true);
    rounds.roll_back(0, model(0), 1, 0).unwrap();
    for (id, asked) in [(1, 1), (2, 2)] {
        let refused = Err(Refusal::Closed { asked, open: 3 });
        assert_eq!(rounds.judge(&stale_claim(id, asked, 0)), refused);
    }
}

proptest! {
    /// Where updates may be stale: each is within its bound, a client is in a round once and once for a check-in, and a relay that
    /// reads its store, or catches up with another, judges as one that was there all the time.
    #[test]
    fn stale_updates_count_once_and_whoever_reads_the_store_agrees(
        steps in prop::collection::vec((0u8..5, 0u8..6, 0u64..4), 0..120),
    ) {
        let rules = asynchronous(2);
        let mut rounds = Rounds::first(rules, model(0));
        let mut follower = rounds.clone();
        let (mut counted, mut bases, mut check_ins) = (Vec::<Counted>::new(), Vec::new(), Vec::new());
        let mut told = (0, 0);
        for (what, id, behind) in steps {
            match what {
                0 | 1 => {
                    if matches!(rounds.check_in(&ask(id), 0), Ok(CheckInReply::Train { .. })) {
                        check_ins.push((rounds.round(), client(id)));
                    }
                }
                2 | 3 => {
                    let base = rounds.round().saturating_sub(behind).max(1);
                    let claim = stale_claim(id, base, counted.len() as u8);
                    let head = rounds.head();
                    let again = Rounds::resume(rules, &head, check_ins.iter().copied(), counted.iter().copied());
                    follower.catch_up(&head, check_ins[told.0..].iter().copied(), counted[told.1..].iter().copied());
                    told = (check_ins.len(), counted.len());
                    let judgement = rounds.judge(&claim);
                    prop_assert_eq!(&again.judge(&claim), &judgement);
                    prop_assert_eq!(&follower.judge(&claim), &judgement);
                    if judgement == Ok(Judgement::New) {
                        prop_assert!(rounds.staleness(&claim) <= 2);
                        prop_assert!(check_ins.contains(&(base, client(id))));
                        counted.push(rounds.count(&claim, 0));
                        bases.push((base, client(id)));
                    }
                }
                _ => {
                    let round = rounds.round();
                    rounds.publish(model(round), 1, 0);
                }
            }
        }
        let in_rounds: std::collections::BTreeSet<_> = counted.iter().map(|entry| (entry.round, entry.client)).collect();
        let for_check_ins: std::collections::BTreeSet<_> = bases.iter().collect();
        prop_assert_eq!((in_rounds.len(), for_check_ins.len()), (counted.len(), counted.len()));
    }
}
