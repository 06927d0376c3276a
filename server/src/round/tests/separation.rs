//! A least number of rounds between two of one client, or of one identity.

use super::*;

#[test]
fn a_counted_client_is_let_in_again_only_after_the_separation_whatever_the_restarts() {
    for separation in [2, 3, 100] {
        let rules = Rules {
            policy: RoundPolicy {
                min_clients: 1,
                target_clients: 1,
                deadline_ms: MINUTE,
            },
            min_separation: separation,
            ..rules()
        };
        let mut rounds = Rounds::first(rules, model(0));
        let mut kept: Vec<Counted> = Vec::new();
        let mut counted = Vec::new();
        for round in 1..=2 * u64::from(separation) + 2 {
            // The first one asks in every round, and another one makes the round where it is not let in.
            let asked = rounds.check_in(&ask(1), 0).unwrap();
            let id = match asked {
                CheckInReply::Train { .. } => 1,
                _ => 2 + (round % 250) as u8,
            };
            if id == 1 {
                counted.push(round);
            } else {
                assert!(matches!(asked, CheckInReply::Wait { .. }), "{asked:?}");
                let refused = rounds.judge(&claim(&rounds, 1)).unwrap_err();
                assert_eq!(refused, Refusal::NotCheckedIn { round });
                rounds.check_in(&ask(id), 0).unwrap();
            }
            kept.push(rounds.count(&claim(&rounds, id), 0));
            rounds.publish(model(round), 1, 0);
            // As a store would: what is older than the head says is gone.
            let head = rounds.head();
            kept.retain(|entry| entry.round >= head.oldest_remembered());
            rounds = Rounds::resume(rules, &head, [], kept.iter().copied());
        }
        let expected: Vec<u64> = (0..3)
            .map(|time| 1 + time * u64::from(separation))
            .filter(|round| *round <= 2 * u64::from(separation) + 2)
            .collect();
        assert_eq!(counted, expected, "{separation}");
    }
}

#[test]
fn the_separation_is_between_all_clients_of_an_identity_whatever_the_restarts() {
    for by_identity in [true, false] {
        let rules = Rules {
            policy: RoundPolicy {
                min_clients: 1,
                target_clients: 1,
                deadline_ms: MINUTE,
            },
            min_separation: 3,
            by_identity,
            ..rules()
        };
        let identity = |number: u8| IdentityId::from_bytes([number; 32]);
        let mut rounds = Rounds::first(rules, model(0));
        let mut kept: Vec<Counted> = Vec::new();
        let mut counted = Vec::new();
        for round in 1..=7_u8 {
            // The first identity comes as another client each time; where it is not let in, somebody else makes the round.
            let ask_as = |who: u8, name: u8| CheckIn {
                client: ClientId::from_bytes(identity(who).own(&[name; 16])),
                manifest: rules.manifest,
            };
            let first = ask_as(1, round);
            let mut counts = first.client;
            if let CheckInReply::Train { .. } = rounds.check_in(&first, 0).unwrap() {
                counted.push(round);
            } else {
                let other = ask_as(2 + round, round);
                counts = other.client;
                rounds.check_in(&other, 0).unwrap();
                let refused = Claim {
                    client: first.client,
                    ..claim(&rounds, 1)
                };
                let not_in = Refusal::NotCheckedIn { round: round.into() };
                assert_eq!(rounds.judge(&refused), Err(not_in));
            }
            let claim = Claim {
                client: counts,
                ..claim(&rounds, round)
            };
            assert_eq!(rounds.judge(&claim), Ok(Judgement::New));
            kept.push(rounds.count(&claim, 0));
            rounds.publish(model(round.into()), 1, 0);
            rounds = Rounds::resume(rules, &rounds.head(), [], kept.iter().copied());
        }
        // The control: by client id alone the same person is in every round.
        let expected = if by_identity {
            vec![1, 4, 7]
        } else {
            (1..=7).collect()
        };
        assert_eq!(counted, expected);
    }
}
