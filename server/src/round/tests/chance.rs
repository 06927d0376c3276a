//! Selection by chance: how many are drawn, that nothing but the key decides it, and that rounds go on whoever is drawn.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

/// Keys of a test: one for each span, of one seed.
struct Keys(ChaCha8Rng);

impl Keys {
    fn next(&mut self) -> DrawKey {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        DrawKey::from_bytes(bytes)
    }
}

fn keys(seed: u64) -> Keys {
    Keys(ChaCha8Rng::seed_from_u64(seed))
}

fn by_chance(probability: f64) -> Rules {
    Rules {
        chance: Some(Chance::new(probability).unwrap()),
        ..rules()
    }
}

/// Ids that only count up, as a client might choose them that looks for one that will be drawn.
fn numbered(number: u64) -> ClientId {
    ClientId::from_bytes(u128::from(number).to_le_bytes())
}

fn ask_as(client: ClientId) -> CheckIn {
    CheckIn { client, ..ask(0) }
}

fn is_let_in(rounds: &mut Rounds, client: ClientId, now_ms: u64) -> bool {
    let reply = rounds.check_in(&ask_as(client), now_ms).unwrap();
    matches!(reply, CheckInReply::Train { .. })
}

#[test]
fn a_draw_is_the_hmac_of_the_id_as_another_program_computes_it() {
    // Python: hmac.new(bytes(range(32)), bytes([7]) * 16, hashlib.sha256).digest()
    let key = DrawKey::from_bytes(std::array::from_fn(|at| at as u8));
    let draw = key.draw(&client(7));
    assert_eq!(
        format!("{draw:x?}"),
        "Draw { lot: 60daa2c701c3cc54, place: 358b22ba90e97831 }"
    );
    assert_eq!(format!("{key:?}"), "DrawKey", "its bytes are never shown");
}

#[test]
fn the_ends_of_the_range_of_a_probability_are_exact() {
    for (probability, most) in [(1.0, u64::MAX), (0.5, u64::MAX / 2), (0.25, u64::MAX / 4)] {
        let chance = Chance::new(probability).unwrap();
        assert_eq!(chance, Chance { most });
    }
    for none in [0.0, 1e-7, -0.5, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
        assert_eq!(Chance::new(none), None, "{none}");
    }
}

const CLIENTS: u64 = 200;
const ROUNDS: u64 = 200;

/// Who is let in to each of 200 rounds of 200 clients that all ask.
fn drawn(probability: f64, mut key_of: impl FnMut(u64) -> DrawKey) -> Vec<BTreeSet<u64>> {
    let mut rounds = Rounds::first(by_chance(probability), model(0));
    (0..ROUNDS)
        .map(|round| {
            assert!(rounds.wants_key(), "each round draws by its own");
            rounds.draw_by(key_of(round));
            let let_in = (0..CLIENTS).filter(|&number| is_let_in(&mut rounds, numbered(number), 0));
            let let_in = let_in.collect();
            rounds.publish(model(round + 1), 1, 0);
            let_in
        })
        .collect()
}

fn in_all(drawn: &[BTreeSet<u64>]) -> f64 {
    drawn.iter().map(|round| round.len() as f64).sum()
}

/// Those who were let in to a round and to the next.
fn twice(drawn: &[BTreeSet<u64>]) -> f64 {
    let both = drawn
        .windows(2)
        .map(|pair| pair[0].intersection(&pair[1]).count());
    both.sum::<usize>() as f64
}

