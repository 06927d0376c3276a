//! The client session, driven without a browser: what it sends and when, what it pays, and what it does about every fault.
//!
//! The engine, the privacy mechanisms and the protocol are the real ones; relay, store, clock and listener are `support`'s.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::rc::Rc;

use futures_util::future::join;
use pollster::block_on;
use support::{DELTA, Fails, Op, Upload, World, down, manifest, noiseless, refusal, task, training};
use unsaid::{
    ClientError, SessionEvent,
    abort::Abort,
    backend::BackendChoice,
    events::{RelayStatus, State, UploadStatus},
    session::{Ending, RunSummary, read_pending},
};
use unsaid_engine::{Device, Examples, Unobserved, train};
use unsaid_privacy::{Ledger, Rho};
use unsaid_protocol::{CheckInReply, ContentHash, Manifest, ProblemKind, RoundPhase, UpdateFrame};

fn run(world: &Rc<World>, rounds: u32) -> Result<RunSummary, ClientError> {
    block_on(world.session().run(Some(rounds), &Abort::default()))
}

fn run_until(world: &Rc<World>, abort: &Abort) -> Result<RunSummary, ClientError> {
    block_on(world.session().run(None, abort))
}

fn cost(manifest: &Manifest) -> Rho {
    task(manifest).round_cost().unwrap()
}

fn is_send(op: &Op) -> bool {
    matches!(op, Op::Send(_))
}

