//! Faults of the relay before there is an update.

use std::rc::Rc;

use pollster::block_on;
use unsaid::{
    ClientError, SessionEvent,
    abort::Abort,
    events::{RelayStatus, State},
};
use unsaid_protocol::{ContentHash, ProblemKind};

use crate::{
    assert_untouched, is, run,
    world::{Op, World, down, manifest, refusal, task},
};

#[test]
fn a_relay_that_is_down_at_the_start_is_asked_again_until_patience_runs_out() {
    let world = World::new(manifest());
    world.relay.state.borrow_mut().down = true;
    assert!(matches!(run(&world, 1), Err(ClientError::RelayUnreachable(_))));
    let asked = world.ops().iter().filter(|op| **op == Op::CheckIn).count();
    assert_eq!((asked, world.waits().len()), (8, 7));
    assert_untouched(&world);
}

#[test]
fn a_relay_that_comes_back_is_worked_with_and_the_page_is_told() {
    let world = World::new(manifest());
    {
        let mut state = world.relay.state.borrow_mut();
        state
            .check_in_faults
            .extend([down(), refusal(ProblemKind::Internal)]);
        state.model_faults.extend([refusal(ProblemKind::TooManyRequests)]);
    }
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let told: Vec<_> = world
        .listener
        .events()
        .into_iter()
        .filter_map(|event| match event {
            SessionEvent::Relay { status, .. } => Some(status),
            _ => None,
        })
        .collect();
    use RelayStatus::{Back, Unreachable};
    assert_eq!(told, [Unreachable, Unreachable, Back, Unreachable, Back]);
}

#[test]
fn a_check_in_that_is_refused_is_not_repeated() {
    let world = World::new(manifest());
    world
        .relay
        .state
        .borrow_mut()
        .check_in_faults
        .push_back(refusal(ProblemKind::Malformed));
    assert!(matches!(run(&world, 1), Err(ClientError::Refused(_))));
    assert_eq!(world.ops(), [Op::CheckIn]);
}

#[test]
fn a_model_that_is_not_what_was_announced_is_refused_and_nothing_is_sent() {
    let model = task(&manifest()).model;
    let good = model.to_safetensors(&model.initial_parameters(5)).unwrap();
    let mut not_a_number = model.initial_parameters(5);
    not_a_number[40] = f32::NAN;
    let not_a_number = model.to_safetensors(&not_a_number).unwrap();
    for (name, bad) in [
        ("empty", &[][..]),
        ("garbage", b"<html>502 Bad Gateway</html>"),
        ("truncated", &good[..good.len() - 1]),
        ("not a number", &not_a_number),
    ] {
        let world = World::new(manifest());
        world.relay.state.borrow_mut().serve(bad.to_vec());
        assert!(matches!(run(&world, 1), Err(ClientError::BadModel(_))), "{name}");
        assert_untouched(&world);
    }
    // A good model under another's hash.
    let world = World::new(manifest());
    {
        let mut state = world.relay.state.borrow_mut();
        let announced = state.model;
        state.models.insert(announced, good);
    }
    assert!(matches!(run(&world, 1), Err(ClientError::BadModel(_))));
    assert_untouched(&world);
}

#[test]
fn a_bad_model_is_not_remembered() {
    let world = World::new(manifest());
    let session = world.session();
    let good = {
        let mut state = world.relay.state.borrow_mut();
        let announced = state.model;
        state.models.insert(announced, b"garbage".to_vec()).unwrap()
    };
    let abort = Abort::default();
    assert!(block_on(session.run(Some(1), &abort)).is_err());
    let announced = ContentHash::of(&good);
    world.relay.state.borrow_mut().models.insert(announced, good);
    assert_eq!(block_on(session.run(Some(1), &abort)).unwrap().rounds, 1);
}

#[test]
fn a_model_that_is_gone_because_its_round_closed_makes_the_client_check_in_again() {
    for told in [true, false] {
        let world = World::new(manifest());
        let session = world.session();
        if !told {
            world.relay.feed.take(); // no event says that the round closed
        }
        let (relay, mut closes) = (Rc::clone(&world), true);
        world.listener.on(move |event| {
            if is(event, State::Downloading) && std::mem::take(&mut closes) {
                let old = relay.relay.state.borrow().model;
                relay.relay.advance();
                relay.relay.state.borrow_mut().models.remove(&old);
            }
        });
        let summary = block_on(session.run(Some(1), &Abort::default())).unwrap();
        assert_eq!(summary.rounds, 1);
        let frame = world.sent()[0];
        let ops: Vec<_> = world
            .ops()
            .into_iter()
            .filter(|op| !matches!(op, Op::Wait(_)))
            .collect();
        assert_eq!(ops[..4], [Op::CheckIn, Op::Model, Op::CheckIn, Op::Model]);
        assert_eq!(ops[5..], [Op::Send(frame), Op::Clear]);
        assert_eq!(world.relay.state.borrow().counted[0].round, 2);
        assert!(world.clock.now() < 1000.0, "{}", world.clock.now());
        assert_eq!(world.paid(), 1);
    }
}

#[test]
fn a_relay_that_never_has_the_model_that_it_names_is_an_error_and_no_loop() {
    let world = World::new(manifest());
    world.relay.state.borrow_mut().models.clear();
    let Err(ClientError::Refused(problem)) = run(&world, 1) else {
        panic!("not refused");
    };
    assert_eq!(problem.kind(), Some(ProblemKind::NotFound));
    let asked = world.ops().iter().filter(|op| **op == Op::CheckIn).count();
    assert_eq!(asked, 4);
    assert!(world.clock.now() < 10_000.0, "{}", world.clock.now());
    assert_untouched(&world);
}
