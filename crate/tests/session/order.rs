//! The order of a round: the ledger is debited before any byte of the update leaves; storage, and the budget.

use std::rc::Rc;

use pollster::block_on;
use unsaid::{ClientError, SessionEvent, abort::Abort, events::State, ports::Clock, session::Ending};
use unsaid_privacy::Ledger;
use unsaid_protocol::{CentralAdjacency, CentralPrivacy, ContentHash, Manifest, Privacy, UpdateFrame};

use crate::{
    assert_untouched, cost, is, run,
    world::{DELTA, Fails, Op, World, manifest, noiseless, task},
};

// The order of a round

#[test]
fn the_ledger_is_debited_before_any_byte_of_the_update_leaves() {
    let world = World::new(manifest());
    let summary = run(&world, 3).unwrap();
    assert_eq!(
        (summary.rounds, summary.reason, summary.backend),
        (3, Ending::RoundsDone, "cpu")
    );
    let ops: Vec<_> = world
        .ops()
        .into_iter()
        .filter(|op| !matches!(op, Op::Wait(_)))
        .collect();
    let sent = world.sent();
    let round = |frame| {
        [
            Op::CheckIn,
            Op::Model,
            Op::Debit {
                charged: frame,
                kept: Some(frame),
            },
            Op::Send(frame),
            Op::Clear,
        ]
    };
    assert_eq!(
        ops,
        sent.iter().flat_map(|frame| round(*frame)).collect::<Vec<_>>()
    );
    assert_eq!((sent.len(), world.paid(), world.counted()), (3, 3, 3));
}

#[test]
fn without_noise_the_frame_is_kept_before_it_leaves_and_the_ledger_stays_empty() {
    let world = World::new(noiseless());
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let frame = world.sent()[0];
    assert_eq!(
        world.ops(),
        [
            Op::CheckIn,
            Op::Model,
            Op::Keep(frame),
            Op::Send(frame),
            Op::Clear
        ]
    );
    assert_eq!(world.paid(), 0);
}

#[test]
fn the_ledger_holds_what_the_page_was_told() {
    let world = World::new(manifest());
    run(&world, 2).unwrap();
    let ledger = world.store.ledger();
    let told: Vec<_> = world
        .listener
        .events()
        .into_iter()
        .filter_map(|event| match event {
            SessionEvent::Contribution {
                epsilon_spent,
                bytes_up,
                ..
            } => Some((epsilon_spent, bytes_up)),
            _ => None,
        })
        .collect();
    let bodies = world.relay.state.borrow().bodies.clone();
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].0, Some(ledger.spent_epsilon()));
    assert_eq!(
        told.iter().map(|told| told.1).collect::<Vec<_>>(),
        bodies.iter().map(|body| body.len() as u64).collect::<Vec<_>>()
    );
    for (entry, body) in ledger.entries().iter().zip(&bodies) {
        let frame = UpdateFrame::decode(body).unwrap();
        assert_eq!(entry.frame_sha256, ContentHash::of(body).to_string());
        assert_eq!(
            (&entry.update, entry.round, entry.cost),
            (&frame.update.to_string(), frame.round, cost(&manifest()))
        );
    }
}

// Storage

#[test]
fn any_failure_of_the_storage_sends_nothing() {
    for (terms, fails) in [
        (manifest(), Fails::ClientId),
        (manifest(), Fails::Examples),
        (manifest(), Fails::ReadPending),
        (manifest(), Fails::ReadLedger),
        (manifest(), Fails::WriteLedger),
        (noiseless(), Fails::ClientId),
        (noiseless(), Fails::Examples),
        (noiseless(), Fails::ReadPending),
        (noiseless(), Fails::Keep),
    ] {
        let world = World::new(terms);
        world.store.fails.set(Some(fails));
        let result = run(&world, 1);
        assert!(
            matches!(result, Err(ClientError::Storage(_))),
            "{fails:?}: {result:?}"
        );
        world.store.fails.set(None);
        assert_untouched(&world);
    }
}

