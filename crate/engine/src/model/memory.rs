//! What a training needs in memory, known before it begins: every buffer is planned.

use super::Model;
use crate::{EngineError, SpecError, TrainSpec, train::Settings};

/// Bytes that a training holds at its peak on the CPU, from its first step to its last. (The GPU has the same buffers, each
/// of which must fit its limits: [`EngineError::GpuLimit`].) The examples themselves are the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The parameters, those that the proximal term starts from, and SCAFFOLD's correction.
    pub parameters: u64,
    /// The batch and the values of its forward pass, with what the operations keep of it.
    pub activations: u64,
    /// The gradient of the parameters and those of the values, which share memory where one is done before another begins.
    pub gradients: u64,
    /// The optimiser's state.
    pub optimizer: u64,
}

impl Memory {
    /// All of it.
    pub const fn total(&self) -> u64 {
        let numbers = self.parameters.saturating_add(self.activations);
        numbers
            .saturating_add(self.gradients)
            .saturating_add(self.optimizer)
    }
}

impl Model {
    /// The memory that training on `examples` examples as `spec` says needs on the CPU.
    ///
    /// ```
    /// # use unsaid_engine::{LossSpec, Model, ModelSpec, OptimizerSpec, TrainSpec};
    /// let spec = ModelSpec::of([784]).dense(10).loss(LossSpec::SoftmaxCrossEntropy);
    /// let how = TrainSpec::new(1.try_into()?, 32.try_into()?, OptimizerSpec::adam(0.001));
    /// let memory = Model::new(&spec)?.memory(&how, 600)?;
    /// assert_eq!(memory.parameters, 4 * 7850);
    /// assert_eq!(memory.optimizer, 2 * 4 * 7850);
    /// // 32 examples of 784 numbers with a label each, and 10 logits for each of them.
    /// assert_eq!(memory.activations, 4 * 32 * (784 + 1 + 10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Model::check_training`].
    pub fn memory(&self, spec: &TrainSpec, examples: usize) -> Result<Memory, SpecError> {
        Ok(self.memory_of(&Settings::new(self, spec, 0, &[], &[])?, examples))
    }

    pub(crate) fn memory_of(&self, settings: &Settings, examples: usize) -> Memory {
        let bytes = |numbers: u64| numbers.saturating_mul(4);
        let sum = |lens: &mut dyn Iterator<Item = usize>| {
            lens.fold(0u64, |sum, len| sum.saturating_add(len as u64))
        };
        let rows = settings.rows(examples) as u64;
        let parameters = self.parameter_count() as u64;
        let plan = self.gradient_plan(settings);
        let values = sum(&mut self.value_lens().iter().copied());
        let kept = sum(&mut self.nodes().iter().map(|node| node.op.kept_len()));
        let targets = self.loss().targets_per_example() as u64;
        let of_values = sum(&mut plan.slot_lens.iter().copied().chain(plan.added_lens));
        // The squared norm of each example's gradient is an f64.
        let norms = if settings.clip_examples_l2.is_some() { 2 } else { 0 };
        let sums = if settings.accumulate > 1 { 2 } else { 1 };
        let copies = 1
            + u64::from(settings.adjust.proximal != 0.0)
            + u64::from(!settings.adjust.correction.is_empty());
        Memory {
            parameters: bytes(copies * parameters),
            activations: bytes(rows.saturating_mul(values.saturating_add(kept).saturating_add(targets))),
            // One more where the gradients of several batches are added up.
            gradients: bytes(
                (parameters * sums).saturating_add(rows.saturating_mul(of_values.saturating_add(norms))),
            ),
            optimizer: bytes(settings.optimizer.state_per_parameter() as u64 * parameters),
        }
    }
}

/// What is asked for without trying whether it is there.
const SMALL_BYTES: u64 = 64 << 20;

