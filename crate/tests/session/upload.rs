//! Faults of the relay during the upload, and updates that an earlier run could not deliver.

use std::rc::Rc;

use unsaid::{
    ClientError, SessionEvent,
    events::{State, UploadStatus},
    session::{Ending, read_pending},
};
use unsaid_protocol::{ContentHash, Manifest, ProblemKind};

use crate::{
    cost, is, run,
    world::{DELTA, Fails, Op, Upload, World, manifest},
};

// Faults of the relay during the upload

#[test]
fn a_retry_sends_the_identical_bytes_after_growing_waits_and_then_gives_up() {
    let world = World::new(manifest());
    world.upload([Upload::Lost; 8]);
    assert!(matches!(run(&world, 1), Err(ClientError::RelayUnreachable(_))));
    let sent = world.sent();
    assert_eq!(sent.len(), 8);
    assert!(sent.iter().all(|frame| *frame == sent[0]));
    let waits = world.waits();
    let middles = [500, 1000, 2000, 4000, 8000, 15_000, 15_000];
    assert_eq!(waits.len(), middles.len());
    for (wait, middle) in waits.iter().zip(middles) {
        assert!(wait.abs_diff(middle) <= middle / 4, "{waits:?}");
    }
    assert!(waits[..6].is_sorted_by(|a, b| a < b), "{waits:?}");

    // What was paid for stays, and is the first thing that the next run sends. It costs nothing more.
    let kept = world.store.pending.borrow().clone().unwrap();
    assert_eq!(ContentHash::of(&kept.frame), sent[0]);
    assert_eq!(read_pending(&kept).unwrap().round, 1);
    let so_far = world.ops().len();
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert_eq!(world.ops()[so_far..], [Op::Send(sent[0]), Op::Clear]);
    assert_eq!((world.paid(), world.counted()), (1, 1));
}

#[test]
fn a_kept_update_is_delivered_even_when_the_budget_is_spent() {
    let world = World::new(manifest());
    world.store.set_epsilon(cost(&manifest()).epsilon(DELTA).unwrap());
    world.upload([Upload::Lost; 8]);
    assert!(matches!(run(&world, 2), Err(ClientError::RelayUnreachable(_))));
    let summary = run(&world, 2).unwrap();
    assert_eq!((summary.rounds, summary.reason), (1, Ending::BudgetExhausted));
    assert_eq!((world.paid(), world.counted()), (1, 1));
}

#[test]
fn a_kept_update_is_delivered_before_anything_else_whatever_is_missing_for_a_new_one() {
    // No examples, examples that the task cannot take, and a storage that does not give them.
    for (data, fails) in [
        ((vec![], vec![]), None),
        ((vec![0.5; 4], vec![9]), None),
        ((vec![], vec![]), Some(Fails::Examples)),
    ] {
        let world = World::new(manifest());
        world.upload([Upload::Lost; 8]);
        assert!(run(&world, 1).is_err());
        let kept = world.sent()[0];
        world.store.examples.replace(data);
        world.store.fails.set(fails);
        let so_far = world.ops().len();
        // It was the one round asked for: nothing is missing.
        assert_eq!(run(&world, 1).unwrap().rounds, 1, "{fails:?}");
        assert_eq!(world.ops()[so_far..], [Op::Send(kept), Op::Clear], "{fails:?}");
        assert_eq!((world.paid(), world.counted()), (1, 1), "{fails:?}");
    }
}

#[test]
fn after_the_kept_update_a_further_round_needs_data() {
    let world = World::new(manifest());
    world.upload([Upload::Lost; 8]);
    assert!(run(&world, 1).is_err());
    world.store.examples.take();
    assert_eq!(run(&world, 2), Err(ClientError::NoData));
    assert_eq!((world.paid(), world.counted()), (1, 1));
    assert_eq!(*world.store.pending.borrow(), None);
}

#[test]
fn an_update_whose_acknowledgement_was_lost_is_counted_once() {
    let world = World::new(manifest());
    world.upload([Upload::AnswerLost, Upload::Lost, Upload::Arrives]);
    let summary = run(&world, 1).unwrap();
    assert_eq!(summary.rounds, 1);
    assert_eq!((world.sent().len(), world.counted(), world.paid()), (3, 1, 1));
    use UploadStatus::{Duplicate, Retrying, Sending};
    assert_eq!(
        world.listener.uploads(),
        [Sending, Retrying, Sending, Retrying, Sending, Duplicate]
    );
}

#[test]
fn a_retry_waits_as_long_as_the_relay_asks_for() {
    let world = World::new(manifest());
    world.upload([Upload::Refused(ProblemKind::Unavailable, Some(7000))]);
    run(&world, 1).unwrap();
    assert_eq!(world.waits(), [7000]);
    // Less than the client's own patience is no reason to come sooner.
    let world = World::new(manifest());
    world.upload([Upload::Refused(ProblemKind::TooManyRequests, Some(1))]);
    run(&world, 1).unwrap();
    assert!((375..=625).contains(&world.waits()[0]), "{:?}", world.waits());
}

#[test]
fn no_relay_can_park_a_client_for_days() {
    for told in [86_400_000, u64::MAX] {
        let world = World::new(manifest());
        world.upload([Upload::Refused(ProblemKind::Unavailable, Some(told))]);
        run(&world, 1).unwrap();
        assert_eq!(world.waits(), [600_000]);
    }
}

