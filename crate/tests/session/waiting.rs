//! Waiting for the next round, and the end of a task.

use std::rc::Rc;

use futures_util::future::join;
use pollster::block_on;
use unsaid::{ClientError, abort::Abort, session::Ending};
use unsaid_protocol::{CheckInReply, RoundPhase};

use crate::{
    run, run_until,
    world::{Fails, Op, World, manifest},
};

#[test]
fn a_task_that_is_finished_ends_the_run() {
    let world = World::new(manifest());
    world.relay.state.borrow_mut().last_round = 2;
    let summary = run_until(&world, &Abort::default()).unwrap();
    assert_eq!((summary.rounds, summary.reason), (2, Ending::Finished));
    let summary = run_until(&world, &Abort::default()).unwrap();
    assert_eq!(
        (summary.rounds, summary.reason, summary.backend),
        (0, Ending::Finished, "none")
    );
    assert_eq!(world.sent().len(), 2);
}

#[test]
fn a_client_told_to_wait_trains_as_soon_as_the_next_round_opens() {
    let world = World::new(manifest());
    let wait = CheckInReply::Wait {
        round: 1,
        retry_after_ms: 10_000,
    };
    world.relay.state.borrow_mut().check_in_replies.push_back(wait);
    let relay = Rc::clone(&world);
    world.clock.plan(3000, move || relay.relay.advance());
    let session = world.session();
    assert_eq!(
        block_on(session.run(Some(1), &Abort::default())).unwrap().rounds,
        1
    );
    assert_eq!(world.relay.state.borrow().counted[0].round, 2);
    assert_eq!(world.waits(), [10_000]);
    assert!(
        (3000.0..3100.0).contains(&world.clock.now()),
        "{}",
        world.clock.now()
    );
}

#[test]
fn a_client_told_to_wait_asks_again_in_time_where_no_event_comes() {
    for (told, waited) in [(0, 50), (4000, 4000), (u64::MAX, 15_000)] {
        let world = World::new(manifest());
        let wait = CheckInReply::Wait {
            round: 1,
            retry_after_ms: told,
        };
        world.relay.state.borrow_mut().check_in_replies.push_back(wait);
        assert_eq!(run(&world, 1).unwrap().rounds, 1);
        assert_eq!(world.waits(), [waited], "{told}");
    }
}

#[test]
fn a_feed_that_lags_behind_does_not_keep_a_client_from_the_next_round() {
    // No events at all: a proxy that swallows them.
    let world = World::new(manifest());
    let session = world.session();
    world.relay.feed.take();
    assert_eq!(
        block_on(session.run(Some(3), &Abort::default())).unwrap().rounds,
        3
    );
    assert_eq!(world.waits(), [15_000, 15_000]);
}

#[test]
fn a_feed_that_is_ahead_of_its_relay_does_not_make_a_client_ask_without_end() {
    // The relay began again from an older state, and the event stream has not noticed: the feed says a round, or an end, that the
    // relay does not know.
    for phase in [RoundPhase::Collecting, RoundPhase::Finished] {
        let world = World::new(manifest());
        world.relay.state.borrow_mut().closes = false;
        let session = world.session();
        world.relay.feed.take();
        let mut stale = world.relay.state.borrow().round_state();
        (stale.round, stale.phase) = (100, phase);
        session.feed.set(stale);
        let abort = Abort::default();
        let stopper = abort.clone();
        world.clock.plan(60_000, move || stopper.stop());
        // A client that never waits never gets to the end of the minute.
        let relay = Rc::clone(&world);
        let limit = abort.clone();
        world.listener.on(move |_| {
            if relay.ops().len() > 200 {
                limit.stop();
            }
        });
        let summary = block_on(session.run(None, &abort)).unwrap();
        assert_eq!((summary.rounds, summary.reason), (1, Ending::Aborted));
        let asked = world.ops().iter().filter(|op| **op == Op::CheckIn).count();
        assert!(
            asked <= 15,
            "{phase:?}: {asked} check-ins in {} ms",
            world.clock.now()
        );
    }
}

#[test]
fn a_second_run_while_one_is_running_is_refused_and_disturbs_nothing() {
    let world = World::new(manifest());
    let session = world.session();
    let abort = Abort::default();
    let (first, second) = block_on(join(session.run(Some(2), &abort), session.run(Some(2), &abort)));
    assert_eq!(first.unwrap().rounds, 2);
    assert_eq!(second, Err(ClientError::Busy));
    assert_eq!((world.counted(), world.paid()), (2, 2));
    // Afterwards, also after an error, it may run again.
    world.store.fails.set(Some(Fails::Examples));
    assert!(block_on(session.run(Some(1), &abort)).is_err());
    world.store.fails.set(None);
    assert_eq!(block_on(session.run(Some(1), &abort)).unwrap().rounds, 1);
}

#[test]
fn a_run_that_was_dropped_does_not_keep_the_session_busy() {
    let world = World::new(manifest());
    let session = world.session();
    let abort = Abort::default();
    {
        let run = std::pin::pin!(session.run(Some(1), &abort));
        let polled = run.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(polled.is_pending());
    }
    assert_eq!(block_on(session.run(Some(1), &abort)).unwrap().rounds, 1);
}

#[test]
fn the_page_may_ask_for_a_prediction_and_the_budget_during_a_run() {
    let world = World::new(manifest());
    let session = world.session();
    let abort = Abort::default();
    let x = [0.5, -0.25, 1.0, 0.0];
    let (summary, (probabilities, budget)) = block_on(join(
        session.run(Some(2), &abort),
        join(session.predict(&x, &abort), session.budget()),
    ));
    assert_eq!(summary.unwrap().rounds, 2);
    assert!((probabilities.unwrap().iter().sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(budget.unwrap().if_one_more.unwrap() > 0.0);
}
