//! Control variates that travel as one vector, beside the paper's two.

use unsaid_engine::control_variate_after;

use super::*;

/// What `tests/strategies/scaffold.py` computed: the paper's algorithm, whose clients send two vectors.
#[derive(Debug, Deserialize)]
struct TwoVectors {
    population: NonZeroU32,
    steps: f64,
    learning_rate: f64,
    grid_step: f64,
    rounds: Vec<TwoVectorRound>,
}

#[derive(Debug, Deserialize)]
struct TwoVectorRound {
    model: Vec<f32>,
    control: Vec<f32>,
    updates: Vec<TwoVectorUpdate>,
    model_after: Vec<f32>,
    control_after: Vec<f32>,
}

#[derive(Debug, Deserialize)]
struct TwoVectorUpdate {
    own_before: Vec<f32>,
    coordinates: Vec<i32>,
    own_after: Vec<f32>,
}

fn two_vectors() -> (Strategy, scaffold::Control, TwoVectors) {
    let vectors = include_str!("../../../../tests/vectors/v1/control-variates.json");
    let vectors: TwoVectors = serde_json::from_str(vectors).unwrap();
    let population = vectors.population;
    let strategy = Strategy {
        aggregation: Aggregation::Scaffold { population },
        ..Strategy::default()
    };
    let reach = vectors.steps * vectors.learning_rate;
    (strategy, scaffold::Control { population, reach }, vectors)
}

/// All numbers of the vectors are exact as 32-bit floats, and so is each step between them.
#[test]
fn one_vector_and_the_sum_give_what_the_papers_two_vectors_give() {
    let (strategy, control, vectors) = two_vectors();
    assert_eq!(vectors.rounds.len(), 5);
    for round in &vectors.rounds {
        let mut updates = Gathered::none(&strategy.aggregation, 2);
        for (id, update) in (0..).zip(&round.updates) {
            let id = UpdateId::from_bytes([id; 16]);
            updates.add(
                &strategy.aggregation,
                id,
                update.coordinates.clone(),
                0,
                vectors.grid_step,
            );
            let change: Vec<f32> = update
                .coordinates
                .iter()
                .map(|&k| k as f32 * vectors.grid_step as f32)
                .collect();
            let own = control_variate_after(&update.own_before, &round.control, change, control.reach);
            assert_eq!(own, update.own_after);
        }
        let Gathered::Sum { sum, count } = &updates else {
            panic!("a sum is enough")
        };
        let next = control.next(&round.control, &sum.mean(*count, vectors.grid_step), *count);
        assert_eq!(next, round.control_after);
        let mut memory = strategy.fresh(2);
        let model = strategy.next_model(&round.model, &updates, vectors.grid_step, &mut memory);
        assert_eq!(model, round.model_after);
    }
    // The control: with another K or another N it is another variate.
    let (round, direction) = (&vectors.rounds[1], [0.5, -0.25]);
    let found = control.next(&round.control, &direction, 2);
    let other_steps = scaffold::Control {
        reach: 2.0 * control.reach,
        ..control
    };
    let other_population = scaffold::Control {
        population: NonZeroU32::MAX,
        ..control
    };
    for other in [other_steps, other_population] {
        assert_ne!(other.next(&round.control, &direction, 2), found);
    }
}
