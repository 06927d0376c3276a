//! How a round closes: the next model, or an older one.

use unsaid_protocol::{ContentHash, RoundMetrics};

use super::{Live, TaskConfig};
use crate::{
    actor::{OlderModel, RolledBack},
    central,
    gather::Gathered,
    lineage::{Lineage, RoundRecord},
    round::Refusal,
    store::Changes,
    strategy::Memory,
};

impl Live {
    pub(super) fn publish(&mut self, config: &TaskConfig, now_ms: u64, changes: &mut Changes) {
        self.settle(config, changes);
        self.add_up(config);
        let mut memory = self.memory.clone();
        let made = self.total().and_then(|total| {
            let control = self.next_control(config, &total);
            let (parameters, private) = self.next(config, &total, &mut memory)?;
            if parameters.iter().chain(&control).any(|value| !value.is_finite()) {
                return Err("a parameter is not a finite number".to_owned());
            }
            let bytes = config.write(&parameters, &control);
            let bytes = bytes.map_err(|error| error.to_string())?;
            Ok((parameters, control, private, bytes))
        });
        let (parameters, control, private, bytes) = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(%error, "the next model cannot be published; the round stays open");
                self.rounds.put_off(now_ms);
                return;
            }
        };
        let model = ContentHash::of(&bytes);
        self.private = private;
        let parent = self.rounds.model();
        let mut metrics = self.rounds.publish(model, bytes.len() as u64, now_ms);
        metrics.privacy = self.figures(config);
        self.spent = self.spent + config.cost;
        tracing::info!(
            task = %config.manifest.task, round = metrics.round, clients = metrics.clients, duration_ms = metrics.duration_ms,
            "published"
        );
        changes.models.push((model, bytes));
        changes.rounds.push(self.record(config, metrics, parent));
        changes.updates.clear(); // those that came in the very commit that closes their round are never written
        changes.memory = Some(memory.clone());
        (self.parameters, self.control, self.memory) = (parameters, control, memory);
        self.leave_round();
    }

    /// The shared control variate that the open round makes of all that it counts; none where the task has none.
    fn next_control(&self, config: &TaskConfig, total: &Gathered) -> Vec<f32> {
        match (&config.control, total) {
            (Some(control), Gathered::Sum { sum, count }) => {
                let direction = sum.mean(*count, config.manifest.update.grid_step);
                control.next(&self.control, &direction, *count)
            }
            _ => Vec::new(),
        }
    }

    /// Goes back to an older model.
    pub(super) fn roll_back(
        &mut self,
        config: &TaskConfig,
        older: OlderModel,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<RolledBack, Refusal> {
        let OlderModel {
            round: to,
            model,
            bytes,
            parameters,
            control,
        } = older;
        let discarded = self.rounds.received();
        let mut metrics = self.rounds.roll_back(to, model, bytes.len() as u64, now_ms)?;
        // What was told stays told. A tree counts rounds, and this one has no sum.
        metrics.privacy = self.figures(config);
        if let Some(private) = &mut self.private {
            private.tree = None;
        }
        if discarded > 0 {
            self.spent = self.spent + config.cost; // those who sent them have paid
        }
        let round = metrics.round;
        tracing::info!(task = %config.manifest.task, round, to, discarded, "rolled back");
        // What the strategy remembers belongs to the models that are left.
        let memory = config.strategy.fresh(parameters.len());
        changes.models.push((model, bytes));
        changes.rounds.push(self.record(config, metrics, model));
        changes.updates.clear();
        changes.memory = Some(memory.clone());
        (self.parameters, self.control, self.memory) = (parameters, control, memory);
        self.leave_round();
        Ok(RolledBack {
            round,
            to,
            model,
            discarded,
        })
    }

    /// The parameters that the open round makes of all that it counts, and what is known of its privacy after it.
    fn next(
        &self,
        config: &TaskConfig,
        total: &Gathered,
        memory: &mut Memory,
    ) -> Result<(Vec<f32>, Option<central::State>), String> {
        let (before, strategy) = (&self.parameters, &config.strategy);
        match (&config.central, &self.private, total) {
            (Some(central), Some(state), Gathered::Sum { sum, count }) => {
                let generator = config.randomness.of(self.rounds.round());
                let mut generator =
                    generator.map_err(|error| format!("there is no randomness for the noise: {error}"))?;
                let release = central.release(sum, *count, state, &mut generator);
                let release = release.map_err(|error| error.to_string())?;
                let parameters = strategy.follow(before, &release.direction, memory);
                Ok((parameters, Some(release.state)))
            }
            // Without its noise no sum is told.
            (Some(_), _, _) => Err("the noise is for a sum, and there is none".to_owned()),
            (None, _, updates) => {
                let grid_step = config.manifest.update.grid_step;
                Ok((strategy.next_model(before, updates, grid_step, memory), None))
            }
        }
    }

    /// A published round with its lineage.
    fn record(&self, config: &TaskConfig, metrics: RoundMetrics, parent: ContentHash) -> RoundRecord {
        let lineage = Lineage {
            parent: Some(parent),
            ..Lineage::of(config, &self.spent, &metrics)
        };
        RoundRecord { metrics, lineage }
    }

    fn figures(&self, config: &TaskConfig) -> Option<unsaid_protocol::RoundPrivacy> {
        let central = config.central.as_ref()?;
        self.private.as_ref().map(|state| central.figures(state))
    }
}
