//! What is said of ε in each mode, what it comes to, and that seeded noise is the simulator's alone.

use unsaid_privacy::accounting::{Accountant, Composition, GaussianSum, Sampling};

use super::*;

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