#[test]
fn clients_that_fail_together_do_not_come_back_together() {
    // Runs that differ in nothing but the low digits of their clocks.
    let first_waits = (0..32).map(|offset| {
        let world = World::new(manifest());
        for _ in 0..offset {
            unsaid::ports::Clock::now_ms(&world.clock);
        }
        world.upload([Upload::Lost]);
        run(&world, 1).unwrap();
        world.waits()[0]
    });
    let mut first_waits: Vec<_> = first_waits.collect();
    assert!(
        first_waits.iter().all(|wait| (375..=625).contains(wait)),
        "{first_waits:?}"
    );
    first_waits.sort_unstable();
    first_waits.dedup();
    assert!(first_waits.len() > 16, "{first_waits:?}");
}

#[test]
fn a_late_update_is_not_counted_stays_paid_for_and_the_next_round_goes_on() {
    for upload in [
        Upload::TooLate,
        Upload::Refused(ProblemKind::RoundClosed, None),
        Upload::Refused(ProblemKind::WrongRound, None),
        Upload::Refused(ProblemKind::AlreadyReported, None),
    ] {
        let world = World::new(manifest());
        world.upload([upload]);
        let summary = run(&world, 1).unwrap();
        assert_eq!((summary.rounds, summary.reason), (1, Ending::RoundsDone));
        assert_eq!((world.counted(), world.paid()), (1, 2), "{upload:?}");
        let sent = world.sent();
        assert!(sent.len() == 2 && sent[0] != sent[1], "{upload:?}");
        use UploadStatus::{Accepted, Late, Sending};
        assert_eq!(
            world.listener.uploads(),
            [Sending, Late, Sending, Accepted],
            "{upload:?}"
        );
        let contributions = world.listener.events();
        let contributions = contributions
            .iter()
            .filter(|event| matches!(event, SessionEvent::Contribution { .. }));
        assert_eq!(contributions.count(), 1, "{upload:?}");
    }
}

#[test]
fn a_relay_that_forgot_the_check_in_is_told_again_and_gets_the_identical_bytes() {
    let world = World::new(manifest());
    world.upload([Upload::ForgottenCheckIn]);
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let sent = world.sent();
    assert_eq!((sent.len(), sent[0]), (2, sent[1]));
    assert_eq!((world.counted(), world.paid()), (1, 1));
    let end: Vec<_> = world
        .ops()
        .into_iter()
        .skip_while(|op| !matches!(op, Op::Send(_)))
        .collect();
    assert_eq!(
        end,
        [Op::Send(sent[0]), Op::CheckIn, Op::Send(sent[0]), Op::Clear]
    );
}

#[test]
fn a_relay_that_never_remembers_the_check_in_is_an_error_and_no_loop() {
    let world = World::new(manifest());
    world.upload([Upload::Refused(ProblemKind::NotCheckedIn, None); 2]);
    let Err(ClientError::Refused(problem)) = run(&world, 1) else {
        panic!("not refused");
    };
    assert_eq!(problem.kind(), Some(ProblemKind::NotCheckedIn));
    assert_eq!(world.sent().len(), 2);
}

#[test]
fn a_refusal_for_good_ends_the_run_and_the_bytes_are_never_sent_again() {
    for kind in [
        ProblemKind::Malformed,
        ProblemKind::Version,
        ProblemKind::TooLarge,
        ProblemKind::WrongModel,
        ProblemKind::UpdateConflict,
        ProblemKind::Unacceptable,
        ProblemKind::NotFound,
    ] {
        let world = World::new(manifest());
        world.upload([Upload::Refused(kind, None)]);
        let Err(ClientError::Refused(problem)) = run(&world, 1) else {
            panic!("{kind:?} was not an error");
        };
        assert_eq!(problem.kind(), Some(kind));
        assert_eq!((world.sent().len(), world.waits().len()), (1, 0), "{kind:?}");
        assert_eq!(*world.store.pending.borrow(), None, "{kind:?}");
    }
}

// A manifest that changes

#[test]
fn a_manifest_that_changed_is_told_apart_from_every_other_refusal() {
    let other = ContentHash::of(b"other terms");
    let world = World::new(manifest());
    world.relay.state.borrow_mut().manifest = other;
    assert_eq!(run(&world, 1), Err(ClientError::ManifestChanged));
    assert_eq!(world.ops(), [Op::CheckIn]);

    // During training.
    let world = World::new(manifest());
    let relay = Rc::clone(&world);
    world.listener.on(move |event| {
        if is(event, State::Training) {
            relay.relay.state.borrow_mut().manifest = other;
        }
    });
    assert_eq!(run(&world, 1), Err(ClientError::ManifestChanged));
    assert_eq!((world.sent().len(), world.counted()), (1, 0));
    assert_eq!(*world.store.pending.borrow(), None);
}

#[test]
fn an_update_kept_from_before_the_manifest_changed_does_not_stop_a_client_that_agreed_to_the_new_one() {
    let old = World::new(manifest());
    old.upload([Upload::Lost; 8]);
    assert!(run(&old, 1).is_err());
    let new = World::new(Manifest {
        title: "More flowers".into(),
        ..manifest()
    });
    new.store.pending.replace(old.store.pending.take());
    assert_eq!(run(&new, 1).unwrap().rounds, 1);
    assert_eq!(new.sent()[0], old.sent()[0]);
    assert_eq!((new.sent().len(), new.counted(), new.paid()), (2, 1, 1));
    use UploadStatus::{Accepted, Late, Sending};
    assert_eq!(new.listener.uploads(), [Sending, Late, Sending, Accepted]);
}