/// Of n = 40,000 draws with p = 0.1, np = 4,000 are expected with a deviation of √(np(1−p)) = 60. Of the 199 · 200 pairs of rounds that
/// follow each other p² = 398 are expected in both; pairs that share a round are not independent, and so the variance is
/// 39,800 · (p² − p⁴ + 2(p³ − p⁴)) = 466, a deviation of 21.6. Beyond five deviations: a false alarm in 1.7 million each.
/// The seed is fixed, so they either are or are not.
#[test]
fn as_many_are_let_in_as_the_probability_says_and_each_round_draws_anew() {
    let seeded = |probability| {
        let mut keys = keys(1);
        drawn(probability, |_| keys.next())
    };
    let share_is_off = |drawn: &[BTreeSet<u64>]| (in_all(drawn) - 4_000.0).abs() > 5.0 * 60.0;
    let is_dependent = |drawn: &[BTreeSet<u64>]| (twice(drawn) - 398.0).abs() > 5.0 * 21.6;
    let right = seeded(0.1);
    assert!(!share_is_off(&right), "{}", in_all(&right));
    assert!(!is_dependent(&right), "{}", twice(&right));
    // Of 200 rounds no client is let in to far more than others: 20 ± 4.24, five deviations, of 200 clients.
    let mut each = BTreeMap::<u64, u32>::new();
    right
        .iter()
        .flatten()
        .for_each(|&number| *each.entry(number).or_default() += 1);
    assert!(each.values().all(|times| (1..=41).contains(times)), "{each:?}");
    assert!(each.len() as u64 >= CLIENTS - 1, "{}", each.len());
    // The controls: another probability, and one key for all rounds.
    assert!(share_is_off(&seeded(0.11)));
    let of_one_key = drawn(0.1, |_| keys(1).next());
    assert!(is_dependent(&of_one_key), "{}", twice(&of_one_key));
}

#[test]
fn asking_again_or_elsewhere_changes_nothing_until_the_span_has_ended() {
    let mut keys = keys(2);
    let mut rounds = Rounds::first(by_chance(0.3), model(0));
    rounds.draw_by(keys.next());
    let first: Vec<bool> = (0..50)
        .map(|number| is_let_in(&mut rounds, numbered(number), 0))
        .collect();
    assert!(first.contains(&true) && first.contains(&false));
    // A relay that was started again, and one that follows: of the head as the store has it.
    let head: Head = serde_json::from_str(&serde_json::to_string(&rounds.head()).unwrap()).unwrap();
    let started_again = Rounds::resume(rounds.rules, &head, [], []);
    let mut follower = Rounds::first(rounds.rules, model(0));
    follower.draw_by(keys.next()); // it drew before it saw what the other did
    follower.catch_up(&head, [], []);
    for mut relay in [rounds.clone(), started_again, follower] {
        for now_ms in [0, MINUTE / 2, MINUTE - 1] {
            let again = (0..50).map(|number| is_let_in(&mut relay, numbered(number), now_ms));
            assert_eq!(again.collect::<Vec<_>>(), first);
        }
    }
    // The control: after its end others are drawn.
    assert_eq!(rounds.tick(MINUTE), Due::Lapsed);
    rounds.draw_by(keys.next());
    let next: Vec<bool> = (50..100)
        .map(|number| is_let_in(&mut rounds, numbered(number), MINUTE))
        .collect();
    assert_ne!(next, first);
}

#[test]
fn an_identity_is_drawn_once_whatever_its_clients_are_called() {
    for by_identity in [true, false] {
        let rules = Rules {
            by_identity,
            ..by_chance(0.2)
        };
        let mut rounds = Rounds::first(rules, model(0));
        rounds.draw_by(keys(3).next());
        let mut mixed = 0;
        for number in 0..100 {
            let identity = IdentityId::from_bytes([number; 32]);
            let let_in: BTreeSet<bool> = (0..20)
                .map(|name| ClientId::from_bytes(identity.own(&[name; 16])))
                .map(|client| is_let_in(&mut rounds, client, 0))
                .collect();
            mixed += u32::from(let_in.len() == 2);
        }
        // The control: drawn by its clients, an identity of twenty has no chance to be all one or the other (0.8²⁰ = 1.2 %).
        assert!(if by_identity { mixed == 0 } else { mixed > 90 }, "{mixed}");
    }
}

