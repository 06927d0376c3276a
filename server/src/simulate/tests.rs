//! Simulations of a small task: 8 clients, two kinds of points in the plane, which a model of six parameters tells apart.

use futures_util::FutureExt;
use rand_core::Rng;
use unsaid_engine::Examples;
use unsaid_privacy::accounting::{Accountant, Composition, GaussianSum, Sampling};

use super::{random::Seed, *};

const TASK: &str = r#"
task = "points"
title = "Points <&>"
[model]
input = [2]
layers = [{ type = "dense", units = 2 }]
loss = "softmax-cross-entropy"
[training]
epochs = 1
batch_size = 5
optimizer = { type = "sgd", learning_rate = 0.5 }
[update]
clip_l2 = 1000.0
grid_step = 0.0001
[privacy]
mode = "none"
[rounds]
min_clients = 8
target_clients = 8
deadline_ms = 1000
"#;

const EXAMPLE: [&str; 5] = [
    "privacy.mode=example",
    "privacy.noise_multiplier=2.0",
    "privacy.clip_l2=1.0",
    "privacy.sampling_rate=0.25",
    "training.epochs=2",
];

/// Points around (1, 1) and (−1, −1), with a standard deviation of half a unit: all but a few can be told apart.
fn points(count: usize, client: u64) -> Examples {
    let mut rng = Seed::new(77).generator(Purpose::Baseline, 0, client);
    let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
    let mut features = Vec::new();
    let labels: Vec<u32> = (0..count as u32).map(|at| at % 2).collect();
    for &label in &labels {
        let centre = if label == 0 { 1.0 } else { -1.0 };
        let mut near = || (centre + unit() + unit() + unit()) as f32;
        features.extend([near(), near()]);
    }
    Examples::new(features, labels, 2, 2).unwrap()
}

struct Made {
    lines: Vec<Line>,
    json: String,
}

impl Made {
    fn end(&self) -> &record::EndLine {
        match self.lines.last() {
            Some(Line::End(end)) => end,
            other => panic!("{other:?}"),
        }
    }

    fn rounds(&self) -> Vec<&RoundLine> {
        let round = |line: &'_ _| matches!(line, Line::Round(_));
        let lines = self.lines.iter().filter(|line| round(line));
        lines
            .map(|line| match line {
                Line::Round(round) => round,
                _ => unreachable!(),
            })
            .collect()
    }
}

fn simulation(overrides: &[&str], change: impl FnOnce(&mut Settings)) -> Result<Simulation, SimulateError> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let task = Task::parse("points.toml", TASK, &overrides).unwrap();
    let data = TrainingData {
        partition: "natural".into(),
        clients: (0..8)
            .map(|client| points(20 + 2 * client as usize, client))
            .collect(),
        proxy: Some(points(10, 99)),
    };
    let mut settings = Settings {
        rounds: 6,
        cohort: 8,
        concurrency: 4,
        turns: false,
        seed: 1,
        threads: 2,
        delta: 1e-5,
        evaluate_every: 1,
        stop_at: None,
        attack: None,
        baselines: vec![],
    };
    change(&mut settings);
    Simulation::new(task, data, &points(2_500, 50), settings)
}

