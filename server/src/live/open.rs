//! How a task is read from the store, and how it begins.

use unsaid_privacy::Cost;
use unsaid_protocol::{ContentHash, Manifest, Privacy, RoundMetrics};

use super::{Lanes, Live, TaskConfig};
use crate::{
    aggregate::PartialSum,
    central::{self, Central},
    gather::Gathered,
    identity::Standings,
    lineage::{Lineage, RoundRecord, cost_of_round, cost_of_unknown},
    round::{Head, Rounds},
    store::{Changes, Saved, StoreError, Turn},
    strategy::{Aggregation, Strategy, norm_bounding},
};

/// Why a task cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has the task with another model.
    #[error(
        "the store has this task with another model: give the changed task another id, or use another store"
    )]
    OtherModel,
    /// The grid changed while the open round held updates on the old one.
    #[error(
        "the open round holds {received} updates on a grid of {old}, and the task file now says {new}: \
         let the round close under the old task file first"
    )]
    OtherGrid {
        /// Updates that the round holds.
        received: u32,
        /// Their grid step.
        old: f64,
        /// The new one.
        new: f64,
    },
    /// The rule changed while the open round held updates that were gathered for the old one.
    #[error(
        "the open round holds {received} updates that were gathered for another aggregation rule: \
         let the round close under the old task file first"
    )]
    OtherRule {
        /// Updates that the round holds.
        received: u32,
    },
    /// Local training changed while the open round held updates of the old one, of which the rule makes its control variate.
    #[error(
        "the open round holds {received} updates of another local training, and control variates are made of both: \
         let the round close under the old task file first"
    )]
    OtherTraining {
        /// Updates that the round holds.
        received: u32,
    },
    /// The rule that makes control variates was changed, or its population, and the clients' own would not fit the task's any more.
    #[error(
        "this task has a control variate, and its clients have their own, which belong to the rule \"scaffold\" with the population that it had: \
         keep both, or give the task another id, under which all begin anew"
    )]
    OtherControl,
    /// The store takes no value as large as one of the task's.
    #[error(
        "{what} of this task takes {bytes} bytes, and the store takes {most} at most: use a file, or a smaller model"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
        /// The most.
        most: u64,
    },
    /// Another relay that shares the store runs the task under another manifest.
    #[error(
        "another relay has brought this task under the manifest {0}: start this one again with the same task file"
    )]
    OtherManifest(ContentHash),
    /// Another relay that shares the store runs the task with other shares or another budget of identities.
    #[error(
        "another relay has brought this task under other shares or another budget of identities: start this one again with the same task file"
    )]
    OtherShares,
    /// The bound of an update, the noise, or what a client is known by changed while the open round held updates under the old terms.
    #[error(
        "the open round holds {received} updates that were promised other bounds or other noise: \
         let the round close under the old task file first"
    )]
    OtherPrivacy {
        /// Updates that the round holds.
        received: u32,
    },
    /// What the store holds does not belong together.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

impl Live {
    /// Reads a task in its turn, or begins it. What is to be stored of that is put into `changes`.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(
        config: &TaskConfig,
        turn: &mut dyn Turn,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<Self, OpenError> {
        config.check_sizes(turn.most_bytes())?;
        match turn.load()? {
            Some(saved) => Self::resume(config, turn, &saved, changes),
            None => {
                let (mut live, first) = Self::first(config, now_ms)?;
                live.lanes = Lanes::begin(turn)?;
                *changes = first;
                Ok(live)
            }
        }
    }