/// 200 clients of whom nobody is let in are told a time after the end of the span, in the quarter of a span that follows. In each of
/// five parts of it the number is binomial (n, 1/5), n ≥ 150: 30 to 40 ± 5.7; five deviations.
#[test]
fn who_is_not_drawn_comes_back_after_the_round_and_not_all_at_once() {
    let mut rounds = Rounds::first(by_chance(0.1), model(0));
    rounds.draw_by(keys(4).next());
    let mut parts = [0_i32; 5];
    for number in 0..CLIENTS {
        let reply = rounds.check_in(&ask_as(numbered(number)), 0).unwrap();
        if let CheckInReply::Wait { retry_after_ms, .. } = reply {
            assert!(
                (MINUTE..MINUTE + MINUTE / 4).contains(&retry_after_ms),
                "{retry_after_ms}"
            );
            parts[(retry_after_ms - MINUTE) as usize * 5 / (MINUTE as usize / 4)] += 1;
        }
    }
    let waiting: i32 = parts.iter().sum();
    assert!(waiting > 150, "{waiting}");
    assert!(
        parts.iter().all(|part| (part - waiting / 5).abs() < 29),
        "{parts:?}"
    );
    assert!(parts.iter().all(|&part| part > 0), "{parts:?}");
    // Later in the span less of it is left.
    let late = (CLIENTS..).map(numbered).find_map(|id| {
        match rounds.check_in(&ask_as(id), MINUTE - 1_000).unwrap() {
            CheckInReply::Wait { retry_after_ms, .. } => Some(retry_after_ms),
            _ => None,
        }
    });
    assert!((1_000..1_000 + MINUTE / 4).contains(&late.unwrap()));
    // A span of days does not park anyone for good.
    rounds.rules.policy.deadline_ms = u64::from(u32::MAX);
    rounds.tick(MINUTE);
    rounds.draw_by(keys(5).next());
    let told: BTreeSet<u64> = (0..50)
        .filter_map(|number| wait(&mut rounds, numbered(number), MINUTE))
        .collect();
    assert_eq!(told, BTreeSet::from([600_000]));
}

#[test]
fn a_span_that_draws_nobody_ends_and_another_draws_anew() {
    let mut rounds = Rounds::first(by_chance(1e-6), model(0));
    rounds.draw_by(keys(6).next());
    assert!(!is_let_in(&mut rounds, numbered(1), 5));
    assert_eq!(
        (rounds.checked_in(), rounds.span().unwrap().deadline_ms),
        (0, MINUTE + 5)
    );
    assert_eq!(rounds.tick(MINUTE + 4), Due::Nothing);
    assert!(!rounds.wants_key());
    assert_eq!(rounds.tick(MINUTE + 5), Due::Lapsed);
    assert!(rounds.wants_key() && rounds.span().is_none());
}

#[test]
fn without_a_key_nobody_is_let_in_and_no_span_begins() {
    let mut rounds = Rounds::first(by_chance(1.0), model(0));
    assert!(matches!(wait(&mut rounds, numbered(1), 0), Some(2_500..=5_000)));
    assert_eq!((rounds.span(), rounds.checked_in()), (None, 0));
    rounds.draw_by(keys(7).next());
    assert_eq!(
        wait(&mut rounds, numbered(1), 0),
        None,
        "a chance of one is everyone"
    );
}

#[test]
fn of_those_that_are_drawn_no_more_are_let_in_than_are_invited() {
    let rules = Rules {
        invited: Some(4),
        ..by_chance(0.5)
    };
    let mut rounds = Rounds::first(rules, model(0));
    rounds.draw_by(keys(8).next());
    let let_in = (0..40)
        .filter(|&number| is_let_in(&mut rounds, numbered(number), 0))
        .count();
    assert_eq!((let_in, rounds.checked_in()), (4, 4));
    // Who is not drawn does not wait for a place, and so is not among those that the others are spread over.
    assert!(
        (1..36).contains(&rounds.turned_away.len()),
        "{}",
        rounds.turned_away.len()
    );
}