/// Refuses what is above `limit`, or what the allocator does not have in one piece: an error now, and not a crash later.
pub(crate) fn check_memory(memory: Memory, limit: u64) -> Result<(), EngineError> {
    let needed = memory.total();
    let refused = || EngineError::OutOfMemory { memory, limit };
    if needed > limit {
        return Err(refused());
    }
    if needed > SMALL_BYTES {
        let bytes = usize::try_from(needed).map_err(|_| refused())?;
        Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| refused())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::{
        Chance, Device, Examples, LossSpec, ModelSpec, OptimizerSpec, PrivateSteps, Training, Unobserved,
        backend::cpu::CpuRun,
    };

    /// As whole numbers of up to 2²⁴ may be in a sum, 128 of them leave 32 bits.
    const PRIVATE: PrivateSteps = PrivateSteps {
        steps_per_epoch: 1,
        grid_step: 1.0 / 8_388_608.0,
        bound_squared: 1 << 48,
    };

    fn image() -> Model {
        let spec = ModelSpec::of([6, 6, 1])
            .conv2d(4, [3, 3], crate::Padding::Same)
            .mark("here")
            .gelu()
            .add("here")
            .max_pool2d([2, 2])
            .flatten()
            .dense(3)
            .loss(LossSpec::SoftmaxCrossEntropy);
        Model::new(&spec).unwrap()
    }

    /// No layer is dense.
    fn windows() -> Model {
        let spec = ModelSpec::of([6, 6, 1])
            .conv2d(3, [6, 6], crate::Padding::Valid)
            .flatten()
            .loss(LossSpec::SoftmaxCrossEntropy);
        Model::new(&spec).unwrap()
    }

    fn examples(n: usize) -> Examples {
        let y = (0..n as u32).map(|i| i % 3).collect();
        Examples::new(vec![0.5; 36 * n], y, 36, 3).unwrap()
    }

    fn training(batch: u32) -> TrainSpec {
        TrainSpec::new(
            1.try_into().unwrap(),
            batch.try_into().unwrap(),
            OptimizerSpec::adam(0.01),
        )
    }

    /// The plan is what is really allocated, to the byte, for batches smaller and larger than the data.
    #[test]
    fn the_memory_reported_is_the_memory_held() {
        let model = image();
        for (batch, accumulate, n) in [(1, 1, 5), (4, 1, 5), (32, 1, 5), (2, 2, 5)] {
            for clip_examples_l2 in [None, Some(1.0)] {
                let (spec, examples) = (
                    TrainSpec {
                        clip_examples_l2,
                        accumulate: accumulate.try_into().unwrap(),
                        ..training(batch)
                    },
                    examples(n),
                );
                let parameters = model.initial_parameters(1);
                let settings = Settings::new(&model, &spec, 0, &parameters, &[]).unwrap();
                let state = settings.optimizer.fresh_state(parameters.len());
                let mut run = CpuRun::new(&model, &examples, &settings, parameters, state);
                let rows: Vec<u32> = (0..(batch * accumulate).min(n as u32)).collect();
                run.step(&rows, settings.numbers(1, 1, 0));
                assert_eq!(
                    run.bytes(),
                    model.memory(&spec, n).unwrap().total(),
                    "{batch} {accumulate} {clip_examples_l2:?}"
                );
            }
        }
    }

    /// As how many examples there are at most is not public, nor how many are in a lot, private training holds what it was taken to hold
    /// whatever the lot: empty, or so large that its sum is beyond 32 bits.
    #[test]
    fn the_memory_of_private_training_is_that_held_whatever_the_lot() {
        // Examples are computed beside each other where a layer is dense, and only there.
        for (model, at_once) in [(image(), 16), (windows(), 1)] {
            let spec = TrainSpec {
                clip_examples_l2: Some(1.0),
                ..training(4)
            };
            let parameters = model.initial_parameters(1);
            let many = examples(300);
            let settings = Training::new(&model, &many, &spec)
                .private_settings(&parameters, PRIVATE)
                .unwrap();
            let noise = vec![0; parameters.len()];
            let state = settings.optimizer.fresh_state(parameters.len());
            let mut run = CpuRun::new(&model, &many, &settings, parameters, state);
            let needed = model.private_memory(&settings).total();
            let mut rows = 0;
            for lot in [0, 1, 16, 300, 0, 1] {
                let lot: Vec<u32> = (0..lot).collect();
                run.private_step(&lot, &noise, settings.numbers(1, 1, 0));
                let held = run.bytes() + 4 * noise.len() as u64;
                // Of the examples there are those that were computed last, which may be fewer than there is room for.
                rows = lot.chunks(at_once).last().map_or(rows, <[u32]>::len);
                let absent = 4 * (at_once - rows) as u64 * (36 + 1);
                assert_eq!(held + absent, needed, "{}", lot.len());
            }
        }
    }

    /// Whether it is refused has nothing to do with the examples.
    #[test]
    fn private_training_above_its_limit_is_refused_however_many_examples_there_are() {
        struct Everybody;
        impl Chance for Everybody {
            fn lot(&mut self, _: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
                lot.extend(0..examples);
                Ok(())
            }
            fn noise(&mut self, _: u32, noise: &mut [i32]) -> Result<(), EngineError> {
                noise.fill(0);
                Ok(())
            }
        }
        let model = image();
        let spec = TrainSpec {
            clip_examples_l2: Some(1.0),
            ..training(4)
        };
        let start = model.initial_parameters(1);
        for examples in [Examples::none(36, 3), examples(1), examples(300)] {
            let training = Training::new(&model, &examples, &spec);
            let settings = training.private_settings(&start, PRIVATE).unwrap();
            let memory = model.private_memory(&settings);
            let run = |limit: u64| {
                let training = training.memory_limit(limit);
                block_on(training.run_private(&start, PRIVATE, &mut Everybody, &Device::Cpu, &mut Unobserved))
            };
            assert!(run(memory.total()).is_ok());
            let limit = memory.total() - 1;
            assert_eq!(
                run(limit).unwrap_err(),
                EngineError::OutOfMemory { memory, limit }
            );
        }
    }

    #[test]
    fn a_training_above_its_limit_is_refused_with_the_numbers_and_one_at_it_runs() {
        let (model, examples, spec) = (image(), examples(8), training(4));
        let memory = model.memory(&spec, 8).unwrap();
        let start = model.initial_parameters(1);
        let run = |limit: u64| {
            let training = Training::new(&model, &examples, &spec).memory_limit(limit);
            block_on(training.run(&start, &Device::Cpu, &mut Unobserved))
        };
        assert!(run(memory.total()).is_ok());
        let limit = memory.total() - 1;
        let error = run(limit).unwrap_err();
        assert_eq!(error, EngineError::OutOfMemory { memory, limit });
        let text = error.to_string();
        assert!(
            text.contains(&memory.total().to_string()) && text.contains(&limit.to_string()),
            "{text}"
        );
    }

    #[test]
    fn what_no_machine_has_is_an_error_and_no_crash() {
        let huge = Memory {
            parameters: 1 << 60,
            activations: 1 << 60,
            gradients: 1 << 60,
            optimizer: 1 << 60,
        };
        assert!(matches!(
            check_memory(huge, u64::MAX),
            Err(EngineError::OutOfMemory { .. })
        ));
        let most = Memory {
            parameters: u64::MAX,
            activations: u64::MAX,
            ..huge
        };
        assert_eq!(most.total(), u64::MAX);
        assert!(check_memory(most, u64::MAX).is_err());
    }
}
