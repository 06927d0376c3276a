//! Whatever may happen to rounds, in random order: clients that come, report and leave, an operator who pauses and goes back, a bound on
//! who is invited, selection by chance, a clock that runs back, a store that is read again, and another relay that follows.

use std::collections::BTreeSet;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    CheckIn(u8),
    Report(u8),
    /// An update that was counted before is sent again.
    Again(usize),
    Wait(u64),
    /// The clock is set back.
    Back(u64),
    Pause(bool),
    RollBack,
    Restart,
    /// The other relay goes on.
    Change,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..12).prop_map(Step::CheckIn),
        6 => (0u8..12).prop_map(Step::Report),
        1 => (0usize..64).prop_map(Step::Again),
        2 => (0..2 * MINUTE).prop_map(Step::Wait),
        1 => (0..3 * MINUTE).prop_map(Step::Back),
        2 => any::<bool>().prop_map(Step::Pause),
        1 => Just(Step::RollBack),
        1 => Just(Step::Restart),
        1 => Just(Step::Change),
    ]
}

/// What a store would hold.
#[derive(Default)]
struct Kept {
    check_ins: Vec<(u64, ClientId)>,
    counted: Vec<Counted>,
}

impl Kept {
    fn read(&self, rounds: &Rounds) -> Rounds {
        let head: Head = serde_json::from_str(&serde_json::to_string(&rounds.head()).unwrap()).unwrap();
        let check_ins = self.check_ins.iter().copied();
        Rounds::resume(rounds.rules, &head, check_ins, self.counted.iter().copied())
    }
}

