//! Simulations of a small task: 8 clients, two kinds of points in the plane, which a model of six parameters tells apart.

use rand_core::Rng;
use unsaid_engine::Examples;

use super::{random::Seed, *};

mod privacy;
mod variates;

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
