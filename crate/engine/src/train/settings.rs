//! A training spec, checked against a model.

use std::ops::Range;

use crate::{
    Examples, Model, PADDING, ScheduleSpec, SpecError, TrainSpec,
    optim::{Optimizer, StepNumbers, adjust::Adjust, in_range, lot::Lot, schedule},
    order::{epoch_order, step_key},
};

/// The most examples that the steps of a training visit where their number is fixed: a bound on what a task can make a device hold.
const MAX_VISITS: u64 = 1 << 20;

/// What does not change during a training.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub epochs: u32,
    pub batch: usize,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// Examples that an epoch visits, where that is not each of them once.
    pub visits: Option<usize>,
    pub shuffle: bool,
    pub optimizer: Optimizer,
    pub schedule: ScheduleSpec,
    pub adjust: Adjust,
    /// The parts of the flat vector that learn, in order, none touching the next.
    pub trainable: Vec<Range<usize>>,
    pub clip_examples_l2: Option<f32>,
    /// Where training is private for each example.
    pub private: Option<Private>,
    pub seed: u64,
    /// Steps that earlier trainings took with the same optimiser state.
    pub steps_before: u32,
}

/// What is different where training is private for each example.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Private {
    /// What a step's gradients are counted with.
    pub lot: Lot,
    /// Examples whose values the CPU computes beside each other.
    pub rows: usize,
    /// Steps of an epoch: a GPU keeps a loss for each.
    #[cfg(feature = "gpu")]
    pub steps: usize,
}

impl Model {
    /// Checks a training spec for this model, without training.
    ///
    /// # Errors
    /// [`SpecError`] with the field that is out of range, or the tensor that is not there.
    pub fn check_training(&self, spec: &TrainSpec) -> Result<(), SpecError> {
        Settings::new(self, spec, 0, &[], &[]).map(|_| ())
    }
}

impl Settings {
    /// Checks `spec` for `model`; `start` are the parameters that training begins with, `correction` is SCAFFOLD's, or empty.
    pub fn new(
        model: &Model,
        spec: &TrainSpec,
        seed: u64,
        start: &[f32],
        correction: &[f32],
    ) -> Result<Self, SpecError> {
        if let Some(clip) = spec.clip_examples_l2 {
            in_range("clip_examples_l2", clip, clip > 0.0, "a finite number above 0")?;
        }
        Ok(Self {
            epochs: spec.epochs.get(),
            batch: spec.batch_size.get() as usize,
            accumulate: spec.accumulate.get() as usize,
            visits: spec.visits()?,
            shuffle: spec.shuffle,
            optimizer: Optimizer::new(&spec.optimizer)?,
            schedule: schedule::check(spec.schedule)?,
            adjust: Adjust::new(spec, start, correction)?,
            trainable: trainable(model, &spec.freeze)?,
            clip_examples_l2: spec.clip_examples_l2,
            private: None,
            seed,
            steps_before: 0,
        })
    }

    /// Settings that only compute gradients.
    pub fn gradient_only(model: &Model, clip_examples_l2: Option<f32>) -> Self {
        Self {
            epochs: 1,
            batch: usize::MAX,
            accumulate: 1,
            visits: None,
            shuffle: false,
            optimizer: Optimizer::default(),
            schedule: ScheduleSpec::Constant,
            adjust: Adjust::default(),
            trainable: std::iter::once(0..model.parameter_count()).collect(),
            clip_examples_l2,
            private: None,
            seed: 0,
            steps_before: 0,
        }
    }

    /// Whether any of the parameters in `range` learns.
    pub fn learns(&self, range: &Range<usize>) -> bool {
        let overlaps = |part: &Range<usize>| part.start < range.end && range.start < part.end;
        self.trainable.iter().any(overlaps)
    }

    /// Of how many of `examples` the CPU computes the values at once.
    pub fn rows(&self, examples: usize) -> usize {
        match &self.private {
            Some(private) => examples.min(private.rows),
            None => self.batch.min(self.visits(examples)),
        }
    }

    /// Examples of a step.
    pub const fn step_len(&self) -> usize {
        self.batch.saturating_mul(self.accumulate)
    }

    /// How many of `examples` an epoch visits.
    pub fn visits(&self, examples: usize) -> usize {
        self.visits.unwrap_or(examples)
    }

