//! SCAFFOLD's control variates (Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
//! algorithm 1).
//!
//! A client `i` keeps a control variate `cᵢ`, `[d]`, and all clients share one, `c`; both begin as zeros. Locally every gradient
//! gets the correction `c − cᵢ` (line 10: [`Training::correction`]); afterwards the client's variate is (line 12, option II)
//!
//! `cᵢ⁺ = cᵢ − c + (x − y) / Σₖ ηₖ`
//!
//! with `x` the parameters that training began with, `y` those that it ended with, and `ηₖ` the learning rate of step `k` (`K·η`
//! where it is constant). That is the mean of the gradients that the client saw, weighted by the learning rates.
//!
//! Where K·η is the same for all clients ([`TrainSpec::reach`]), the change of a variate, `cᵢ⁺ − cᵢ = −c − (y − x) / K·η`, can be told
//! from the change of the parameters alone ([`control_variate_after`]): a client need not send it.

use super::Training;
use crate::{EngineError, OptimizerSpec, ScheduleSpec, SpecError, TrainSpec, optim::Optimizer};

impl TrainSpec {
    /// `K·η`, the steps of a training times its learning rate, where it is the same whatever a client's examples are: with SGD
    /// without momentum, at a constant rate, of a fixed number of steps. `private_steps` are those of an epoch of private training,
    /// which are fixed. None for any other training, and with a proximal term, whose pull is no gradient of the examples.
    pub fn reach(&self, private_steps: Option<u32>) -> Option<f64> {
        let steps = private_steps.or(self.steps_per_epoch.map(Into::into))?;
        match (&self.optimizer, self.schedule) {
            (
                &OptimizerSpec::Sgd {
                    learning_rate,
                    momentum,
                    ..
                },
                ScheduleSpec::Constant,
            ) if momentum == 0.0 && self.proximal == 0.0 => {
                Some(f64::from(self.epochs.get()) * f64::from(steps) * f64::from(learning_rate))
            }
            _ => None,
        }
    }
}

/// A client's control variate after a training that changed the parameters by `change`, `[d]`: `cᵢ − c − change / reach`, with `own`
/// what it was before, or empty for zeros, `shared` the shared one, and `reach` as [`TrainSpec::reach`] has it (Karimireddy et al. 2020,
/// algorithm 1, line 12, option II). Where `change` is what is left of a change that was clipped and rounded, the shared variate that
/// is made of those changes stays the mean of the clients' own.
pub fn control_variate_after(own: &[f32], shared: &[f32], mut change: Vec<f32>, reach: f64) -> Vec<f32> {
    for (at, (change, &shared)) in change.iter_mut().zip(shared).enumerate() {
        let own = own.get(at).map_or(0.0, |&own| f64::from(own));
        *change = (own - f64::from(shared) - f64::from(*change) / reach) as f32;
    }
    change
}

