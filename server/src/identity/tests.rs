use unsaid_privacy::Encoding;
use unsaid_protocol::{CheckIn, ClientId, ContentHash, PublicKey, RoundPolicy};

use super::*;
use crate::{round, store::Identity};

const NOW_MS: u64 = 1_700_000_000_000;

fn who() -> IdentityId {
    IdentityId::from_bytes([7; 32])
}

fn client(number: u8) -> ClientId {
    ClientId::from_bytes(who().own(&[number; 16]))
}

fn rounds() -> Rounds {
    rounds_of(0)
}

fn rounds_of(max_staleness: u32) -> Rounds {
    Rounds::first(round_rules(max_staleness), ContentHash::of(b"model"))
}

fn round_rules(max_staleness: u32) -> round::Rules {
    round::Rules {
        invited: None,
        chance: None,
        policy: RoundPolicy {
            min_clients: 2,
            target_clients: 9,
            deadline_ms: 60_000,
        },
        limit: None,
        manifest: ContentHash::of(b"manifest"),
        max_staleness,
        min_separation: 0,
        by_identity: false,
        shares: None,
    }
}

fn rules() -> Rules {
    Rules {
        required: Enrolment::Open,
        per_round: 3,
        per_day: Some(2),
        cost: Cost::NOTHING,
        max_epsilon: None,
        delta: 1e-5,
    }
}

fn standings(account: Account) -> Standings {
    let identity = Some(Identity {
        key: PublicKey::from_bytes([1; 32]),
        invited: false,
        enrolled_ms: 0,
        revoked_ms: None,
    });
    Standings([(who(), Standing { identity, account })].into())
}

fn check_in(rounds: &mut Rounds, client: ClientId) {
    let manifest = ContentHash::of(b"manifest");
    rounds.check_in(&CheckIn { client, manifest }, NOW_MS).unwrap();
}

#[test]
fn what_is_under_way_counts_before_it_is_counted() {
    let (rules, mut rounds) = (rules(), rounds());
    let standings = standings(Account::default());
    let may = |rounds: &Rounds, number| standings.check_in(&rules, rounds, &who(), &client(number), NOW_MS);
    for number in 1..=2 {
        assert_eq!(may(&rounds, number), Ok(()));
        check_in(&mut rounds, client(number));
    }
    assert_eq!(may(&rounds, 3), Err(Refusal::DayQuota { most: 2 }));
    assert_eq!(may(&rounds, 2), Ok(()), "one that is in may ask again");
    // Others' check-ins are nothing to it.
    let mut others = self::rounds();
    for number in 0..50 {
        check_in(&mut others, ClientId::from_bytes([number; 16]));
    }
    assert_eq!(may(&others, 1), Ok(()));
}

#[test]
fn a_tab_that_was_closed_after_its_check_in_locks_nobody_out() {
    let (rules, mut rounds) = (rules(), rounds());
    let standings = standings(Account::default());
    let rules = Rules {
        per_round: 1,
        ..rules
    };
    let may = |rounds: &Rounds, number| standings.check_in(&rules, rounds, &who(), &client(number), NOW_MS);
    check_in(&mut rounds, client(1));
    assert_eq!(
        may(&rounds, 2),
        Err(Refusal::RoundQuota { round: 1, most: 1 }),
        "as long as it may be there"
    );
    assert_eq!(rounds.tick(NOW_MS + 60_000), round::Due::Lapsed);
    assert_eq!(may(&rounds, 2), Ok(()));
    check_in(&mut rounds, client(2));
    assert_eq!(
        may(&rounds, 3),
        Err(Refusal::RoundQuota { round: 1, most: 1 }),
        "another one is there now"
    );
    // Should the first one come back, one of them is counted.
    let base = (rounds.round(), rounds.model());
    report(&mut rounds, client(1), base);
    assert_eq!(
        standings.update(&rules, &rounds, &who(), NOW_MS),
        Err(Refusal::RoundQuota { round: 1, most: 1 })
    );
}

/// The client reports to the open round from the model of `base`.
fn report(rounds: &mut Rounds, client: ClientId, base: (u64, ContentHash)) {
    let claim = round::Claim {
        update: unsaid_protocol::UpdateId::from_bytes(*client.as_bytes()),
        client,
        manifest: ContentHash::of(b"manifest"),
        model: base.1,
        round: base.0,
        digest: round::FrameDigest::of(client.as_bytes()),
        bytes: 1,
        identity: Some(who()),
    };
    assert_eq!(rounds.judge(&claim), Ok(round::Judgement::New));
    rounds.count(&claim, NOW_MS);
}