    /// Which of `examples` (at least one) an epoch, from 1, visits, in order.
    pub fn order(&self, examples: usize, epoch: u32) -> Vec<u32> {
        let visits = self.visits(examples);
        let before = u64::from(epoch - 1) * visits as u64;
        let mut pass = (before / examples as u64) as u32;
        let first = (before % examples as u64) as usize;
        let mut order = Vec::new();
        while order.len() < first + visits {
            let of_pass: Vec<u32> = if self.shuffle {
                epoch_order(examples, self.seed, pass)
            } else {
                (0..examples as u32).collect()
            };
            order.extend_from_slice(&of_pass);
            pass += 1;
        }
        order[first..first + visits].to_vec()
    }

    /// The numbers of `step` (from 0) of `epoch` (from 1), where an epoch has `steps`. The key is that of its first batch.
    pub fn numbers(&self, epoch: u32, steps: usize, step: usize) -> StepNumbers {
        let index = (epoch - 1) * steps as u32 + step as u32;
        let factor = schedule::factor(self.schedule, index + 1, self.epochs * steps as u32);
        let key = step_key(self.seed, index.wrapping_mul(self.accumulate as u32));
        self.optimizer
            .numbers(self.steps_before.saturating_add(index + 1), factor, key)
    }

    /// What dropout draws from in batch `batch` (from 0) of the step whose first batch has `key`.
    pub const fn batch_key(key: u32, batch: usize) -> u32 {
        match batch {
            0 => key,
            _ => step_key(key as u64, batch as u32),
        }
    }

    /// The share that each batch of a step has in the step's mean loss and gradient: of the targets that count, or of the
    /// examples, where each is clipped by itself. `indices` are the examples of the step.
    pub fn shares(&self, examples: &Examples, indices: &[u32]) -> Vec<f32> {
        let targets = examples.targets_per_example();
        let counted = |&index: &u32| match self.clip_examples_l2 {
            Some(_) => 1,
            None => {
                let targets = &examples.y()[index as usize * targets..][..targets];
                targets.iter().filter(|&&target| target != PADDING).count()
            }
        };
        let counts = indices
            .chunks(self.batch)
            .map(|batch| batch.iter().map(counted).sum::<usize>());
        let all = counts.clone().sum::<usize>().max(1) as f64;
        counts.map(|count| (count as f64 / all) as f32).collect()
    }
}

impl TrainSpec {
    /// Examples that an epoch visits, where its steps are fixed.
    fn visits(&self) -> Result<Option<usize>, SpecError> {
        let Some(steps) = self.steps_per_epoch else {
            return Ok(None);
        };
        let steps = u64::from(steps.get());
        let visits = (steps * u64::from(self.batch_size.get())).saturating_mul(self.accumulate.get().into());
        if visits.saturating_mul(self.epochs.get().into()) > MAX_VISITS {
            return Err(SpecError::Training {
                field: "steps_per_epoch",
                found: steps as f64,
                expected: "so few that at most 2^20 examples are visited",
            });
        }
        Ok(Some(visits as usize))
    }
}