impl Training<'_> {
    /// SCAFFOLD's control variate of this client, `[d]`, after this very training (with the correction `c − cᵢ` that it had) went
    /// from `start` to `end`: `cᵢ⁺ = cᵢ − c + (start − end) / Σₖ ηₖ`, with `ηₖ` the learning rate of step `k` (Karimireddy et al.
    /// 2020, algorithm 1, line 12, option II). Frozen tensors keep 0 where `c` and `cᵢ` are 0.
    ///
    /// ```
    /// # use unsaid_engine::*;
    /// # pollster::block_on(async {
    /// let spec = r#"{"input": [1], "layers": [{"type": "dense", "units": 1}], "loss": "mean-squared-error"}"#;
    /// let model = Model::new(&serde_json::from_str(spec)?)?;
    /// let examples = Examples::with_values(vec![1.0], &[1.0], 1, 1)?;
    /// let how = r#"{"epochs": 1, "batch_size": 1, "optimizer": {"type": "sgd", "learning_rate": 0.25}}"#;
    /// let how: TrainSpec = serde_json::from_str(how)?;
    /// let (start, own, shared) = ([0.0, 0.0], [0.5, 0.0], [1.0, 0.0]);
    /// let correction = [shared[0] - own[0], shared[1] - own[1]];
    /// let training = Training::new(&model, &examples, &how).correction(&correction);
    /// let end = training.run(&start, &Device::Cpu, &mut Unobserved).await?.parameters;
    /// // The gradient of (w·1 + b − 1)² at 0 is −2 for both.
    /// assert_eq!(end, [0.25 * 1.5, 0.25 * 2.0]);
    /// assert_eq!(training.control_variate(&start, &end)?, [-2.0, -2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`SpecError::ControlVariate`] where the optimiser is not SGD without momentum: with others the parameters' way says nothing
    /// of the gradients. Otherwise as [`Training::run`] has them for parameters and spec.
    pub fn control_variate(&self, start: &[f32], end: &[f32]) -> Result<Vec<f32>, EngineError> {
        self.model.check_count(end)?;
        let settings = self.checked(start)?;
        match settings.optimizer {
            Optimizer::Sgd(sgd) if sgd.momentum == 0.0 => {}
            _ => return Err(SpecError::ControlVariate.into()),
        }
        let visits = settings.visits(self.examples.len());
        let steps = visits.div_ceil(settings.step_len());
        let all = (1..=settings.epochs).flat_map(|epoch| (0..steps).map(move |step| (epoch, step)));
        let rates = all.map(|(epoch, step)| f64::from(settings.numbers(epoch, steps, step).learning_rate));
        let way = 1.0 / rates.sum::<f64>();
        let correction = self.correction.iter().copied().chain(std::iter::repeat(0.0));
        let moved = start.iter().zip(end).zip(correction);
        Ok(moved
            .map(|((&x, &y), correction)| {
                ((f64::from(x) - f64::from(y)) * way - f64::from(correction)) as f32
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::control_variate_after;
    use crate::{
        Device, EngineError, Examples, LossSpec, Model, ModelSpec, SpecError, TrainSpec, Training, Unobserved,
    };

    fn problem() -> (Model, Examples) {
        let spec = ModelSpec::of([2]).dense(2).loss(LossSpec::SoftmaxCrossEntropy);
        let examples = Examples::new(vec![1.0, 0.5, -0.25, 1.0, 2.0, 0.0], vec![0, 1, 1], 2, 2);
        (Model::new(&spec).unwrap(), examples.unwrap())
    }

    fn spec(more: serde_json::Value) -> TrainSpec {
        let mut how = serde_json::json!({
            "epochs": 2, "batch_size": 2, "shuffle": false, "optimizer": {"type": "sgd", "learning_rate": 0.5}
        });
        for (key, value) in more.as_object().unwrap() {
            how[key] = value.clone();
        }
        serde_json::from_value(how).unwrap()
    }

    /// With a rate that changes, the variate is still the mean of the gradients by their rates: a training that is undone by its
    /// own variate stands still on the whole.
    #[test]
    fn a_schedule_weighs_the_steps() {
        let (model, examples) = problem();
        let start = model.initial_parameters(1);
        for schedule in [
            serde_json::json!({"type": "constant"}),
            serde_json::json!({"type": "step", "every": 1, "factor": 0.5}),
        ] {
            let spec = spec(serde_json::json!({"schedule": schedule}));
            let training = Training::new(&model, &examples, &spec);
            let end = block_on(training.run(&start, &Device::Cpu, &mut Unobserved)).unwrap();
            let variate = training.control_variate(&start, &end.parameters).unwrap();
            let rates: f32 = match spec.schedule {
                crate::ScheduleSpec::Constant => 4.0 * 0.5,
                _ => 0.5 * (1.0 + 0.5 + 0.25 + 0.125),
            };
            for ((start, end), variate) in start.iter().zip(&end.parameters).zip(&variate) {
                // The quotient and the product are each rounded once, on numbers of the size of a move.
                assert!(
                    (start - variate * rates - end).abs() <= 4.0 * f32::EPSILON,
                    "{schedule}"
                );
            }
        }
    }

    /// Told from the change of the parameters alone, it is the one that is told from the training.
    #[test]
    fn the_change_of_the_parameters_tells_the_variate() {
        let (model, examples) = problem();
        let start = model.initial_parameters(1);
        let (own, shared) = (model.initial_parameters(2), model.initial_parameters(3));
        let correction: Vec<f32> = shared
            .iter()
            .zip(&own)
            .map(|(shared, own)| shared - own)
            .collect();
        let spec = spec(serde_json::json!({"steps_per_epoch": 3, "weight_decay": 0.5}));
        let training = Training::new(&model, &examples, &spec).correction(&correction);
        let end = block_on(training.run(&start, &Device::Cpu, &mut Unobserved)).unwrap();
        let expected = training.control_variate(&start, &end.parameters).unwrap();
        let change: Vec<f32> = end
            .parameters
            .iter()
            .zip(&start)
            .map(|(end, start)| end - start)
            .collect();
        assert_eq!(spec.reach(None), Some(2.0 * 3.0 * 0.5));
        let found = control_variate_after(&own, &shared, change, 3.0);
        for (found, expected) in found.iter().zip(&expected) {
            // A difference of numbers below 2 that was rounded once, each time.
            assert!(
                (found - expected).abs() <= 4.0 * f32::EPSILON,
                "{found} {expected}"
            );
        }
        let without = control_variate_after(&[], &[1.0, 2.0], vec![0.5, -1.0], 0.5);
        assert_eq!(without, [-2.0, 0.0]);
    }

    #[test]
    fn a_training_that_is_not_alike_for_all_has_no_reach() {
        let fixed = |more: serde_json::Value| {
            let mut all = serde_json::json!({"steps_per_epoch": 3});
            for (key, value) in more.as_object().unwrap() {
                all[key] = value.clone();
            }
            spec(all)
        };
        assert_eq!(fixed(serde_json::json!({})).reach(None), Some(3.0));
        assert_eq!(spec(serde_json::json!({})).reach(None), None, "each example once");
        assert_eq!(spec(serde_json::json!({})).reach(Some(4)), Some(4.0), "lots");
        for more in [
            serde_json::json!({"optimizer": {"type": "sgd", "learning_rate": 0.5, "momentum": 0.5}}),
            serde_json::json!({"optimizer": {"type": "adam", "learning_rate": 0.5}}),
            serde_json::json!({"schedule": {"type": "cosine"}}),
            serde_json::json!({"proximal": 0.5}),
        ] {
            assert_eq!(fixed(more.clone()).reach(None), None, "{more}");
        }
    }

    #[test]
    fn what_is_frozen_has_no_variate() {
        let (model, examples) = problem();
        let start = model.initial_parameters(1);
        let spec = spec(serde_json::json!({"freeze": ["layers.0.bias"]}));
        let training = Training::new(&model, &examples, &spec);
        let end = block_on(training.run(&start, &Device::Cpu, &mut Unobserved)).unwrap();
        let variate = training.control_variate(&start, &end.parameters).unwrap();
        assert_eq!(variate[4..], [0.0; 2]);
        assert!(variate[..4].iter().all(|&value| value != 0.0), "{variate:?}");
    }

    #[test]
    fn other_optimisers_and_lengths_are_refused() {
        let (model, examples) = problem();
        let start = model.initial_parameters(1);
        for optimizer in [
            serde_json::json!({"type": "sgd", "learning_rate": 0.5, "momentum": 0.5}),
            serde_json::json!({"type": "adam", "learning_rate": 0.5}),
            serde_json::json!({"type": "adagrad", "learning_rate": 0.5}),
        ] {
            let spec = spec(serde_json::json!({"optimizer": optimizer}));
            let refused = Training::new(&model, &examples, &spec).control_variate(&start, &start);
            assert_eq!(refused, Err(SpecError::ControlVariate.into()));
        }
        let spec = spec(serde_json::json!({}));
        let training = Training::new(&model, &examples, &spec);
        let short = training.control_variate(&start, &start[1..]);
        assert!(matches!(short, Err(EngineError::Weights(_))), "{short:?}");
        let correction = [0.0; 5];
        let short = training.correction(&correction).control_variate(&start, &start);
        assert!(matches!(short, Err(EngineError::Weights(_))), "{short:?}");
    }
}
