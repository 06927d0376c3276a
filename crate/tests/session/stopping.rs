//! Stopping at any moment.

use unsaid::{SessionEvent, abort::Abort, events::State, session::Ending};
use unsaid_protocol::ContentHash;

use crate::{
    assert_untouched, is, run, run_until,
    world::{Upload, World, manifest},
};

#[test]
fn a_run_that_was_stopped_before_it_began_asks_nobody() {
    let world = World::new(manifest());
    let abort = Abort::default();
    abort.stop();
    let summary = run_until(&world, &abort).unwrap();
    assert_eq!(
        (summary.rounds, summary.reason, summary.backend),
        (0, Ending::Aborted, "none")
    );
    assert_eq!(world.ops(), []);
}

#[test]
fn a_stop_before_or_during_training_pays_and_sends_nothing() {
    type When = fn(&SessionEvent) -> bool;
    let moments: [(&str, When); 5] = [
        ("at check-in", |event| is(event, State::CheckingIn)),
        ("at the download", |event| is(event, State::Downloading)),
        ("as training begins", |event| is(event, State::Training)),
        ("between epochs", |event| {
            matches!(event, SessionEvent::Epoch { epoch: 1, .. })
        }),
        ("at the very end", |event| {
            matches!(event, SessionEvent::Epoch { epoch: 2, .. })
        }),
    ];
    for (name, when) in moments {
        let world = World::new(manifest());
        let abort = Abort::default();
        let stopper = abort.clone();
        world.listener.on(move |event| {
            if when(event) {
                stopper.stop();
            }
        });
        let summary = run_until(&world, &abort).unwrap();
        assert_eq!((summary.rounds, summary.reason), (0, Ending::Aborted), "{name}");
        assert_untouched(&world);
        let last = world.listener.events().pop();
        assert!(
            matches!(
                last,
                Some(SessionEvent::State {
                    state: State::Stopped,
                    round: None
                })
            ),
            "{name}"
        );
    }
}

#[test]
fn a_stop_between_paying_and_sending_keeps_what_was_paid_for() {
    let world = World::new(manifest());
    let abort = Abort::default();
    let stopper = abort.clone();
    world.listener.on(move |event| {
        if matches!(event, SessionEvent::Budget(_)) {
            stopper.stop();
        }
    });
    assert_eq!(run_until(&world, &abort).unwrap().reason, Ending::Aborted);
    assert_eq!((world.sent().len(), world.paid()), (0, 1));
    let kept = world.store.pending.borrow().clone().unwrap();
    world.listener.on(|_| ());
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert_eq!(world.sent(), [ContentHash::of(&kept.frame)]);
    assert_eq!(world.paid(), 1);
}

#[test]
fn a_stop_while_waiting_to_retry_sends_nothing_more() {
    let world = World::new(manifest());
    world.upload([Upload::Lost; 8]);
    let abort = Abort::default();
    let stopper = abort.clone();
    // The first wait is over by then (0.6 s at the most), the second is not (2.2 s at the least).
    world.clock.plan(1000, move || stopper.stop());
    assert_eq!(run_until(&world, &abort).unwrap().reason, Ending::Aborted);
    assert_eq!((world.sent().len(), world.waits().len()), (2, 2));
    assert!(world.clock.now() < 1100.0, "the rest of the wait was waited for");
    assert!(world.store.pending.borrow().is_some());
    assert_eq!(world.paid(), 1);
}

#[test]
fn a_stop_while_waiting_for_the_next_round_ends_the_run_with_what_was_done() {
    let world = World::new(manifest());
    world.relay.state.borrow_mut().closes = false;
    let abort = Abort::default();
    let stopper = abort.clone();
    world.clock.plan(3000, move || stopper.stop());
    let summary = run_until(&world, &abort).unwrap();
    assert_eq!((summary.rounds, summary.reason), (1, Ending::Aborted));
    assert!(world.clock.now() < 3100.0);
    assert_eq!(world.sent().len(), 1);
    assert_eq!(*world.store.pending.borrow(), None);
}
