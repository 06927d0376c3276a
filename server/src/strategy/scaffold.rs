//! SCAFFOLD: the mean of updates, whose clients correct their drift by control variates.
//!
//! S. P. Karimireddy, S. Kale, M. Mohri, S. J. Reddi, S. U. Stich, A. T. Suresh, “SCAFFOLD: Stochastic Controlled Averaging for
//! Federated Learning”, ICML 2020 ([arXiv:1910.06378](https://arxiv.org/abs/1910.06378)), algorithm 1 with option II. There is a
//! shared control variate c and one cᵢ for each client, all of them zeros at first. A client adds c − cᵢ to each of its gradients, and
//! ends with cᵢ⁺ = cᵢ − c + (x − yᵢ) / Kη, where K are its steps, η its learning rate, x the model and yᵢ what it made of it. The
//! paper's clients send yᵢ − x and cᵢ⁺ − cᵢ; and c moves by |S|/N times the mean of the latter, with S the clients of the round and N
//! all that there are.
//!
//! Here K and η are the task's, the same for all clients. So cᵢ⁺ − cᵢ = −c − Δᵢ / Kη with Δᵢ = yᵢ − x, which the relay can tell itself,
//! for all clients of the round at once:
//!
//! > c⁺ = c + |S|/N · (−c − Δ̄ / Kη), Δ̄ being the mean of the updates.
//!
//! Nothing but Δᵢ is sent, and the relay needs no more than the sum. Δᵢ is what the client *sends*, clipped and on the grid, and a client
//! makes its own cᵢ of the same. So c stays the mean of all N cᵢ, whatever clipping cuts off, and the corrections of all clients stay
//! zero on the whole. Where they are not, c never forgets it: what is left pulls every client of every later round.
//!
//! c is public. It is published in the model's file (PROTOCOL.md, section 4), under one hash with the model that it belongs to.

use std::num::NonZeroU32;

use unsaid_engine::{OptimizerSpec, ScheduleSpec, TrainSpec};

use super::StrategyError;

/// What moves the shared control variate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Control {
    /// N: all clients that there are.
    pub population: NonZeroU32,
    /// Kη: [`TrainSpec::reach`].
    pub reach: f64,
}

impl Control {
    /// For clients that train as `training` says, in epochs of `private_steps` where each example is protected.
    ///
    /// # Errors
    /// [`StrategyError`] with the field, below `training`, that makes a step of one client another than a step of another.
    pub fn new(
        population: NonZeroU32,
        training: &TrainSpec,
        private_steps: Option<u32>,
    ) -> Result<Self, StrategyError> {
        let refused = |field, reason: &str| Err(StrategyError::new(field, format!("scaffold {reason}")));
        match training.optimizer {
            OptimizerSpec::Sgd { momentum: 0.0, .. } => {}
            OptimizerSpec::Sgd { .. } => {
                return refused(
                    "optimizer.momentum",
                    "needs plain SGD: with momentum a change is no sum of gradients at one rate",
                );
            }
            _ => {
                return refused(
                    "optimizer.type",
                    "needs plain SGD: of another optimiser's steps nobody can tell the gradients",
                );
            }
        }
        if training.schedule != ScheduleSpec::Constant {
            return refused(
                "schedule",
                "needs a constant learning rate: a gradient is told from a change by K times it",
            );
        }
        if training.proximal != 0.0 {
            return refused(
                "proximal",
                "corrects the drift itself: the proximal pull would be taken for a gradient of the examples",
            );
        }
        match training.reach(private_steps) {
            Some(reach) => Ok(Self { population, reach }),
            None => refused(
                "steps_per_epoch",
                "needs steps_per_epoch: with an epoch of each example once, clients take steps by their number of examples, which nobody is told",
            ),
        }
    }

    /// c⁺, `[d]`, of `control`, c, and `direction`, the mean of `count` updates in the model's units. In f64, rounded to f32 once.
    pub fn next(&self, control: &[f32], direction: &[f64], count: u32) -> Vec<f32> {
        let share = f64::from(count) / f64::from(self.population.get());
        let all = control.iter().zip(direction);
        all.map(|(&c, change)| {
            let c = f64::from(c);
            (c + share * (-c - change / self.reach)) as f32
        })
        .collect()
    }
}