    /// Reads a task again that this relay has opened before.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn reopen(config: &TaskConfig, turn: &mut dyn Turn) -> Result<Self, OpenError> {
        if let Some(manifest) = turn.manifest()? {
            config.check_manifest(&manifest)?; // before all that would be read for nothing
        }
        let saved = turn.load()?.ok_or_else(|| damaged("the task is gone"))?;
        config.check_manifest(&saved.manifest)?;
        config.check_shares(&saved.head)?;
        Self::resume(config, turn, &saved, &mut Changes::default())
    }

    /// Takes over what another relay did, as its store tells it.
    ///
    /// # Errors
    /// [`OpenError`]: then this is neither what it was nor what it should be.
    pub fn catch_up(
        &mut self,
        config: &TaskConfig,
        turn: &mut dyn Turn,
        saved: &Saved,
    ) -> Result<(), OpenError> {
        check_round(&saved.head)?;
        config.check_manifest(&saved.manifest)?;
        config.check_shares(&saved.head)?;
        let opened = saved.head.round != self.rounds.round();
        let (check_ins, counted) = (saved.check_ins.iter(), saved.counted.iter());
        self.rounds
            .catch_up(&saved.head, check_ins.copied(), counted.copied());
        if opened {
            (self.parameters, self.control) = newest(config, turn, &self.rounds)?;
            self.memory = config
                .strategy
                .recall(saved.memory.as_ref(), self.parameters.len());
            self.leave_round();
            self.private = private(config, turn, saved.head.tree.clone())?;
            self.spent = spent(turn, &saved.head)?;
        }
        gather_again(
            config,
            &self.rounds,
            saved,
            &mut self.updates,
            self.lanes.own.is_some(),
        )?;
        Ok(())
    }

    /// A task before its first round, and what is to be stored of it.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] where the model cannot be written.
    pub fn first(config: &TaskConfig, now_ms: u64) -> Result<(Self, Changes), OpenError> {
        let parameters = config.model.initial_parameters(config.seed);
        let control = match config.control {
            None => Vec::new(),
            Some(_) => vec![0.0; parameters.len()],
        };
        let bytes = config.write(&parameters, &control).map_err(damaged)?;
        let model = ContentHash::of(&bytes);
        let rounds = Rounds::first(config.rules(), model);
        let metrics = RoundMetrics {
            round: 0,
            model,
            clients: 0,
            checked_in: 0,
            bytes_up: 0,
            model_bytes: bytes.len() as u64,
            duration_ms: 0,
            published_at_ms: now_ms,
            accuracy: None,
            loss: None,
            rolled_back_to: None,
            privacy: None,
        };
        let lineage = Lineage::of(config, &Cost::NOTHING, &metrics);
        let changes = Changes {
            head: Some(Head {
                spent: Some((&Cost::NOTHING).into()),
                ..rounds.head()
            }),
            manifest: Some(String::from_utf8_lossy(&config.manifest_json).into_owned()),
            models: vec![(model, bytes)],
            rounds: vec![RoundRecord { metrics, lineage }],
            ..Changes::default()
        };
        let live = Self {
            rounds,
            updates: config.nothing_gathered(),
            came: Vec::new(),
            lanes: Lanes::default(),
            memory: config.strategy.fresh(parameters.len()),
            parameters,
            control,
            private: config.central.as_ref().map(Central::first),
            spent: Cost::NOTHING,
            standings: Standings::default(),
            dearest: None,
        };
        Ok((live, changes))
    }

    fn resume(
        config: &TaskConfig,
        turn: &mut dyn Turn,
        saved: &Saved,
        changes: &mut Changes,
    ) -> Result<Self, OpenError> {
        check_round(&saved.head)?;
        let task = &config.manifest.task;
        let mut tree = saved.head.tree.clone();
        let mut so_far = spent(turn, &saved.head)?;
        let mut kept = saved.head.spent.clone();
        let rounds = Rounds::resume(
            config.rules(),
            &saved.head,
            saved.check_ins.iter().copied(),
            saved.counted.iter().copied(),
        );
        if saved.manifest.as_bytes() != config.manifest_json {
            let old = Manifest::from_json(saved.manifest.as_bytes()).map_err(damaged)?;
            if old.model != config.manifest.model {
                return Err(OpenError::OtherModel);
            }
            let received = rounds.received();
            let now = &config.manifest;
            let promised = |it: &Manifest| {
                let central = matches!(it.privacy, Privacy::Central(_));
                // Under an identity a client has another name: it could be counted once more.
                let terms = (
                    it.privacy,
                    it.update.clip_l2,
                    it.rounds.target_clients,
                    it.identity,
                );
                central.then_some(terms)
            };
            if received > 0 && promised(&old) != promised(now) {
                return Err(OpenError::OtherPrivacy { received });
            }
            // The open round is paid for when it closes, by the terms of then; what it holds was made under these.
            let cost = cost_of_round(&old);
            if received > 0 && cost != config.cost {
                so_far = so_far + cost;
                kept = Some((&so_far).into());
            }
            let (strategy, training) = (old.strategy, old.training);
            let (old, new) = (old.update.grid_step, now.update.grid_step);
            if received > 0 && old != new {
                return Err(OpenError::OtherGrid { received, old, new });
            }
            let old: Strategy = match strategy {
                Some(strategy) => serde_json::from_value(strategy).map_err(damaged)?,
                None => Strategy::default(),
            };
            if received > 0 && old.aggregation != config.strategy.aggregation {
                return Err(OpenError::OtherRule { received });
            }
            // The other's clients keep theirs, and what they send goes by it: c and their mean would be apart for good.
            let keeps = |aggregation: &Aggregation| matches!(aggregation, Aggregation::Scaffold { .. });
            if keeps(&old.aggregation) && old.aggregation != config.strategy.aggregation && rounds.round() > 0
            {
                return Err(OpenError::OtherControl);
            }
            if received > 0 && config.control.is_some() && training != now.training {
                return Err(OpenError::OtherTraining { received });
            }
            changes.manifest = Some(String::from_utf8_lossy(&config.manifest_json).into_owned());
            // In the same transaction: a tree ends with its terms.
            changes.head = Some(Head {
                spent: kept.clone(),
                ..rounds.head()
            });
            tree = None;
            tracing::info!(%task, manifest = %config.manifest_hash, "the task goes on under another manifest");
        }
        if config.check_shares(&saved.head).is_err() {
            changes.head = Some(Head {
                tree: tree.clone(),
                spent: kept,
                ..rounds.head()
            });
            tracing::info!(%task, "the task goes on with other shares or another budget of identities");
        }
        let (parameters, control) = newest(config, turn, &rounds)?;
        let lanes = Lanes::begin(turn)?;
        let mut updates = config.nothing_gathered();
        gather_again(config, &rounds, saved, &mut updates, lanes.own.is_some())?;
        Ok(Self {
            private: private(config, turn, tree)?,
            spent: so_far,
            standings: Standings::default(),
            dearest: None,
            updates,
            came: Vec::new(),
            lanes,
            memory: config.strategy.recall(saved.memory.as_ref(), parameters.len()),
            rounds,
            parameters,
            control,
        })
    }
}