fn run(overrides: &[&str], change: impl FnOnce(&mut Settings)) -> Made {
    let mut json = String::new();
    let mut hear = |line: &Line| json += &format!("{}\n", serde_json::to_string(line).unwrap());
    let lines = simulation(overrides, change).unwrap().run(&mut hear).unwrap();
    Made { lines, json }
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads() {
    let noisy = ["privacy.mode=local", "privacy.noise_multiplier=0.001"];
    for overrides in [&[][..], &noisy, &EXAMPLE] {
        let with = |seed, threads| {
            run(overrides, |settings| {
                (settings.seed, settings.threads, settings.cohort) = (seed, threads, 5);
                settings.baselines = vec![Baseline::Centralised, Baseline::LocalOnly];
            })
        };
        let one = with(3, 1);
        assert_eq!(one.json, with(3, 2).json, "{overrides:?}");
        assert_eq!(one.json, with(3, 7).json, "{overrides:?}");
        assert_ne!(one.end().model, with(4, 1).end().model, "{overrides:?}");
    }
}

/// The simulator, and a loop written here over the engine alone, with the plain mean in f64.
#[test]
fn a_simulated_round_is_federated_averaging() {
    let simulation = simulation(&[], |settings| settings.rounds = 1).unwrap();
    let model = &simulation.config.model;
    let start = model.initial_parameters(simulation.config.seed);
    let mut mean = vec![0.0; start.len()];
    for client in 0..8 {
        let seed = simulation.seed.order(Purpose::Order, 1, client as u64);
        let examples = &simulation.data.clients[client];
        let (after, _) = simulation
            .fit(&start, examples, &simulation.spec, seed, &[])
            .unwrap();
        for ((mean, after), start) in mean.iter_mut().zip(after).zip(&start) {
            *mean += f64::from(after - start) / 8.0;
        }
    }
    let lines = simulation.run(&mut |_| {}).unwrap();
    let (mut live, _) = Live::first(&simulation.config, 0).unwrap();
    let line = simulation
        .round(
            1,
            &mut live,
            &mut BTreeMap::new(),
            &mut Flight::default(),
            &mut OwnVariates::new(),
        )
        .unwrap();
    assert!(
        lines.contains(&Line::Round(line)),
        "a round by itself is the round of a run"
    );
    for ((found, mean), start) in live.parameters().iter().zip(mean).zip(&start) {
        // Each of the eight was rounded to the grid, off by less than a step.
        assert!(
            (f64::from(*found) - f64::from(*start) - mean).abs() < 1e-4,
            "{found} {start} {mean}"
        );
    }
}

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

#[test]
fn asynchronous_rounds_learn_from_stale_updates_and_are_their_seed() {
    let buffered = [
        "strategy.aggregation.type=fed-buff",
        "strategy.aggregation.max_staleness=3",
        "rounds.min_clients=2",
    ];
    let with = |threads| {
        run(&buffered, |settings| {
            (settings.rounds, settings.cohort, settings.threads) = (24, 2, threads);
        })
    };
    let made = with(1);
    assert_eq!(made.json, with(5).json);
    let staleness: Vec<f64> = made.rounds().iter().filter_map(|round| round.staleness).collect();
    assert_eq!(staleness.len(), 24);
    assert!(staleness.iter().all(|mean| (0.0..=3.0).contains(mean)));
    assert!(
        staleness.iter().any(|mean| *mean > 0.0),
        "some started from an older model"
    );
    assert!(made.rounds().iter().all(|round| round.clients == 2));
    assert!(made.end().accuracy > 0.9, "{}", made.end().accuracy);
    let crowded = simulation(&buffered, |settings| {
        (settings.cohort, settings.concurrency) = (2, 7)
    });
    assert!(matches!(crowded, Err(SimulateError::Settings(_))));
    assert!(
        run(&[], |_| {})
            .rounds()
            .iter()
            .all(|round| round.staleness.is_none())
    );
}

#[test]
fn it_learns_and_tells_what_it_did() {
    let made = run(&[], |settings| {
        settings.baselines = vec![
            Baseline::Centralised,
            Baseline::LocalOnly,
            Baseline::LocalWithProxy,
        ];
    });
    let (rounds, end) = (made.rounds(), made.end());
    assert_eq!((rounds.len(), end.rounds, end.clients.len()), (6, 6, 8));
    assert!(end.accuracy > 0.9, "{}", end.accuracy);
    assert!(
        rounds
            .iter()
            .all(|round| round.epsilon.is_none() && round.clients == 8)
    );
    // Header, and six coordinates of at most four bytes.
    assert!(
        rounds
            .iter()
            .all(|round| (8 * (116 + 6)..=8 * (116 + 24)).contains(&round.bytes_up))
    );
    let baselines: Vec<_> = made
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Baseline(baseline) => Some(baseline),
            _ => None,
        })
        .collect();
    assert_eq!(baselines.len(), 3);
    let expected = (end.accuracy - baselines[0].accuracy).abs();
    assert_eq!(baselines[0].loss_of_accuracy, Some(expected));
    assert!(expected < 0.05, "{expected}");
    assert_eq!(made.json.lines().count(), made.lines.len());
    let page = report::html(&made.lines);
    for name in ["centralised", "local only", "local with proxy"] {
        let row = format!("<tr><th scope=\"row\">{name}</th>");
        assert_eq!(page.matches(&row).count(), 1, "{name}");
    }
    assert!(page.contains("Points &lt;&amp;&gt;"), "titles are escaped");
    assert_eq!(
        page.matches("<svg").count(),
        5,
        "accuracy, two losses, bytes, clients"
    );
    let labels = page
        .matches("<svg viewBox=\"0 0 800 280\" role=\"img\" aria-label=\"")
        .count();
    assert_eq!(labels, 5, "each says what it shows");
    let label = "aria-label=\"Held-out accuracy: ";
    assert!(
        page.contains(label) && page.contains("; centralised 0."),
        "{page}"
    );
    for foreign in ["<script", "http:", "https:", "url(", "@import"] {
        assert!(
            !page.contains(foreign),
            "the page needs nothing from elsewhere: {foreign}"
        );
    }
}

