//! Rounds with control variates (SCAFFOLD), beside a loop over the engine that hands over both of the paper's vectors.

use futures_util::FutureExt;

use super::*;

const SCAFFOLD: [&str; 4] = [
    "strategy.aggregation.type=scaffold",
    "strategy.aggregation.population=8",
    "training.steps_per_epoch=6",
    "rounds.target_clients=3",
];

/// The simulator, and a loop written here over the engine alone, in which clients hand over both of the paper's vectors
/// (Karimireddy et al. 2020, algorithm 1, option II).
#[test]
fn simulated_rounds_with_control_variates_are_the_papers_algorithm() {
    const ROUNDS: u64 = 5;
    let overrides = [&SCAFFOLD[..], &["rounds.min_clients=3"]].concat();
    let simulation = simulation(&overrides, |settings| settings.cohort = 3).unwrap();
    let (model, spec) = (&simulation.config.model, &simulation.spec);
    let (mut live, _) = Live::first(&simulation.config, 0).unwrap();
    let (mut taken_part, mut flight, mut own) = (BTreeMap::new(), Flight::default(), OwnVariates::new());
    let mut x = model.initial_parameters(simulation.config.seed);
    let mut c = vec![0.0; x.len()];
    let mut theirs = vec![c.clone(); 8];
    for round in 1..=ROUNDS {
        let (mut moves, mut turns) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for client in simulation.choose(round) {
            let examples = &simulation.data.clients[client];
            let correction: Vec<f32> = c
                .iter()
                .zip(&theirs[client])
                .map(|(c, own): (&f32, &f32)| c - own)
                .collect();
            let training = unsaid_engine::Training::new(model, examples, spec)
                .seed(simulation.seed.order(Purpose::Order, round, client as u64))
                .correction(&correction);
            let mut nobody = unsaid_engine::Unobserved;
            let trained = training.run(&x, &unsaid_engine::Device::Cpu, &mut nobody);
            let y = trained.now_or_never().unwrap().unwrap().parameters;
            let after = training.control_variate(&x, &y).unwrap();
            for at in 0..x.len() {
                moves[at] += f64::from(y[at] - x[at]);
                turns[at] += f64::from(after[at] - theirs[client][at]);
            }
            theirs[client] = after;
        }
        for at in 0..x.len() {
            x[at] = (f64::from(x[at]) + moves[at] / 3.0) as f32;
            c[at] = (f64::from(c[at]) + turns[at] / 8.0) as f32;
        }
        simulation
            .round(round, &mut live, &mut taken_part, &mut flight, &mut own)
            .unwrap();
        // What is sent is on a grid of 10⁻⁴: off by less in the model, and by less over K·η = 6 · 0.5 in a variate. Losses are convex
        // and steps short, so that what is off does not grow on the way.
        let off = 1e-4 * round as f64;
        for (found, expected) in live.parameters().iter().zip(&x) {
            assert!(
                f64::from((found - expected).abs()) < off,
                "{round}: {found} {expected}"
            );
        }
        for (found, expected) in live.control().iter().zip(&c) {
            assert!(
                f64::from((found - expected).abs()) < off,
                "{round}: {found} {expected}"
            );
        }
    }
    assert!(
        c.iter().any(|value| value.abs() > 0.01),
        "the control: there is a variate: {c:?}"
    );
    let mean = |at: usize| own.values().map(|own| f64::from(own[at])).sum::<f64>() / 8.0;
    for (at, &shared) in live.control().iter().enumerate() {
        // Each round rounds numbers below 2 to 32-bit floats.
        assert!(
            (f64::from(shared) - mean(at)).abs() < 1e-6,
            "{shared} {}",
            mean(at)
        );
    }
}