/// Rounds are numbered one by one from 0: no task has come so far, and none is counted on from there.
fn check_round(head: &Head) -> Result<(), OpenError> {
    const MOST: u64 = 1 << 62;
    if head.round > MOST {
        return Err(damaged(format!("the open round is number {}", head.round)));
    }
    Ok(())
}

/// What is known of the privacy of the rounds that were published, with the tree that goes on; none where the relay adds no noise.
fn private(
    config: &TaskConfig,
    turn: &mut dyn Turn,
    tree: Option<central::Tree>,
) -> Result<Option<central::State>, OpenError> {
    let Some(central) = &config.central else {
        return Ok(None);
    };
    let published = turn.rounds()?;
    let last = published.iter().rev().find_map(|round| round.privacy);
    // Under other terms of the task: what those updates cost is not known here.
    let otherwise = published
        .iter()
        .any(|round| round.clients > 0 && round.privacy.is_none());
    let resumed = central.resume(last.as_ref(), tree, otherwise);
    resumed.map(Some).map_err(damaged)
}

/// What the rounds that were published cost by noise that clients added.
fn spent(turn: &mut dyn Turn, head: &Head) -> Result<Cost, OpenError> {
    match &head.spent {
        Some(kept) => Ok(kept.cost()),
        None => Ok(cost_of_unknown(&turn.rounds()?)),
    }
}

/// The newest parameters, `[d]`, and the control variate that belongs to them.
fn newest(
    config: &TaskConfig,
    turn: &mut dyn Turn,
    rounds: &Rounds,
) -> Result<(Vec<f32>, Vec<f32>), OpenError> {
    let model = rounds.model();
    let bytes = turn
        .model(&model)?
        .ok_or_else(|| damaged(format!("the model {model} is missing")))?;
    config.read(&bytes).map_err(damaged)
}

/// Adds to what is known of the open round's updates what was stored of them. A sum in lanes is not read before its round closes.
fn gather_again(
    config: &TaskConfig,
    rounds: &Rounds,
    saved: &Saved,
    known: &mut Gathered,
    in_lanes: bool,
) -> Result<(), OpenError> {
    let received = rounds.received();
    let summed = config.sum_width();
    let expected = config.coordinates();
    match known {
        Gathered::Sum { .. } if in_lanes => {}
        Gathered::Sum { sum, count } => match &saved.sum {
            Some(steps) if steps.len() == summed => {
                check_sum(&config.strategy.aggregation, steps, received)?;
                (*sum, *count) = (PartialSum::from_steps(steps.clone()), received);
            }
            Some(steps) => return Err(damaged(format!("the sum has {} entries", steps.len()))),
            None if received > 0 => return Err(damaged("the open round's sum is missing")),
            None => {}
        },
        Gathered::Updates(updates) => {
            if let Some((_, wrong)) = saved.updates.iter().find(|(_, it)| it.len() != expected) {
                return Err(damaged(format!("an update has {} coordinates", wrong.len())));
            }
            updates.extend(saved.updates.iter().cloned());
            if updates.len() != received as usize {
                return Err(damaged("updates of the open round are missing"));
            }
        }
    }
    Ok(())
}

/// That `steps` may be the sum of so many updates: no entry is larger than all of them could make it, and where they have weights these
/// are one at least.
pub(super) fn check_sum(rule: &Aggregation, steps: &[i64], received: u32) -> Result<(), OpenError> {
    let weight = u128::from(rule.max_weight().unwrap_or(1));
    let largest = u128::from(i32::MIN.unsigned_abs()) * weight * u128::from(norm_bounding::PARTS);
    let most = u128::from(received) * largest;
    let weights = rule.max_weight().and(steps.last());
    let too_light = weights.is_some_and(|&weights| weights < i64::from(received));
    if too_light || steps.iter().any(|step| u128::from(step.unsigned_abs()) > most) {
        return Err(damaged(format!("the sum is none of {received} updates")));
    }
    Ok(())
}

pub(super) fn damaged(error: impl ToString) -> OpenError {
    OpenError::Damaged(error.to_string())
}