/// A report that says of another's noise that it is the clients' promises what nobody keeps.
#[test]
fn each_mode_says_whose_data_an_epsilon_protects_and_from_whom() {
    let local = &["privacy.mode=local", "privacy.noise_multiplier=4.0"][..];
    let tree = [
        &CENTRAL[..],
        &[
            "privacy.mechanism=tree-aggregation",
            "privacy.tree.restart_every=4",
            "privacy.tree.min_separation=1",
        ],
    ]
    .concat();
    let replaced = [&CENTRAL[..], &["privacy.adjacency=replace-one"]].concat();
    let (often, updates) = ("the one that took part most often", "all updates of a client");
    let (one, relay) = ("one example of a client", "by the relay, which sees every update");
    for (overrides, mode, noise, expected) in [
        (
            &[][..],
            "none",
            "none: the relay sees every update as it is",
            None,
        ),
        (
            local,
            "local",
            "on each update, by its client",
            Some((updates, often, "replace-one")),
        ),
        (
            &EXAMPLE,
            "example",
            "on each sum of gradients, by its client",
            Some((one, often, "add-remove")),
        ),
        (&CENTRAL, "central", relay, Some((updates, often, "add-remove"))),
        (&replaced, "central", relay, Some((updates, often, "replace-one"))),
        (
            &tree,
            "central",
            relay,
            Some((updates, "one that took part as often as it may", "add-remove")),
        ),
    ] {
        let made = run(overrides, |settings| settings.delta = 1e-6);
        let end = made.end();
        let Some(Line::Start(start)) = made.lines.first() else {
            panic!("{:?}", made.lines)
        };
        let Protection {
            unit,
            client,
            adjacency,
            ..
        } = end.privacy;
        let said = unit
            .zip(client)
            .zip(adjacency)
            .map(|((unit, client), by)| (unit, client, by));
        assert_eq!((end.privacy.mode, said), (mode, expected), "{overrides:?}");
        assert!(end.privacy.noise.ends_with(noise), "{:?}", end.privacy);
        assert_eq!((start.privacy, start.delta, end.delta), (end.privacy, 1e-6, 1e-6));
        assert_eq!(
            end.epsilon,
            made.rounds().last().unwrap().epsilon,
            "{overrides:?}"
        );
        assert_eq!(end.epsilon.is_some(), expected.is_some(), "{overrides:?}");
        let json: serde_json::Value = serde_json::from_str(made.json.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&json["privacy"]["mode"], &json["privacy"]["unit"]),
            (&mode.into(), &unit.into())
        );
        let page = report::html(&made.lines);
        let row =
            |name: &str, value: &str| page.contains(&format!("<tr><th scope=\"row\">{name}</th><td>{value}"));
        assert!(row("privacy mode", mode), "{page}");
        let spent = match (end.epsilon, expected) {
            (Some(epsilon), Some((unit, client, by))) => {
                format!("{epsilon:.4} at δ = 0.000001: {unit}, {client} ({by})")
            }
            _ => "none".to_owned(),
        };
        assert!(row("ε", &spent), "{spent}\n{page}");
        assert_eq!(
            page.contains("protects nobody"),
            expected.is_some(),
            "seeded noise is said to be none"
        );
    }
}

