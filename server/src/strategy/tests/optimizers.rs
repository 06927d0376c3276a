//! Server optimisers, beside what was computed from the papers in another way.

use super::*;

const ADAM: ServerOptimizer = ServerOptimizer::FedAdam {
    learning_rate: 0.1,
    beta1: 0.9,
    beta2: 0.99,
    tau: 1e-3,
};

const YOGI: ServerOptimizer = ServerOptimizer::FedYogi {
    learning_rate: 0.1,
    beta1: 0.9,
    beta2: 0.99,
    tau: 1e-3,
};

/// What `tests/strategies/optimizers.py` computed from the papers in another way: sums over all rounds, in 60 decimal digits.
#[derive(Debug, Deserialize)]
struct Computed {
    directions: Vec<f64>,
    optimizers: Vec<ComputedPath>,
}

#[derive(Debug, Deserialize)]
struct ComputedPath {
    server: ServerOptimizer,
    /// x after each round, from x = 0.
    path: Vec<f64>,
}

#[test]
fn each_server_optimiser_goes_the_way_that_was_computed_elsewhere() {
    let computed: Computed =
        serde_json::from_str(include_str!("../../../../tests/strategies/optimizers.json")).unwrap();
    assert_eq!(computed.optimizers.len(), 5);
    for ComputedPath { server, path } in computed.optimizers {
        let strategy = Strategy {
            server,
            ..Strategy::default()
        };
        let mut memory = strategy.fresh(2);
        let mut x = vec![0.0, 1.0];
        assert_eq!(path.len(), computed.directions.len());
        for (round, (&direction, expected)) in computed.directions.iter().zip(path).enumerate() {
            x = server.step(&x, &[direction, -direction], &mut memory.values);
            assert!(
                (x[0] + x[1] - 1.0).abs() < 1e-6,
                "each coordinate by itself: {x:?}"
            );
            // Eight rounds, each rounding x, m and v to f32 (relative error 2⁻²⁴) once.
            let tolerance = 64.0 * 2f64.powi(-24) * expected.abs().max(1.0);
            assert!(
                (f64::from(x[0]) - expected).abs() < tolerance,
                "{server:?} round {round}: {} {expected}",
                x[0]
            );
        }
    }
}

#[test]
fn the_first_step_of_fed_adam_is_what_paper_and_pencil_give() {
    let x = ADAM.step(&[0.0], &[0.1], &mut ADAM.fresh(1));
    // m = 0.1·0.1, v = 0.99·10⁻⁶ + 0.01·0.01, x = 0.1·m/(√v + 0.001)
    let expected = 0.1 * 0.01 / (1.0099e-4_f64.sqrt() + 1e-3);
    assert!((f64::from(x[0]) - expected).abs() < 1e-8, "{x:?} {expected}");
    assert!((expected - 0.0905).abs() < 1e-4);
}

#[test]
fn fed_avg_of_step_size_one_adds_the_mean() {
    let rule = Aggregation::Mean {};
    let mut updates = Gathered::none(&rule, 2);
    for (id, update) in [(1, vec![4, -8]), (2, vec![2, 0])] {
        updates.add(&rule, UpdateId::from_bytes([id; 16]), update, 0, 0.5);
    }
    let strategy = Strategy::default();
    let next = strategy.next_model(&[1.0, 1.0], &updates, 0.5, &mut strategy.fresh(2));
    assert_eq!(next, [2.5, -1.0]);
}

#[test]
fn a_memory_is_taken_over_by_its_own_kind_only() {
    let adam = Strategy {
        server: ADAM,
        ..Strategy::default()
    };
    let mut kept = adam.fresh(3);
    kept.values[1] = 7.0;
    assert_eq!(adam.recall(Some(&kept), 3), kept);
    assert_eq!(adam.recall(Some(&kept), 4), adam.fresh(4), "another model");
    let yogi = Strategy {
        server: YOGI,
        ..Strategy::default()
    };
    assert_eq!(yogi.recall(Some(&kept), 3), yogi.fresh(3));
    let clipping = Strategy {
        aggregation: EVERY_RULE[10],
        ..adam
    };
    assert_eq!(clipping.fresh(3).values.len(), 9, "the last direction, m and v");
    assert_eq!(clipping.recall(Some(&kept), 3), clipping.fresh(3));
}