/// A population of browsers that do as they are told, each with a time to train and a share of those that close their tab: what happens,
/// as text. The relay is started again every seventh event.
fn simulate(seed: u64, probability: f64, clients: u64, published: u64) -> (Rounds, Vec<String>) {
    let mut keys = keys(seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 1_000);
    let mut rounds = Rounds::first(by_chance(probability), model(0));
    let (mut check_ins, mut counted) = (Vec::new(), Vec::<Counted>::new());
    let mut log = Vec::new();
    // When each asks or reports next.
    let mut plans = BTreeMap::<(u64, u64), Option<Claim>>::new();
    for number in 0..clients {
        plans.insert((rng.next_u64() % 5_000, number), None);
    }
    let mut events = 0_u64;
    while rounds.round() <= published {
        events += 1;
        assert!(events < 100_000, "the rounds stall: {:?}", log.last());
        let next = plans.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        let deadline = rounds.span().map_or(u64::MAX, |span| span.deadline_ms);
        let now_ms = next.min(deadline);
        match rounds.tick(now_ms) {
            Due::Publish => {
                let round = rounds.round();
                let metrics = rounds.publish(model(round), 1, now_ms);
                log.push(format!(
                    "{now_ms} round {round}: {} of {}",
                    metrics.clients, metrics.checked_in
                ));
                assert!((2..=3).contains(&metrics.clients));
                check_ins.clear();
                continue;
            }
            Due::Extended | Due::Lapsed => {
                log.push(format!("{now_ms} another span of round {}", rounds.round()));
                assert!(rounds.wants_key());
                continue;
            }
            Due::Nothing => {}
            Due::Moved => unreachable!("this clock runs forward"),
        }
        let Some(((_, number), claim)) = plans.pop_first() else {
            unreachable!()
        };
        if let Some(claim) = claim {
            let judged = rounds.judge(&claim);
            log.push(format!("{now_ms} client {number}: {}", judged.is_ok()));
            if judged == Ok(Judgement::New) {
                counted.push(rounds.count(&claim, now_ms));
            }
            plans.insert((now_ms + 1, number), None);
        } else {
            if rounds.wants_key() {
                rounds.draw_by(keys.next());
            }
            match rounds.check_in(&ask_as(numbered(number)), now_ms).unwrap() {
                CheckInReply::Train { round, model, .. } => {
                    check_ins.push((round, numbered(number)));
                    let mut update = [0; 16];
                    update[..8].copy_from_slice(&events.to_le_bytes());
                    let claim = Claim {
                        update: UpdateId::from_bytes(update),
                        client: numbered(number),
                        round,
                        model,
                        ..claim_of_nobody(&rounds)
                    };
                    let trains = 1_000 + rng.next_u64() % MINUTE;
                    let stays = rng.next_u64() % 4 > 0;
                    let then = if stays { Some(claim) } else { None };
                    plans.insert((now_ms + trains, number), then);
                }
                CheckInReply::Wait { retry_after_ms, .. } => {
                    log.push(format!("{now_ms} client {number} waits {retry_after_ms}"));
                    assert!((250..=600_000).contains(&retry_after_ms));
                    plans.insert((now_ms + retry_after_ms, number), None);
                }
                other => unreachable!("{other:?}"),
            }
        }
        if events.is_multiple_of(7) {
            let head: Head = serde_json::from_str(&serde_json::to_string(&rounds.head()).unwrap()).unwrap();
            rounds = Rounds::resume(
                rounds.rules,
                &head,
                check_ins.iter().copied(),
                counted.iter().copied(),
            );
        }
    }
    (rounds, log)
}

fn claim_of_nobody(rounds: &Rounds) -> Claim {
    claim(rounds, 0)
}

#[test]
fn rounds_by_chance_go_on_with_few_clients_and_many_and_the_same_every_time() {
    for (probability, clients) in [(0.02, 10), (0.1, 5), (0.1, 40), (0.5, 40), (1.0, 3)] {
        let (rounds, log) = simulate(9, probability, clients, 20);
        assert_eq!(rounds.round(), 21);
        assert_eq!(simulate(9, probability, clients, 20).1, log, "bit for bit");
        assert_ne!(simulate(10, probability, clients, 20).1, log);
        // Where three are expected of ten spans, some draw too few; where all are drawn, none.
        let spans = log.iter().filter(|line| line.contains("another span")).count();
        if probability < 0.1 {
            assert!(spans > 20, "{spans}");
        }
        let waits = log.iter().any(|line| line.contains("waits"));
        assert!(waits);
    }
}
