//! Local data, the back end and training.

use pollster::block_on;
use unsaid::{ClientError, SessionEvent, abort::Abort, backend::BackendChoice};
use unsaid_protocol::Manifest;

use crate::{
    assert_untouched, run,
    world::{World, manifest, training},
};

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