#[test]
fn epsilon_is_that_of_the_client_that_took_part_most_often() {
    let made = run(
        &["privacy.mode=local", "privacy.noise_multiplier=4.0"],
        |settings| settings.cohort = 3,
    );
    let simulation = simulation(
        &["privacy.mode=local", "privacy.noise_multiplier=4.0"],
        |settings| {
            settings.cohort = 3;
        },
    )
    .unwrap();
    let mut turns = [0_usize; 8];
    for round in made.rounds() {
        simulation
            .choose(round.round)
            .into_iter()
            .for_each(|client| turns[client] += 1);
        let most = *turns.iter().max().unwrap();
        let spent: Rho =
            std::iter::repeat_n(Rho::local_round(4.0, Adjacency::ReplaceOne).unwrap(), most).sum();
        let expected = spent.epsilon(1e-5).unwrap();
        let found = round.epsilon.unwrap();
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }
    assert_eq!(turns.iter().sum::<usize>(), 18);
}

/// 2 epochs of 4 steps a round, for everybody; what protects single examples leaves enough to learn from.
#[test]
fn with_noise_on_gradients_the_model_learns_and_epsilon_is_that_of_one_example() {
    let made = run(&EXAMPLE, |settings| settings.rounds = 12);
    assert!(made.end().accuracy > 0.9, "{}", made.end().accuracy);
    let step = GaussianSum::new(2.0, Sampling::Poisson { rate: 0.25 }).unwrap();
    for round in made.rounds() {
        let all = Composition::new(Adjacency::AddRemove)
            .repeat(step, 8 * round.round)
            .unwrap();
        let [tight, loose] =
            [Accountant::Pld, Accountant::Rdp].map(|by| all.epsilon(by, 1e-5).unwrap().epsilon);
        let found = round.epsilon.unwrap();
        // The accountant of Rényi curves tries more orders, and both are above the true ε.
        assert!(
            found > tight && found >= loose && found < 1.05 * loose,
            "{tight} {found} {loose}"
        );
    }
    // The control: the same coins with hardly any noise end elsewhere.
    let mut quiet = EXAMPLE;
    quiet[1] = "privacy.noise_multiplier=0.011";
    assert_ne!(
        run(&quiet, |settings| settings.rounds = 12).end().model,
        made.end().model
    );
}

const CENTRAL: [&str; 5] = [
    "privacy.mode=central",
    "privacy.noise_multiplier=4.0",
    "privacy.adjacency=add-remove",
    "privacy.delta=1e-5",
    "update.clip_l2=10.0",
];

#[test]
fn a_tree_over_rounds_is_of_the_seed_and_lets_nobody_in_twice_within_its_separation() {
    let overrides = [
        &CENTRAL[..],
        &[
            "privacy.mechanism=tree-aggregation",
            "privacy.tree.restart_every=4",
            "privacy.tree.min_separation=2",
        ],
    ]
    .concat();
    let with = |seed, threads| {
        run(&overrides, |settings| {
            (settings.seed, settings.threads, settings.cohort, settings.rounds) = (seed, threads, 4, 6);
        })
    };
    let made = with(3, 1);
    assert_eq!(made.json, with(3, 3).json);
    assert_ne!(made.end().model, with(4, 1).end().model);
    for (round, nodes) in made.rounds().into_iter().zip([1.0, 2.0, 3.0, 8.0, 9.0, 10.0]) {
        let expected = Rho::new(nodes / 32.0).unwrap().epsilon(1e-5).unwrap();
        let found = round.epsilon.unwrap();
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    }
}