/// That nothing was paid, kept or sent.
fn assert_untouched(world: &World) {
    assert_eq!(world.sent(), []);
    assert_eq!(world.paid(), 0);
    assert_eq!(*world.store.pending.borrow(), None);
}

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
            (&entry.update, entry.round, entry.rho),
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
        if matches!(
            event,
            SessionEvent::State {
                state: State::Protecting,
                ..
            }
        ) {
            elsewhere.store.spend_elsewhere(one);
        }
    });
    assert!(matches!(run(&world, 1), Err(ClientError::BudgetExhausted { .. })));
    assert_eq!(world.sent(), []);
    assert_eq!(*world.store.pending.borrow(), None);
    assert_eq!(world.paid(), 1, "only the other tab's");
}

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
    let end: Vec<_> = world.ops().into_iter().skip_while(|op| !is_send(op)).collect();
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
        if matches!(
            event,
            SessionEvent::State {
                state: State::Training,
                ..
            }
        ) {
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

// Faults of the relay before the upload

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

// Local data and training

#[test]
fn no_data_is_an_error_before_anyone_is_asked() {
    let world = World::new(manifest());
    world.store.examples.take();
    assert_eq!(run(&world, 1), Err(ClientError::NoData));
    assert_eq!(world.ops(), []);
}

#[test]
fn data_that_does_not_fit_the_task_is_an_error_before_anyone_is_asked() {
    for (x, y) in [
        (vec![0.5; 4], vec![3]),
        (vec![0.5; 5], vec![0]),
        (vec![f32::NAN; 4], vec![0]),
    ] {
        let world = World::new(manifest());
        world.store.examples.replace((x, y));
        assert!(matches!(run(&world, 1), Err(ClientError::BadData(_))));
        assert_eq!(world.ops(), []);
    }
}

#[test]
fn one_example_is_enough() {
    let world = World::new(manifest());
    world
        .store
        .examples
        .replace((vec![0.5, -0.25, 1.0, 0.0], vec![2]));
    assert_eq!(run(&world, 2).unwrap().rounds, 2);
    assert_eq!((world.counted(), world.paid()), (2, 2));
}

#[test]
fn training_that_diverges_is_an_error_and_nothing_is_paid_or_sent() {
    let world = World::new(Manifest {
        training: training(1e30),
        ..manifest()
    });
    assert!(matches!(run(&world, 1), Err(ClientError::NonFinite(_))));
    assert_untouched(&world);
}

#[test]
fn without_webgpu_the_cpu_trains_unless_webgpu_was_asked_for_by_name() {
    let abort = Abort::default();
    let world = World::new(manifest());
    let summary = block_on(world.session_on(BackendChoice::Auto).run(Some(1), &abort)).unwrap();
    assert_eq!(summary.backend, "cpu");
    let told = world.listener.events().into_iter().any(|event| {
        matches!(event, SessionEvent::Backend { backend: "cpu", reason, .. } if reason.contains("none in this world"))
    });
    assert!(told, "the page was not told why");

    let world = World::new(manifest());
    let result = block_on(world.session_on(BackendChoice::WebGpu).run(Some(1), &abort));
    assert!(matches!(result, Err(ClientError::WebGpuUnavailable(_))));
    assert_untouched(&world);
}

// Stopping

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
        ("at check-in", |event| {
            matches!(
                event,
                SessionEvent::State {
                    state: State::CheckingIn,
                    ..
                }
            )
        }),
        ("at the download", |event| {
            matches!(
                event,
                SessionEvent::State {
                    state: State::Downloading,
                    ..
                }
            )
        }),
        ("as training begins", |event| {
            matches!(
                event,
                SessionEvent::State {
                    state: State::Training,
                    ..
                }
            )
        }),
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

// Waiting and ending

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

// What is in the bytes

/// The body of one round with one example in one step: the update is the same whatever the order, but for rounding and noise.
fn one_step(terms: Manifest) -> (Rc<World>, UpdateFrame, Vec<f32>) {
    let one_epoch = serde_json::json!({
        "epochs": 1,
        "batch_size": 1,
        "optimizer": {"type": "sgd", "learning_rate": 0.1},
    });
    let world = World::new(Manifest {
        training: one_epoch,
        ..terms
    });
    let example = (vec![0.731_921, -0.618_033_97, 1.234_567_9, 0.271_828_18], vec![2]);
    world.store.examples.replace(example.clone());
    let task = world.session().task;
    let before = task.model.initial_parameters(1);
    let examples = Examples::new(example.0, example.1, 4, 3).unwrap();
    let mut unobserved = Unobserved;
    let (model, training) = (&task.model, &task.training);
    let trained = train(
        model,
        &before,
        &examples,
        training,
        1,
        &Device::Cpu,
        &mut unobserved,
    );
    let after = block_on(trained).unwrap().parameters;
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let frame = world.relay.state.borrow().counted[0].clone();
    let steps = 1.0 / task.manifest.update.grid_step as f32;
    let clear = after.iter().zip(&before).map(|(a, b)| (a - b) * steps).collect();
    (world, frame, clear)
}

/// The largest distance, in grid steps, between what was sent and the clear update.
fn distance(frame: &UpdateFrame, clear: &[f32]) -> f32 {
    assert_eq!(frame.coordinates.len(), clear.len());
    let far = frame.coordinates.iter().zip(clear);
    far.map(|(sent, clear)| (*sent as f32 - clear).abs())
        .fold(0.0, f32::max)
}

#[test]
fn without_noise_the_frame_is_the_clipped_update_on_the_grid() {
    let (world, frame, clear) = one_step(noiseless());
    // Rounding moves a coordinate by less than one step; the float arithmetic of the comparison adds next to nothing.
    assert!(distance(&frame, &clear) < 1.001);
    let norm_squared: u64 = frame
        .coordinates
        .iter()
        .map(|c| u64::from(c.unsigned_abs()).pow(2))
        .sum();
    assert!(norm_squared <= world.session().task.encoding.bound_squared());
}

#[test]
fn with_noise_the_clear_update_never_leaves() {
    // σ = 4 · 1028 steps: all 67 coordinates lie within 500 steps of the clear update with a probability below 10⁻⁶⁰.
    let (world, frame, clear) = one_step(manifest());
    assert!(distance(&frame, &clear) > 500.0);
    let sent = world.sent()[0];
    assert_eq!(world.store.ledger().entries()[0].frame_sha256, sent.to_string());
}

#[test]
fn the_same_data_and_model_never_give_the_same_update_twice() {
    let (_, one, _) = one_step(manifest());
    let (_, other, _) = one_step(manifest());
    assert_eq!(
        (one.round, one.model, one.client),
        (other.round, other.model, other.client)
    );
    assert_ne!(one.update, other.update);
    let same = one
        .coordinates
        .iter()
        .zip(&other.coordinates)
        .filter(|(a, b)| a == b);
    // Each of 67 is the same with a probability below 1/10,000: six are with one below 10⁻¹⁶.
    assert!(same.count() < 6);
}

#[test]
fn no_raw_example_is_in_any_body() {
    let world = World::new(manifest());
    run(&world, 3).unwrap();
    let without_noise = World::new(noiseless());
    run(&without_noise, 3).unwrap();
    let (x, _) = world.store.examples.borrow().clone();
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    // Two numbers side by side: eight bytes that chance does not make (3 · 95 · 400 / 2⁶⁴).
    let contains = |body: &[u8]| {
        let pairs = bytes.chunks_exact(4).zip(bytes.chunks_exact(4).skip(1));
        let mut pairs = pairs.map(|(a, b)| [a, b].concat());
        pairs.any(|pair| body.windows(8).any(|window| window == pair))
    };
    assert!(
        contains(&[&[7; 13], &bytes[40..60], &[7; 3]].concat()),
        "the search finds what is there"
    );
    for world in [&world, &without_noise] {
        let bodies = world.relay.state.borrow().bodies.clone();
        assert_eq!(bodies.len(), 3);
        for body in bodies {
            assert!(!contains(&body));
            // A frame, the whole frame and nothing but the frame.
            let frame = UpdateFrame::decode(&body).unwrap();
            assert!(body.len() <= UpdateFrame::max_len(67));
            assert_eq!(frame.manifest, world.relay.state.borrow().manifest);
        }
    }
}

#[test]
fn the_ledger_adds_up_over_sessions() {
    let world = World::new(manifest());
    for _ in 0..3 {
        run(&world, 1).unwrap();
    }
    let ledger: Ledger = world.store.ledger();
    let three = [cost(&manifest()); 3].into_iter().sum::<Rho>();
    assert_eq!((ledger.count(), ledger.spent()), (3, three));
    let mut ids: Vec<_> = ledger
        .entries()
        .iter()
        .map(|entry| entry.update.clone())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}
