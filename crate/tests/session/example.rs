//! Tasks that protect single examples: the noise is on the sums of gradients while training.

use unsaid::{ClientError, SessionEvent, events::UpdateReport};
use unsaid_privacy::Cost;
use unsaid_protocol::{Manifest, Privacy, UpdateFrame};

use crate::{
    assert_untouched, cost, run,
    world::{DELTA, Op, World, example, manifest, task},
};

/// A little noise, and steps that take most examples.
fn terms(noise_multiplier: f64) -> Manifest {
    let mut terms = example();
    terms.privacy = Privacy::Example {
        clip_l2: 1.0,
        noise_multiplier,
        sampling_rate: 0.5,
    };
    terms
}

fn report(world: &World) -> UpdateReport {
    let events = world.listener.events().into_iter();
    let mut reports = events.filter_map(|event| match event {
        SessionEvent::Update(report) => Some(report),
        _ => None,
    });
    reports.next().unwrap()
}

#[test]
fn a_round_is_paid_for_by_the_curve_of_its_steps_before_any_byte_leaves() {
    let world = World::new(example());
    assert_eq!(run(&world, 2).unwrap().rounds, 2);
    let sent = world.sent();
    let payments: Vec<_> = world
        .ops()
        .into_iter()
        .filter(|op| matches!(op, Op::Debit { .. } | Op::Send(_)))
        .collect();
    let round = |frame| {
        let debit = Op::Debit {
            charged: frame,
            kept: Some(frame),
        };
        [debit, Op::Send(frame)]
    };
    assert_eq!(payments, [round(sent[0]), round(sent[1])].concat());
    let ledger = world.store.ledger();
    let each = cost(&example());
    assert_eq!(ledger.spent(), each + each);
    // ⌈1/0.1⌉ steps in each of two epochs.
    let (noise, _) = task(&example())
        .private_steps()
        .map(|(noise, steps)| (*noise, steps))
        .unwrap();
    assert_eq!(each, Cost::of_examples(|order| noise.cost(order, 20)));
    let told = world
        .listener
        .events()
        .into_iter()
        .rev()
        .find_map(|event| match event {
            SessionEvent::Budget(view) => Some(view),
            _ => None,
        });
    let told = told.unwrap();
    assert_eq!((told.spent, told.unit), (ledger.spent_epsilon(), "example"));
}

#[test]
fn a_ledger_of_noised_updates_says_that_it_protects_them_until_it_holds_an_example_round() {
    let unit = |world: &World| {
        let events = world.listener.events().into_iter().rev();
        let mut units = events.filter_map(|event| match event {
            SessionEvent::Budget(view) => Some(view.unit),
            _ => None,
        });
        units.next().unwrap()
    };
    let world = World::new(manifest());
    run(&world, 1).unwrap();
    assert_eq!(unit(&world), "update");
}

#[test]
fn the_update_is_clipped_and_rounded_and_gets_no_more_noise() {
    let world = World::new(terms(2.0));
    run(&world, 1).unwrap();
    let frame = UpdateFrame::decode(&world.relay.state.borrow().bodies[0]).unwrap();
    let squared: u64 = frame
        .coordinates
        .iter()
        .map(|x| u64::from(x.unsigned_abs()).pow(2))
        .sum();
    assert!(squared <= task(&terms(2.0)).encoding.bound_squared());
    let report = report(&world);
    assert_eq!(report.sigma_steps, 0.0);
    assert_eq!(report.histogram.before, report.histogram.after);
}

/// What training makes of much noise is long, since every step adds to it, and of next to none as long as what is learned.
#[test]
fn the_noise_is_in_what_was_trained() {
    let length = |noise_multiplier| {
        let world = World::new(terms(noise_multiplier));
        world.store.set_epsilon(1e9);
        run(&world, 1).unwrap();
        report(&world).norm_before_clip
    };
    // 4 steps of σ/8 · 0.1 on each of 67 weights: σ = 100 makes 20, give or take a sixth of it.
    let (loud, quiet) = (length(100.0), length(0.02));
    assert!((10.0..40.0).contains(&loud) && quiet < 1.0, "{loud} {quiet}");
    // Two clients with the same examples never train the same.
    assert_ne!(length(100.0), length(100.0));
}

/// That there is nothing to train on is not to be seen: it is an update like any other, of noise, and is paid for.
#[test]
fn who_has_no_examples_sends_noise_and_pays_for_it() {
    let world = World::new(terms(2.0));
    world.store.set_epsilon(1e9);
    world.store.examples.replace((Vec::new(), Vec::new()));
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    assert!(report(&world).norm_before_clip > 0.0);
    assert_eq!(world.store.ledger().spent(), cost(&terms(2.0)));
    // Where whole updates are protected, or nothing is, there is nothing to send.
    let world = World::new(manifest());
    world.store.examples.replace((Vec::new(), Vec::new()));
    assert_eq!(run(&world, 1), Err(ClientError::NoData));
}

#[test]
fn a_round_that_the_budget_does_not_allow_is_not_begun() {
    let world = World::new(example());
    let one = cost(&example()).epsilon(DELTA).unwrap();
    world.store.set_epsilon(0.99 * one);
    assert!(matches!(run(&world, 1), Err(ClientError::BudgetExhausted { .. })));
    assert_untouched(&world);
    world.store.set_epsilon(1.01 * one);
    assert_eq!(run(&world, 2).unwrap().rounds, 1);
}