#[test]
fn a_damaged_ledger_is_not_taken_for_an_empty_one() {
    let world = World::new(manifest());
    for damage in ["", "{}", "{\"version\":2}", "null"] {
        world.store.set_ledger(damage);
        assert!(matches!(run(&world, 1), Err(ClientError::Storage(_))), "{damage}");
    }
    assert_eq!(world.ops(), []);
}

#[test]
fn an_update_that_could_not_be_forgotten_is_sent_again_and_counted_once() {
    let world = World::new(manifest());
    world.store.fails.set(Some(Fails::Clear));
    assert!(matches!(run(&world, 1), Err(ClientError::Storage(_))));
    world.store.fails.set(None);
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let sent = world.sent();
    assert_eq!((sent.len(), sent[0]), (2, sent[1]));
    assert_eq!((world.counted(), world.paid()), (1, 1));
    assert_eq!(*world.store.pending.borrow(), None);
}

// The budget

#[test]
fn a_budget_that_is_spent_before_the_first_round_is_an_error_and_nobody_is_asked() {
    let world = World::new(manifest());
    world.store.set_epsilon(0.1);
    let Err(ClientError::BudgetExhausted { would_be, limit }) = run(&world, 1) else {
        panic!("the budget was not looked at");
    };
    assert_eq!(limit, 0.1);
    assert_eq!(would_be, cost(&manifest()).epsilon(DELTA).unwrap());
    assert_eq!(world.ops(), []);
}

#[test]
fn a_budget_that_is_spent_after_some_rounds_ends_the_run_before_it_asks_again() {
    let world = World::new(manifest());
    let two = cost(&manifest()) + cost(&manifest());
    world.store.set_epsilon(two.epsilon(DELTA).unwrap());
    let summary = run(&world, 5).unwrap();
    assert_eq!((summary.rounds, summary.reason), (2, Ending::BudgetExhausted));
    let check_ins = world.ops().into_iter().filter(|op| *op == Op::CheckIn).count();
    assert_eq!((check_ins, world.paid(), world.counted()), (2, 2, 2));
}

#[test]
fn a_debit_that_fails_sends_nothing() {
    // Another tab spends what was left while this one trains.
    let world = World::new(manifest());
    let one = cost(&manifest());
    world.store.set_epsilon(one.epsilon(DELTA).unwrap());
    let elsewhere = Rc::clone(&world);
    world.listener.on(move |event| {
        if is(event, State::Protecting) {
            elsewhere.store.spend_elsewhere(one);
        }
    });
    assert!(matches!(run(&world, 1), Err(ClientError::BudgetExhausted { .. })));
    assert_eq!(world.sent(), []);
    assert_eq!(*world.store.pending.borrow(), None);
    assert_eq!(world.paid(), 1, "only the other tab's");
}

#[test]
fn as_many_rounds_a_day_as_the_person_allows_and_then_nobody_is_asked() {
    let world = World::new(manifest());
    let mut session = world.session();
    session.task.rounds_per_day = 2;
    let summary = block_on(session.run(Some(5), &Abort::default())).unwrap();
    assert_eq!((summary.rounds, summary.reason), (2, Ending::DailyLimit));
    let before = world.ops().len();
    let again = block_on(session.run(Some(5), &Abort::default()));
    assert_eq!(again, Err(ClientError::DailyLimit { limit: 2 }));
    assert_eq!(world.ops().len(), before, "no request, no debit");
    // A day later it goes on.
    world.clock.pass(24 * 60 * 60 * 1_000);
    assert_eq!(
        block_on(session.run(Some(1), &Abort::default())).unwrap().rounds,
        1
    );
}

#[test]
fn the_days_limit_holds_where_another_tab_uses_it_up_meanwhile() {
    let world = World::new(manifest());
    let mut session = world.session();
    session.task.rounds_per_day = 1;
    let elsewhere = Rc::clone(&world);
    let now = world.clock.unix_ms();
    world.listener.on(move |event| {
        if is(event, State::Protecting) {
            elsewhere.store.spend_elsewhere_at(cost(&manifest()), now);
        }
    });
    let ended = block_on(session.run(Some(1), &Abort::default()));
    assert_eq!(ended, Err(ClientError::DailyLimit { limit: 1 }));
    assert_eq!(world.sent(), []);
    assert_eq!(*world.store.pending.borrow(), None);
}