#[test]
fn noise_that_the_relay_adds_is_of_the_seed_and_costs_what_its_rounds_do() {
    let adaptive = [
        &CENTRAL[..],
        &[
            "privacy.adaptive_clip.initial_l2=0.1",
            "privacy.adaptive_clip.count_noise=10",
        ],
    ]
    .concat();
    for overrides in [&CENTRAL[..], &adaptive] {
        let with = |seed, threads| {
            run(overrides, |settings| {
                (settings.seed, settings.threads) = (seed, threads)
            })
        };
        let made = with(3, 1);
        assert_eq!(made.json, with(3, 3).json);
        assert_ne!(made.end().model, with(4, 1).end().model);
        for round in made.rounds() {
            // All eight take part in every round: s²/2z² each, add/remove.
            let spent = Rho::new(round.round as f64 / 32.0).unwrap();
            let (found, expected) = (round.epsilon.unwrap(), spent.epsilon(1e-5).unwrap());
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
            assert!(round.clip_l2.unwrap() > 0.0);
        }
    }
    // The control: next to no noise gives nearly the model without any.
    let quiet = run(
        &[&CENTRAL[..], &["privacy.noise_multiplier=0.0001"]].concat(),
        |_| (),
    );
    let plain = run(&["update.clip_l2=10.0"], |_| ());
    let loss = |made: &Made| made.rounds().last().unwrap().loss.unwrap();
    assert!((loss(&quiet) - loss(&plain)).abs() < 1e-2);
}

#[test]
fn clients_that_take_turns_are_in_equally_many_rounds() {
    let simulation = |cohort, turns| {
        simulation(&[], |settings| {
            (settings.cohort, settings.turns) = (cohort, turns)
        })
    };
    let turning = simulation(2, true).unwrap();
    let mut turns = [0; 8];
    for round in 1..=12 {
        turning
            .choose(round)
            .into_iter()
            .for_each(|client| turns[client] += 1);
        if round % 4 == 0 {
            assert_eq!(turns, [round / 4; 8]);
        }
    }
    assert_ne!(
        turning.choose(1),
        turning.choose(5),
        "each pass has an order of its own"
    );
    assert!(matches!(simulation(3, true), Err(SimulateError::Settings(_))));
}

#[test]
fn weights_are_numbers_of_examples() {
    let weighted = run(
        &[
            "strategy.aggregation.type=weighted-mean",
            "strategy.aggregation.max_weight=30",
        ],
        |_| {},
    );
    assert!(weighted.end().accuracy > 0.9);
    assert_ne!(weighted.end().model, run(&[], |_| {}).end().model);
}

