//! Control variates (SCAFFOLD): what training is corrected by, and when a client's own changes.

use std::rc::Rc;

use pollster::block_on;
use unsaid::{ClientError, SessionEvent, abort::Abort, task::Task};
use unsaid_engine::{Device, Examples, Training, Unobserved};
use unsaid_protocol::{CentralAdjacency, CentralPrivacy, ContentHash, Manifest, Privacy, UpdateFrame};

use crate::{
    run,
    world::{NO_FLOORS, Upload, World, control, example, manifest, noiseless, task},
};

/// Parameters and shared control variate of the model that an update starts from.
fn start(world: &World, frame: &UpdateFrame) -> (Vec<f32>, Vec<f32>) {
    let state = world.relay.state.borrow();
    let model = task(&control()).model;
    model
        .from_safetensors_with_control(&state.models[&frame.model])
        .unwrap()
}

/// What option II of the paper (Karimireddy et al. 2020, algorithm 1, line 12) makes of `own` with each update that was counted: ten
/// steps of 0.1.
fn by_the_paper(world: &World) -> Vec<f64> {
    let counted = world.relay.state.borrow().counted.clone();
    let mut own = vec![0.0; 67];
    for frame in &counted {
        let (_, shared) = start(world, frame);
        for (at, own) in own.iter_mut().enumerate() {
            let moved = f64::from(frame.coordinates[at]) / 1024.0;
            *own += -f64::from(shared[at]) - moved / (10.0 * f64::from(0.1_f32));
        }
    }
    own
}

fn assert_kept(world: &World) {
    let kept = world.store.control.borrow();
    assert_eq!(kept.len(), 67);
    for (kept, expected) in kept.iter().zip(by_the_paper(world)) {
        // Numbers below 4, rounded to 32-bit floats once in each of a few rounds.
        assert!((f64::from(*kept) - expected).abs() < 1e-5, "{kept} {expected}");
    }
}

#[test]
fn training_is_corrected_by_the_shared_variate_less_the_clients_own() {
    let world = World::new(control());
    // With one example nothing depends on an order that nobody knows.
    let (x, y) = (vec![0.5, -0.25, 1.0, 0.0], vec![2]);
    world.store.examples.replace((x.clone(), y.clone()));
    let task = task(&control());
    let examples = Examples::new(x, y, 4, 3).unwrap();
    for round in 0..3 {
        let own = world.store.control.borrow().clone();
        assert_eq!(own.is_empty(), round == 0);
        assert_eq!(run(&world, 1).unwrap().rounds, 1);
        let frame = world.relay.state.borrow().counted[round].clone();
        let (before, shared) = start(&world, &frame);
        let own = if round == 0 { vec![0.0; 67] } else { own };
        let correction: Vec<f32> = shared
            .iter()
            .zip(&own)
            .map(|(shared, own)| shared - own)
            .collect();
        let change = |correction: &[f32]| -> Vec<f64> {
            let training = Training::new(&task.model, &examples, &task.training).correction(correction);
            let end = block_on(training.run(&before, &Device::Cpu, &mut Unobserved)).unwrap();
            assert_eq!(end.steps, 10);
            let change = end.parameters.iter().zip(&before);
            change
                .map(|(end, start)| f64::from(end - start) * 1024.0)
                .collect()
        };
        let off = |change: &[f64]| {
            let off = frame.coordinates.iter().zip(change);
            off.map(|(&sent, change)| (f64::from(sent) - change).abs())
                .fold(0.0, f64::max)
        };
        // Rounded to one of the two neighbours on the grid.
        assert!(off(&change(&correction)) < 1.0);
        // The control: without it, or with the shared one alone, it is another training.
        assert!(off(&change(&[])) > 5.0);
        assert!(round == 0 || off(&change(&shared)) > 5.0);
    }
    assert_kept(&world);
}

#[test]
fn a_variate_changes_with_the_update_that_the_relay_counts_and_with_no_other() {
    let world = World::new(control());
    world.upload([Upload::TooLate, Upload::Arrives]);
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert_eq!((world.sent().len(), world.counted()), (2, 1));
    assert_kept(&world);

    // It was counted, and nobody heard of it until the next visit.
    world.upload([[Upload::AnswerLost; 1].as_slice(), &[Upload::Lost; 7]].concat());
    let before = world.store.control.borrow().clone();
    assert!(run(&world, 1).is_err());
    assert_eq!(*world.store.control.borrow(), before);
    let waits = world.store.pending.borrow().clone().unwrap();
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert_eq!(world.counted(), 2);
    assert_eq!(*world.store.control.borrow(), waits.control);
    assert_kept(&world);

    // It waited until its round had closed without it.
    world.upload([Upload::Lost; 8]);
    let before = world.store.control.borrow().clone();
    assert!(run(&world, 1).is_err());
    world.relay.advance();
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert_eq!(world.counted(), 3);
    assert_ne!(*world.store.control.borrow(), before);
    assert_kept(&world);
}

#[test]
fn what_a_variate_is_made_of_is_what_was_sent_whatever_was_cut_off() {
    let mut terms = control();
    terms.update.clip_l2 = 0.125;
    let world = World::new(terms);
    assert_eq!(run(&world, 3).unwrap().rounds, 3);
    let clipped = world.relay.state.borrow().counted.iter().any(|frame| {
        let squares = frame.coordinates.iter().map(|&k| f64::from(k).powi(2));
        squares.sum::<f64>().sqrt() > 100.0
    });
    assert!(clipped, "the control: an update was as long as it may be");
    assert_kept(&world);
}