#[test]
fn the_exported_ledger_is_the_stored_one() {
    let world = World::new(manifest());
    run(&world, 2).unwrap();
    let exported = block_on(world.session().export_ledger()).unwrap();
    assert_eq!(Ledger::from_json(&exported).unwrap(), world.store.ledger());
}

#[test]
fn erasing_forgets_what_was_spent_and_who_it_was() {
    let world = World::new(manifest());
    let abort = Abort::default();
    let session = world.session();
    run(&world, 1).unwrap();
    let before = world.relay.state.borrow().bodies.clone();
    block_on(session.erase_ledger()).unwrap();
    assert_eq!((world.paid(), world.store.pending.borrow().clone()), (0, None));
    block_on(session.run(Some(1), &abort)).unwrap();
    let after = world.relay.state.borrow().bodies.clone();
    let client = |body: &Vec<u8>| UpdateFrame::decode(body).unwrap().client;
    let (first, last) = (client(before.last().unwrap()), client(after.last().unwrap()));
    assert_ne!(first, last, "the relay sees somebody else");
    assert_eq!(world.paid(), 1);
}

#[test]
fn nothing_is_erased_under_a_run() {
    let world = World::new(manifest());
    let session = Rc::new(world.session());
    let (inside, found) = (Rc::clone(&session), Rc::new(std::cell::Cell::new(None)));
    let told = Rc::clone(&found);
    world.listener.on(move |event| {
        if is(event, State::Training) {
            told.set(Some(block_on(inside.erase_ledger()).is_err()));
        }
    });
    block_on(session.run(Some(1), &Abort::default())).unwrap();
    assert_eq!((found.get(), world.paid()), (Some(true), 1));
}

#[test]
fn where_the_relay_adds_the_noise_a_round_is_booked_before_the_clipped_update_leaves() {
    let central = CentralPrivacy::new(4.0, CentralAdjacency::AddRemove, 1e-5, None);
    let terms = Manifest {
        privacy: Privacy::Central(central),
        ..manifest()
    };
    let world = World::new(terms.clone());
    run(&world, 2).unwrap();
    assert_eq!(world.store.ledger().spent(), cost(&terms).times(2));
    let debit = world.ops().iter().position(|op| matches!(op, Op::Debit { .. }));
    let upload = world.ops().iter().position(|op| matches!(op, Op::Send(_)));
    assert!(debit.is_some() && debit < upload);
    // No noise: each frame is within the bound that noise of four times it would leave far behind.
    for body in &world.relay.state.borrow().bodies {
        let frame = UpdateFrame::decode_in(body, task(&terms).fixed_width()).unwrap();
        let norm: u64 = frame
            .coordinates
            .iter()
            .map(|c| u64::from(c.unsigned_abs()).pow(2))
            .sum();
        assert!(norm <= task(&terms).encoding.bound_squared());
    }
}

#[test]
fn where_all_share_one_noise_a_profile_is_one_client_of_the_task_and_elsewhere_each_place_is_one() {
    let central = CentralPrivacy::new(4.0, CentralAdjacency::AddRemove, 1e-5, None);
    for (privacy, shared) in [
        (Privacy::Central(central), true),
        (
            Privacy::Local {
                noise_multiplier: 4.0,
            },
            false,
        ),
        (Privacy::None, false),
    ] {
        let terms = Manifest {
            privacy,
            ..manifest()
        };
        let world = World::new(terms.clone());
        run(&world, 1).unwrap();
        let asked = world.store.asked_for.borrow();
        assert!(!asked.is_empty());
        let expected = shared.then(|| terms.task.to_string());
        assert!(asked.iter().all(|it| *it == expected), "{asked:?}");
    }
}
