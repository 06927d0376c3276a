//! What is kept of an open round's updates: an exact sum, or every update where the rule needs them.

use std::collections::BTreeMap;

use unsaid_protocol::UpdateId;

use crate::{
    aggregate::PartialSum,
    strategy::{Aggregation, norm_bounding},
};

/// An open round's updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gathered {
    /// Their sum. Where clients weigh differently its last entry is the sum of their weights; where updates are shortened it
    /// is in [`norm_bounding::PARTS`] of a grid step; where they may be stale there is one for each staleness, one after the other.
    Sum {
        /// The sum.
        sum: PartialSum,
        /// Updates in it.
        count: u32,
    },
    /// Each of them, in the order of their ids.
    Updates(BTreeMap<UpdateId, Vec<i32>>),
}

impl Gathered {
    /// No updates to a model of `parameters`.
    pub fn none(rule: &Aggregation, parameters: usize) -> Self {
        if rule.needs_updates() {
            Self::Updates(BTreeMap::new())
        } else {
            let sum = PartialSum::zero(sum_width(rule, parameters));
            Self::Sum { sum, count: 0 }
        }
    }

    /// Adds one update, whose coordinates are as many as [`width`], and which starts from the model of `staleness` rounds ago (at
    /// most the rule's).
    pub fn add(
        &mut self,
        rule: &Aggregation,
        update: UpdateId,
        coordinates: Vec<i32>,
        staleness: u32,
        grid_step: f64,
    ) {
        match self {
            Self::Sum { sum, count } => {
                add_to(sum, rule, &coordinates, staleness, grid_step);
                *count += 1;
            }
            Self::Updates(updates) => drop(updates.insert(update, coordinates)),
        }
    }

    /// Adds several updates of a rule that [`sums_as_they_are`], none of them stale: the same as [`Self::add`] of each, and sooner done.
    pub fn add_all(&mut self, updates: &[Vec<i32>]) {
        if let Self::Sum { sum, count } = self {
            sum.add_all(updates);
            *count += updates.len() as u32; // no more than a round lets in
        }
    }

    /// Back to no updates.
    pub fn clear(&mut self) {
        match self {
            Self::Sum { sum, count } => {
                sum.clear();
                *count = 0;
            }
            Self::Updates(updates) => updates.clear(),
        }
    }
}

/// Adds one update to the sum of a rule that has one, as [`Gathered::add`].
pub fn add_to(sum: &mut PartialSum, rule: &Aggregation, coordinates: &[i32], staleness: u32, grid_step: f64) {
    match *rule {
        Aggregation::WeightedMean { .. } => sum.add_weighted(coordinates),
        Aggregation::NormBounding { bound_l2 } => {
            let parts = norm_bounding::shorten(coordinates, bound_l2 / grid_step);
            sum.merge(&PartialSum::from_steps(parts));
        }
        Aggregation::FedBuff { .. } => sum.add_from(staleness as usize * coordinates.len(), coordinates),
        _ => sum.add(coordinates),
    }
}

/// Whether an update's coordinates are added to the sum as they are, and nothing else.
pub const fn sums_as_they_are(rule: &Aggregation) -> bool {
    matches!(rule, Aggregation::Mean {})
}

/// Entries of the sum of a round's updates to a model of `parameters`.
pub const fn sum_width(rule: &Aggregation, parameters: usize) -> usize {
    width(rule, parameters) * (rule.max_staleness() as usize + 1)
}

/// Coordinates of an update to a model of `parameters`: one more where the update ends with its weight.
pub const fn width(rule: &Aggregation, parameters: usize) -> usize {
    parameters + rule.max_weight().is_some() as usize
}