#[test]
fn what_is_under_way_from_rounds_that_have_closed_counts_too() {
    let (rules, mut rounds) = (rules(), rounds_of(1));
    let standings = standings(Account::default());
    let may = |rounds: &Rounds, number| standings.check_in(&rules, rounds, &who(), &client(number), NOW_MS);
    let base = (rounds.round(), rounds.model());
    check_in(&mut rounds, client(1));
    rounds.publish(ContentHash::of(b"second"), 1, NOW_MS);
    assert_eq!(may(&rounds, 2), Ok(()));
    check_in(&mut rounds, client(2));
    // Two of a day are under way: one from the round before.
    assert_eq!(may(&rounds, 3), Err(Refusal::DayQuota { most: 2 }));
    assert_eq!(may(&rounds, 1), Ok(()), "one client is not under way twice");

    // The first reports late, and takes nothing off the second's.
    report(&mut rounds, client(1), base);
    let mut account = Account::default();
    account.count(rules.cost, NOW_MS);
    let standings = self::standings(account);
    let may = |rounds: &Rounds, number| standings.check_in(&rules, rounds, &who(), &client(number), NOW_MS);
    assert_eq!(may(&rounds, 3), Err(Refusal::DayQuota { most: 2 }));
    assert_eq!(may(&rounds, 1), Ok(()), "one that has reported is told to wait");

    // A tab of the round before is not waited for, for longer than a span: also where nobody comes, so that no span begins.
    rounds.publish(ContentHash::of(b"third"), 1, NOW_MS);
    assert_eq!(may(&rounds, 3), Err(Refusal::DayQuota { most: 2 }));
    let later = |rounds: &Rounds, ms| standings.check_in(&rules, rounds, &who(), &client(3), NOW_MS + ms);
    assert_eq!(later(&rounds, 59_999), Err(Refusal::DayQuota { most: 2 }));
    assert_eq!(later(&rounds, 60_000), Ok(()));
    // Nor by a relay that was started since: a span from when it first looked.
    let head = rounds.head();
    let mut restarted = Rounds::resume(round_rules(1), &head, [(2, client(2))], []);
    assert_eq!(later(&restarted, 0), Err(Refusal::DayQuota { most: 2 }));
    restarted.tick(NOW_MS + 1);
    assert_eq!(later(&restarted, 60_000), Err(Refusal::DayQuota { most: 2 }));
    assert_eq!(later(&restarted, 60_001), Ok(()));

    // A check-in is worth nothing any more once its round is too old.
    rounds.publish(ContentHash::of(b"fourth"), 1, NOW_MS);
    assert_eq!(may(&rounds, 3), Ok(()));
}

#[test]
fn a_budget_holds_for_the_update_too() {
    let cost = Cost::from(Rho::new(0.1).unwrap());
    let (one, two) = (cost.epsilon(1e-5).unwrap(), cost.times(2).epsilon(1e-5).unwrap());
    let rules = Rules {
        cost,
        max_epsilon: Some(f64::midpoint(one, two)),
        ..rules()
    };
    let mut standings = standings(Account::default());
    let rounds = rounds();
    assert_eq!(standings.update(&rules, &rounds, &who(), NOW_MS), Ok(()));
    let account = standings.count(&rules, &who(), NOW_MS);
    assert_eq!((account.updates, account.cost), (1, cost));
    let refused = standings.update(&rules, &rounds, &who(), NOW_MS);
    assert!(matches!(refused, Err(Refusal::RelayBudget { .. })), "{refused:?}");
    let unknown = standings.update(&rules, &rounds, &IdentityId::from_bytes([8; 32]), NOW_MS);
    assert!(matches!(unknown, Err(Refusal::IdentityUnknown { .. })));
}

#[test]
fn every_mode_with_noise_has_a_cost_and_an_update_without_costs_more_than_any_budget() {
    let encoding = Encoding::new(1.0, 1.0 / 1024.0, 8).unwrap();
    let cost = |privacy| cost_of_update(&privacy, &encoding, 3).unwrap();
    let bare = cost(Privacy::None);
    assert_eq!(bare.epsilon(1e-5).unwrap(), f64::INFINITY);
    let local = cost(Privacy::Local {
        noise_multiplier: 4.0,
    });
    // 2/z², and no more than the noise's own grid takes off it.
    assert!(
        local.is_of_updates() && (0.124..=0.125).contains(&local.rho().get()),
        "{local:?}"
    );
    // One of them is never forgotten: not beside later ones with noise, nor in the account's stored form.
    let mut account = Account::default();
    account.count(bare, NOW_MS);
    account.count(local, NOW_MS);
    let account = Account::from_bytes(&account.to_bytes()).unwrap();
    let limited = Rules {
        cost: local,
        max_epsilon: Some(1e300),
        ..rules()
    };
    let standings = standings(account);
    let refused = standings.update(&limited, &rounds(), &who(), NOW_MS + 86_400_000);
    assert!(matches!(refused, Err(Refusal::RelayBudget { .. })), "{refused:?}");
    let example = cost(Privacy::Example {
        clip_l2: 1.0,
        noise_multiplier: 1.0,
        sampling_rate: 0.1,
    });
    let noise = ExampleNoise::new(1.0, 0.1, 8).unwrap();
    assert_eq!(example, Cost::of_examples(|order| noise.cost(order, 30)));
}