/// The parts of the flat vector whose tensors' names begin with none of `freeze`.
fn trainable(model: &Model, freeze: &[String]) -> Result<Vec<Range<usize>>, SpecError> {
    let tensors = model.layout().tensors();
    // `layers.1` must not freeze `layers.10`.
    let hit = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if let Some(unknown) = freeze
        .iter()
        .find(|prefix| !tensors.iter().any(|tensor| hit(&tensor.name, prefix)))
    {
        return Err(SpecError::Frozen {
            name: unknown.clone(),
        });
    }
    let mut parts: Vec<Range<usize>> = Vec::new();
    for tensor in tensors {
        if freeze.iter().any(|prefix| hit(&tensor.name, prefix)) {
            continue;
        }
        match parts.last_mut() {
            Some(last) if last.end == tensor.offset => last.end = tensor.range().end,
            _ => parts.push(tensor.range()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(units: usize) -> Model {
        let spec = serde_json::json!({"input": [2], "layers": [{"type": "dense", "units": units}], "loss": "softmax-cross-entropy"});
        Model::new(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn fixed(steps: u32, batch: u32, more: serde_json::Value) -> TrainSpec {
        let mut how = serde_json::json!({
            "epochs": 2, "batch_size": batch, "steps_per_epoch": steps, "optimizer": {"type": "sgd", "learning_rate": 0.5}
        });
        for (key, value) in more.as_object().unwrap() {
            how[key] = value.clone();
        }
        serde_json::from_value(how).unwrap()
    }

    #[test]
    fn fixed_steps_visit_one_pass_after_the_other_over_all_epochs() {
        for (examples, steps, batch) in [(5, 4, 2), (1, 3, 4), (100, 2, 3), (8, 4, 2)] {
            for shuffle in [true, false] {
                let spec = fixed(steps, batch, serde_json::json!({ "shuffle": shuffle }));
                let settings = Settings::new(&dense(2), &spec, 7, &[], &[]).unwrap();
                let epochs = [1, 2].map(|epoch| settings.order(examples, epoch));
                assert!(epochs.iter().all(|it| it.len() == (steps * batch) as usize));
                let visited = epochs.concat();
                for pass in visited.chunks(examples) {
                    let mut pass = pass.to_vec();
                    if !shuffle {
                        assert!(pass.iter().copied().eq(0..pass.len() as u32), "{pass:?}");
                    }
                    pass.sort_unstable();
                    pass.dedup();
                    assert!(
                        pass.len() == examples || pass.len() == visited.len() % examples,
                        "{visited:?}"
                    );
                }
            }
        }
        // Without fixed steps an epoch is a pass, as it was.
        let spec = TrainSpec {
            steps_per_epoch: None,
            ..fixed(4, 2, serde_json::json!({}))
        };
        let settings = Settings::new(&dense(2), &spec, 7, &[], &[]).unwrap();
        assert_eq!(settings.order(5, 2), epoch_order(5, 7, 1));
    }

    #[test]
    fn everyone_takes_as_many_fixed_steps() {
        let model = dense(2);
        for examples in [1, 2, 7, 40] {
            let data = Examples::new(vec![0.5; 2 * examples], vec![1; examples], 2, 2).unwrap();
            for more in [
                serde_json::json!({}),
                serde_json::json!({"accumulate": 2}),
                serde_json::json!({"clip_examples_l2": 0.5}),
            ] {
                let spec = fixed(3, 4, more);
                let start = model.initial_parameters(1);
                let training = crate::Training::new(&model, &data, &spec);
                let trained =
                    pollster::block_on(training.run(&start, &crate::Device::Cpu, &mut crate::Unobserved));
                let trained = trained.unwrap();
                assert_eq!((trained.losses.len(), trained.steps), (6, 6), "{examples}");
                // One variate for all: the learning rates are those of as many steps.
                let variate = training.control_variate(&start, &trained.parameters).unwrap();
                let moved = start[0] - variate[0] * 6.0 * 0.5;
                assert!(
                    (moved - trained.parameters[0]).abs() <= 8.0 * f32::EPSILON,
                    "{moved}"
                );
            }
        }
    }

    #[test]
    fn more_visits_than_a_device_is_to_hold_are_refused() {
        let check = |spec: &TrainSpec| dense(2).check_training(spec);
        assert_eq!(check(&fixed(1 << 17, 4, serde_json::json!({}))), Ok(()));
        for spec in [
            fixed((1 << 17) + 1, 4, serde_json::json!({})),
            fixed(
                u32::MAX,
                u32::MAX,
                serde_json::json!({"accumulate": u32::MAX, "epochs": u32::MAX}),
            ),
        ] {
            let refused = check(&spec);
            assert!(
                matches!(
                    refused,
                    Err(SpecError::Training {
                        field: "steps_per_epoch",
                        ..
                    })
                ),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn frozen_tensors_are_left_out_by_whole_names() {
        let layers = vec![serde_json::json!({"type": "dense", "units": 2}); 11];
        let spec = serde_json::json!({"input": [2], "layers": layers, "loss": "softmax-cross-entropy"});
        let model = Model::new(&serde_json::from_value(spec).unwrap()).unwrap();
        let parts = |freeze: &[&str]| {
            trainable(
                &model,
                &freeze.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(),
            )
        };
        let one = |range: Range<usize>| std::iter::once(range).collect::<Vec<_>>();
        assert_eq!(parts(&[]).unwrap(), one(0..66));
        assert_eq!(parts(&["layers.1"]).unwrap(), [0..6, 12..66]);
        assert_eq!(parts(&["layers.0", "layers.10.bias"]).unwrap(), one(6..64));
        assert_eq!(
            parts(&["layers.11"]),
            Err(SpecError::Frozen {
                name: "layers.11".into()
            })
        );
    }
}