/// The update that a client makes of what it checked in to.
fn made_of(rounds: &Rounds, id: u8, number: usize) -> Claim {
    let mut update = [id; 16];
    update[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Claim {
        update: UpdateId::from_bytes(update),
        ..claim(rounds, id)
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_update_is_lost_or_counted_twice_and_nobody_comes_in_who_must_not(
        steps in prop::collection::vec(step(), 0..250),
        invited in prop::option::of(3u32..6),
        by_chance in any::<bool>(),
    ) {
        let rules = Rules {
            invited,
            chance: by_chance.then(|| Chance::new(0.5).unwrap()),
            ..rules()
        };
        let (mut rounds, mut other) = (Rounds::first(rules, model(0)), Rounds::first(rules, model(0)));
        let (mut kept, mut told) = (Kept::default(), (0, 0));
        let (mut now_ms, mut keys, mut sent) = (10 * MINUTE, 0_u8, Vec::<Claim>::new());
        let (mut published, mut given_up) = (0_u64, 0_u64);
        // Let in since the span began, and what the round counts of those before.
        let mut let_in = 0_u32;
        for step in steps {
            match step {
                Step::CheckIn(id) => {
                    if rounds.wants_key() {
                        keys = keys.wrapping_add(1);
                        rounds.draw_by(DrawKey::from_bytes([keys; 32]));
                    }
                    let was_in = rounds.is_in(&client(id));
                    match rounds.check_in(&ask(id), now_ms).unwrap() {
                        CheckInReply::Train { round, model, .. } => {
                            prop_assert_eq!((round, model), (rounds.round(), rounds.model()));
                            prop_assert!(!rounds.has_reported(&client(id)));
                            if !was_in {
                                prop_assert!(!rounds.paused(), "nobody comes in while the task is paused");
                                kept.check_ins.push((round, client(id)));
                                let_in += 1;
                                prop_assert!(invited.is_none_or(|most| let_in <= most), "{} are let in", let_in);
                            }
                        }
                        CheckInReply::Wait { retry_after_ms, .. } => {
                            prop_assert!((250..=600_000).contains(&retry_after_ms));
                            let may_wait = was_in || rounds.paused() || invited.is_some() || by_chance;
                            prop_assert!(may_wait || rounds.has_reported(&client(id)));
                            prop_assert!(!was_in || rounds.has_reported(&client(id)), "who is in stays in");
                        }
                        reply => prop_assert!(false, "{reply:?}"),
                    }
                }
                Step::Report(id) => {
                    let claim = made_of(&rounds, id, sent.len());
                    let is_in = rounds.is_in(&client(id));
                    match rounds.judge(&claim) {
                        Ok(judgement) => {
                            prop_assert_eq!(judgement, Judgement::New);
                            prop_assert!(is_in);
                            kept.counted.push(rounds.count(&claim, now_ms));
                            sent.push(claim);
                        }
                        Err(Refusal::NotCheckedIn { .. }) => prop_assert!(!is_in),
                        Err(refusal) => {
                            prop_assert_eq!(refusal, Refusal::AlreadyReported { round: rounds.round() });
                            prop_assert!(rounds.has_reported(&client(id)));
                        }
                    }
                }
                Step::Again(number) => if let Some(claim) = sent.get(number) {
                    let round = claim.round;
                    prop_assert_eq!(rounds.judge(claim), Ok(Judgement::Duplicate { round }), "for good");
                },
                Step::Wait(ms) => now_ms += ms,
                Step::Back(ms) => now_ms = now_ms.saturating_sub(ms),
                Step::Pause(paused) => rounds.pause(paused),
                Step::RollBack => {
                    let (open, received) = (rounds.round(), rounds.received());
                    let went = rounds.roll_back(0, model(0), 1, now_ms);
                    prop_assert_eq!(went.is_ok(), rounds.paused());
                    if let Ok(metrics) = went {
                        prop_assert_eq!((metrics.round, metrics.clients, metrics.rolled_back_to), (open, 0, Some(0)));
                        prop_assert_eq!((rounds.round(), rounds.model(), rounds.received()), (open + 1, model(0), 0));
                        prop_assert!(rounds.paused() && rounds.span().is_none());
                        given_up += u64::from(received);
                        kept.check_ins.clear();
                        (told.0, let_in) = (0, 0);
                    }
                }
                Step::Restart => rounds = kept.read(&rounds),
                Step::Change => {
                    let (check_ins, counted) = (&kept.check_ins[told.0..], &kept.counted[told.1..]);
                    other.catch_up(&rounds.head(), check_ins.iter().copied(), counted.iter().copied());
                    told = (kept.check_ins.len(), kept.counted.len());
                    std::mem::swap(&mut rounds, &mut other);
                    // `other` is now the one that was ahead; it has seen all that is kept.
                    prop_assert_eq!(rounds.head(), other.head());
                    other = rounds.clone();
                }
            }
            let (open, received) = (rounds.round(), rounds.received());
            let has_span = rounds.span();
            match rounds.tick(now_ms) {
                Due::Publish => {
                    prop_assert!(received >= 3 || received == 2 && has_span.unwrap().deadline_ms <= now_ms);
                    let metrics = rounds.publish(model(open), 1, now_ms);
                    let of_round = kept.counted.iter().filter(|entry| entry.round == open);
                    prop_assert_eq!(u64::from(metrics.clients), of_round.count() as u64);
                    prop_assert!(metrics.checked_in >= metrics.clients);
                    published += u64::from(metrics.clients);
                    kept.check_ins.clear();
                    (told.0, let_in) = (0, 0);
                    prop_assert!(rules.chance.is_none() || rounds.wants_key(), "the next one draws anew");
                }
                Due::Extended => {
                    prop_assert_eq!(received, 1);
                    prop_assert_eq!(rounds.span().unwrap().deadline_ms, now_ms + MINUTE);
                    let_in = received; // others are invited in place of those that did not report
                }
                Due::Lapsed => {
                    prop_assert_eq!((received, rounds.span()), (0, None));
                    let_in = 0;
                }
                Due::Moved => {
                    prop_assert!(received < 3 && has_span.unwrap().deadline_ms > now_ms + MINUTE);
                    prop_assert_eq!(rounds.span().unwrap().deadline_ms, now_ms + MINUTE);
                }
                Due::Nothing => prop_assert!(received < 3),
            }
            if let Some(span) = rounds.span() {
                prop_assert!(span.started_ms <= now_ms && span.deadline_ms <= now_ms + MINUTE, "{:?} {}", span, now_ms);
            }
            let again = kept.read(&rounds);
            prop_assert_eq!(again.head(), rounds.head());
            prop_assert_eq!((again.received(), again.checked_in()), (rounds.received(), rounds.checked_in()));
        }
        prop_assert_eq!(published + given_up + u64::from(rounds.received()), kept.counted.len() as u64);
        let ids: BTreeSet<_> = kept.counted.iter().map(|entry| entry.update).collect();
        let in_rounds: BTreeSet<_> = kept.counted.iter().map(|entry| (entry.round, entry.client)).collect();
        prop_assert_eq!((ids.len(), in_rounds.len()), (kept.counted.len(), kept.counted.len()));
    }
}