/// Two of eight clients attack, from the first round on. What an attack leaves of the held-out accuracy is the least over the
/// last two rounds: a mean that is thrown about may be right once.
#[test]
fn under_attack_robust_rules_stay_near_the_honest_baseline_and_the_mean_fails() {
    let accuracy = |rule: &[&str], attack: Option<Attack>| {
        let made = run(rule, |settings| {
            settings.attack = attack.map(|attack| (attack, 2))
        });
        let rounds = made.rounds();
        let last = rounds[rounds.len() - 2..]
            .iter()
            .filter_map(|round| round.accuracy);
        last.fold(1.0, f64::min)
    };
    let honest = accuracy(&[], None);
    let away = Attack::Scale(-1000.0);
    let mean = accuracy(&[], Some(away));
    assert!(mean < honest - 0.2, "the control: {mean}, honest {honest}");
    let rules: [&[&str]; 6] = [
        &["strategy.aggregation.type=coordinate-median"],
        &[
            "strategy.aggregation.type=trimmed-mean",
            "strategy.aggregation.trim=2",
        ],
        &[
            "strategy.aggregation.type=krum",
            "strategy.aggregation.byzantine=2",
        ],
        &[
            "strategy.aggregation.type=multi-krum",
            "strategy.aggregation.byzantine=2",
            "strategy.aggregation.chosen=4",
        ],
        &["strategy.aggregation.type=geometric-median"],
        &[
            "strategy.aggregation.type=centred-clipping",
            "strategy.aggregation.radius_l2=0.5",
        ],
    ];
    for rule in rules {
        for attack in [
            Attack::SignFlip,
            away,
            Attack::Scale(1000.0),
            Attack::LittleIsEnough,
        ] {
            let found = accuracy(rule, Some(attack));
            assert!(
                found > honest - 0.05,
                "{rule:?} {attack}: {found}, honest {honest}"
            );
        }
    }
}

#[test]
fn it_stops_where_it_was_told_to() {
    let all = run(&[], |_| {});
    let goal = all.rounds()[2].accuracy.unwrap();
    let first = all
        .rounds()
        .iter()
        .position(|round| round.accuracy >= Some(goal))
        .unwrap();
    let stopped = run(&[], |settings| settings.stop_at = Some(goal));
    assert_eq!(stopped.rounds().len(), first + 1);
}

#[test]
fn a_cohort_that_cannot_be_is_refused() {
    let refused = |overrides: &[&str], cohort| {
        let made = simulation(overrides, |settings| settings.cohort = cohort);
        made.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(&[], 9).contains("cannot be chosen from 8 clients"));
    assert!(refused(&[], 0).contains("cannot be chosen"));
    let krum = [
        "strategy.aggregation.type=krum",
        "strategy.aggregation.byzantine=2",
    ];
    assert!(refused(&krum, 6).contains("needs at least 7 updates"));
    let crowd = |malicious| {
        let made = simulation(&[], |it| it.attack = Some((Attack::SignFlip, malicious)));
        made.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(crowd(8), "");
    assert_eq!(crowd(9), "9 malicious clients are more than the 8 that there are");
}

/// Seeded noise protects nobody: outside of tests, nothing that ships makes a generator from a seed but the simulator's private
/// module, the demo's public splits, the engine's orders and weights, and the client's generator, which the platform seeds.
#[test]
fn only_the_simulator_seeds_a_generator_that_makes_noise() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Beside the simulator: generators that the platform seeds (the client's, the command that writes samples), and those of
    // what protects nobody (the order of examples, dropout, splits of demo data).
    let allowed = [
        "crate/src/lots.rs",
        "crate/src/random.rs",
        "crate/engine/src/dfdx/mod.rs",
        "crate/engine/src/order.rs",
        "server/src/cli/privacy.rs",
        "server/src/data/partition.rs",
        "server/src/randomness.rs",
        "server/src/simulate/partition.rs",
        "server/src/simulate/random.rs",
    ];
    let mut open: Vec<_> = [
        "crate/src",
        "crate/engine/src",
        "crate/privacy/src",
        "crate/protocol/src",
        "server/src",
    ]
    .map(|folder| root.join(folder))
    .into();
    let (mut seen, mut found) = (0, Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if !name.ends_with(".rs") || name.ends_with("tests.rs") || name.contains("/tests/") {
                continue;
            }
            seen += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let shipped = text.split("mod tests {").next().unwrap();
            let code = shipped
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            if code
                .into_iter()
                .any(|line| line.contains("from_seed(") || line.contains("seed_from_u64("))
            {
                found.push(name);
            }
        }
    }
    assert!(seen > 100, "{seen} files");
    found.sort();
    let mut allowed = allowed.map(str::to_owned);
    allowed.sort();
    assert_eq!(found, allowed);
}