#[test]
fn no_byte_of_a_variate_leaves_and_an_update_is_as_long_as_without() {
    let world = World::new(control());
    assert_eq!(run(&world, 3).unwrap().rounds, 3);
    let kept = world.store.control.borrow().clone();
    let state = world.relay.state.borrow();
    for body in &state.bodies {
        let (frame, _) = UpdateFrame::read(body).unwrap();
        assert_eq!(frame.coordinates.len(), 67);
        for value in kept.iter().filter(|value| value.abs() > 1e-3) {
            let bytes = value.to_le_bytes();
            assert!(!body.windows(4).any(|four| four == bytes), "{value}");
        }
    }
}

#[test]
fn where_examples_are_protected_the_variate_is_made_of_the_noised_steps() {
    let terms = Manifest {
        control_variates: true,
        ..example()
    };
    // ⌈1/0.1⌉ lots, twice.
    assert_eq!(task(&terms).reach, Some(20.0 * f64::from(0.1_f32)));
    let world = World::new(terms);
    assert_eq!(run(&world, 2).unwrap().rounds, 2);
    let frame = world.relay.state.borrow().counted[0].clone();
    assert_eq!(world.store.control.borrow().len(), frame.coordinates.len());
}

#[test]
fn a_variate_of_another_model_is_none_and_neither_is_one_of_no_numbers() {
    for odd in [vec![1e30; 66], vec![f32::INFINITY; 67], vec![f32::NAN; 67]] {
        let world = World::new(control());
        world.store.control.replace(odd);
        assert_eq!(run(&world, 1).unwrap().rounds, 1);
        assert_kept(&world);
    }
}

#[test]
fn a_model_without_the_shared_variate_has_zeros() {
    let world = World::new(control());
    {
        let mut state = world.relay.state.borrow_mut();
        let model = task(&control()).model;
        let plain = model.to_safetensors(&model.initial_parameters(9)).unwrap();
        state.serve(plain);
    }
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let frame = world.relay.state.borrow().counted[0].clone();
    let kept = world.store.control.borrow();
    for (kept, sent) in kept.iter().zip(&frame.coordinates) {
        let expected = -f64::from(*sent) / 1024.0 / (10.0 * f64::from(0.1_f32));
        assert!((f64::from(*kept) - expected).abs() < 1e-6, "{kept} {expected}");
    }
}

#[test]
fn erasing_forgets_the_variate_and_other_tasks_have_none() {
    let world = World::new(control());
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert!(!world.store.control.borrow().is_empty());
    block_on(world.session().erase_ledger()).unwrap();
    assert!(world.store.control.borrow().is_empty());
    let world = World::new(noiseless());
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert!(world.store.control.borrow().is_empty());
}

#[test]
fn terms_under_which_clients_do_not_train_alike_are_refused() {
    let refused = |training: serde_json::Value| {
        let json = Manifest {
            training,
            ..control()
        }
        .to_json();
        match Task::new(&json, ContentHash::of(&json), &NO_FLOORS) {
            Err(ClientError::BadManifest(reason)) => reason.contains("control_variates"),
            _ => false,
        }
    };
    let mut training = control().training;
    assert!(!refused(training.clone()));
    training["proximal"] = 0.5.into();
    assert!(refused(training));
    let mut training = control().training;
    training["optimizer"]["momentum"] = 0.5.into();
    assert!(refused(training));
    let mut training = control().training;
    training.as_object_mut().unwrap().remove("steps_per_epoch");
    assert!(refused(training));
}

/// It would be made of the update before its noise, and tell of it in a later task that has none on updates.
#[test]
fn with_noise_on_updates_there_is_no_variate() {
    let central = CentralPrivacy::new(4.0, CentralAdjacency::AddRemove, 1e-5, None);
    let central = Privacy::Central(central);
    for privacy in [manifest().privacy, central] {
        let json = Manifest { privacy, ..control() }.to_json();
        match Task::new(&json, ContentHash::of(&json), &NO_FLOORS) {
            Err(ClientError::BadManifest(reason)) => assert!(reason.contains("control_variates"), "{reason}"),
            other => panic!("{:?}", other.map(|task| task.hash)),
        }
    }
}

#[test]
fn an_update_that_was_forgotten_while_it_was_sent_leaves_no_variate() {
    let world = World::new(control());
    let inside = Rc::clone(&world);
    // As when the examples are cleared, or everything is erased, in another tab.
    world.listener.on(move |event| {
        if matches!(event, SessionEvent::Upload { .. }) {
            inside.store.pending.take();
        }
    });
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert_eq!(world.counted(), 1);
    assert!(world.store.control.borrow().is_empty());
}

#[test]
fn a_run_that_is_stopped_changes_nothing() {
    let world = World::new(control());
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let before = world.store.control.borrow().clone();
    let abort = Rc::new(Abort::default());
    abort.stop();
    let _ = block_on(world.session().run(Some(1), &abort));
    assert_eq!(*world.store.control.borrow(), before);
}