#[test]
fn clipping_keeps_the_shared_control_variate_the_mean_of_the_clients_own() {
    let overrides = [&SCAFFOLD[..], &["rounds.min_clients=3", "update.clip_l2=0.05"]].concat();
    let simulation = simulation(&overrides, |settings| settings.cohort = 3).unwrap();
    let (mut live, _) = Live::first(&simulation.config, 0).unwrap();
    let (mut taken_part, mut flight, mut own) = (BTreeMap::new(), Flight::default(), OwnVariates::new());
    let mut clipped = 0;
    for round in 1..=20 {
        let line = simulation.round(round, &mut live, &mut taken_part, &mut flight, &mut own);
        clipped += line.unwrap().clipped;
    }
    assert!(clipped > 10, "{clipped}");
    let off = |own: &OwnVariates| {
        let mean = |at: usize| own.values().map(|own| f64::from(own[at])).sum::<f64>() / 8.0;
        let off = |(at, &shared): (usize, &f32)| (f64::from(shared) - mean(at)).abs();
        live.control().iter().enumerate().map(off).fold(0.0, f64::max)
    };
    // Twenty rounds, each of which rounds numbers below 1 to 32-bit floats.
    let rounding = 20.0 * f64::from(f32::EPSILON);
    assert!(off(&own) < rounding, "{}", off(&own));
    // The control: a client that loses its own breaks it.
    own.pop_first();
    assert!(off(&own) > 10.0 * rounding, "{}", off(&own));
}

/// Where every client has one kind of points, the mean of what clients make of a model stands still away from the best model for all of
/// them, and control variates take it there: at the model that they reach, the gradient of the clients' mean loss is next to nothing.
#[test]
fn control_variates_end_the_drift_of_clients_that_have_one_kind_of_points() {
    let gradient_at_the_end = |rule: &[&str]| {
        let mut overrides = vec![
            "training.steps_per_epoch=20",
            "training.batch_size=64",
            "training.weight_decay=0.1",
            "update.grid_step=0.0000610351562",
        ];
        overrides.extend(rule);
        let mut simulation = simulation(&overrides, |_| {}).unwrap();
        let kind = |client: u32| {
            let all = points(64, client.into());
            let of_kind: Vec<usize> = (0..64).filter(|at| all.y()[*at] == client % 2).collect();
            let x = of_kind.iter().flat_map(|&at| all.x()[2 * at..][..2].to_vec());
            Examples::new(x.collect(), vec![client % 2; of_kind.len()], 2, 2).unwrap()
        };
        simulation.data.clients = (0..8).map(kind).collect();
        let (mut live, _) = Live::first(&simulation.config, 0).unwrap();
        let (mut taken_part, mut flight, mut own) = (BTreeMap::new(), Flight::default(), OwnVariates::new());
        for round in 1..=60 {
            let line = simulation.round(round, &mut live, &mut taken_part, &mut flight, &mut own);
            assert_eq!(line.unwrap().clipped, 0);
        }
        let x = live.parameters();
        let mut mean = vec![0.0; x.len()];
        for examples in &simulation.data.clients {
            let (_, gradient) = simulation.config.model.loss_and_gradient(x, examples).unwrap();
            for ((mean, gradient), x) in mean.iter_mut().zip(gradient).zip(x) {
                *mean += f64::from(gradient + 0.1 * x) / 8.0;
            }
        }
        mean.iter().map(|at| at * at).sum::<f64>().sqrt()
    };
    let mean = gradient_at_the_end(&[]);
    let scaffold = gradient_at_the_end(&SCAFFOLD[..2]);
    assert!(mean > 0.01, "the control: without them clients drift: {mean}");
    assert!(scaffold < mean / 20.0, "{scaffold} {mean}");
}

#[test]
fn control_variates_are_seeded_and_private_and_for_the_clients_that_there_are() {
    let plain = [&SCAFFOLD[..], &["rounds.min_clients=3"]].concat();
    let private: Vec<&str> = plain
        .iter()
        .filter(|it| !it.contains("steps"))
        .chain(&EXAMPLE)
        .copied()
        .collect();
    for overrides in [plain.clone(), private] {
        let with = |threads| {
            run(&overrides, |settings| {
                (settings.cohort, settings.threads) = (3, threads)
            })
        };
        let one = with(1);
        assert_eq!(one.json, with(5).json, "{overrides:?}");
        let mean: Vec<&str> = overrides
            .iter()
            .filter(|it| !it.contains("aggregation"))
            .copied()
            .collect();
        let mean = run(&mean, |settings| settings.cohort = 3);
        assert_ne!(one.end().model, mean.end().model, "{overrides:?}");
        let rounds = (one.rounds(), mean.rounds());
        assert_eq!(rounds.0[0].bytes_up, rounds.1[0].bytes_up, "no byte more is sent");
    }
    let more = [&plain[..], &["strategy.aggregation.population=9"]].concat();
    let refused = simulation(&more, |settings| settings.cohort = 3)
        .map(drop)
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("there are 9 clients, and there are 8"),
        "{refused}"
    );
}
