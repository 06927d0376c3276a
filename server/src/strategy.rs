//! How a round's updates become the next model: an **aggregation** rule makes one direction of many updates, and a **server
//! optimiser** moves the model along it. Any rule goes with any optimiser.
//!
//! | `aggregation` | source | what is kept of an open round |
//! |---|---|---|
//! | `mean` | FedAvg: McMahan et al. 2017, algorithm 1 | an exact sum |
//! | `weighted-mean` | the same, by numbers of examples, capped (McMahan et al. 2018, section 3) | an exact sum |
//! | `norm-bounding` | Sun et al. 2019, section 4 | an exact sum |
//! | `scaffold` | SCAFFOLD: Karimireddy et al. 2020, algorithm 1 | an exact sum |
//! | `fed-buff` | FedBuff: Nguyen et al. 2022, algorithm 1 | an exact sum for each staleness |
//! | `coordinate-median`, `trimmed-mean` | Yin et al. 2018, definitions 1 and 2 | every update |
//! | `krum`, `multi-krum` | Blanchard et al. 2017, section 4 | every update |
//! | `geometric-median` | RFA: Pillutla et al. 2022, algorithm 2 | every update |
//! | `centred-clipping` | Karimireddy et al. 2021, algorithm 2 | every update |
//!
//! | `server` | source |
//! |---|---|
//! | `fed-avg` | McMahan et al. 2017 (step size 1) |
//! | `fed-avg-m` | Hsu et al. 2019, section 4.3 |
//! | `fed-adagrad`, `fed-adam`, `fed-yogi` | Reddi et al. 2021, algorithm 2 |
//!
//! FedProx (Li et al. 2020) is `mean` with `proximal` in the task's local training: its term is the client's.
//!
//! Rules that need every update ([`Aggregation::needs_updates`]) see them ordered by their ids, so that the order of arrival
//! cannot change a bit of the result. [`compose`] says which rule goes with which privacy mode.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub mod centred_clipping;
pub mod compose;
pub mod fed_buff;
pub mod geometric_median;
pub mod krum;
pub mod norm_bounding;
pub mod order_statistics;
pub mod scaffold;
pub mod server;
#[cfg(test)]
mod tests;

pub use self::server::ServerOptimizer;
use crate::gather::Gathered;

/// How a task's next model is made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// From updates to one direction.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// From the direction to the next model.
    #[serde(default)]
    pub server: ServerOptimizer,
}

/// How many updates become one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table: { type = \"mean\" }, or another rule with what it needs"
)]
#[non_exhaustive]
pub enum Aggregation {
    /// Σ uᵢ / n.
    Mean {},
    /// Σ wᵢuᵢ / Σ wᵢ with wᵢ the client's number of examples, at most `max_weight`.
    WeightedMean {
        /// The most that one client weighs, in examples.
        max_weight: u32,
    },
    /// The mean of updates that are shortened to a norm, see [`norm_bounding`].
    NormBounding {
        /// The norm, in the model's own units.
        bound_l2: f64,
    },
    /// The mean of updates of clients that correct their drift, see [`scaffold`].
    Scaffold {
        /// All clients that there are: those that come again and again.
        population: NonZeroU32,
    },
    /// The mean of updates that may start from older models, and then count for less: see [`fed_buff`].
    FedBuff {
        /// The most rounds that may have closed since the one whose model an update starts from.
        max_staleness: u32,
        /// An update of staleness τ is weighed by (1 + τ) to the power of minus this.
        #[serde(default = "fed_buff::default_exponent")]
        exponent: f64,
    },
    /// The median of each coordinate, see [`order_statistics`].
    CoordinateMedian {},
    /// The mean of each coordinate without its `trim` least and `trim` greatest values, see [`order_statistics`].
    TrimmedMean {
        /// Values left out on each side.
        trim: u32,
    },
    /// The one update that lies nearest to its neighbours, see [`krum`].
    Krum {
        /// Malicious updates that it withstands.
        byzantine: u32,
    },
    /// The mean of the `chosen` updates that lie nearest to their neighbours, see [`krum`].
    MultiKrum {
        /// Malicious updates that it withstands.
        byzantine: u32,
        /// Updates that are averaged.
        chosen: u32,
    },
    /// The point with the least sum of distances to all updates, see [`geometric_median`].
    GeometricMedian {
        /// Steps of the smoothed Weiszfeld algorithm.
        #[serde(default = "geometric_median::default_iterations")]
        iterations: u32,
        /// ν: distances below this count as this, in the model's own units.
        #[serde(default = "geometric_median::default_smoothing")]
        smoothing: f64,
    },
    /// The mean of updates that are drawn towards the last round's direction, see [`centred_clipping`].
    CentredClipping {
        /// τ: how far from the centre an update counts in full, in the model's own units.
        radius_l2: f64,
        /// Times that the centre is moved.
        #[serde(default = "centred_clipping::default_iterations")]
        iterations: u32,
    },
}

impl Default for Aggregation {
    fn default() -> Self {
        Self::Mean {}
    }
}

/// A value of a strategy that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StrategyError {
    /// The field, below `strategy`.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
}

impl StrategyError {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
        }
    }
}

impl Aggregation {
    /// The rule's name, as in a task file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mean {} => "mean",
            Self::WeightedMean { .. } => "weighted-mean",
            Self::NormBounding { .. } => "norm-bounding",
            Self::Scaffold { .. } => "scaffold",
            Self::FedBuff { .. } => "fed-buff",
            Self::CoordinateMedian {} => "coordinate-median",
            Self::TrimmedMean { .. } => "trimmed-mean",
            Self::Krum { .. } => "krum",
            Self::MultiKrum { .. } => "multi-krum",
            Self::GeometricMedian { .. } => "geometric-median",
            Self::CentredClipping { .. } => "centred-clipping",
        }
    }

    /// Whether a sum is not enough: then the relay keeps every update until the round closes, on its disk too.
    pub const fn needs_updates(&self) -> bool {
        !matches!(
            self,
            Self::Mean {}
                | Self::WeightedMean { .. }
                | Self::NormBounding { .. }
                | Self::Scaffold { .. }
                | Self::FedBuff { .. }
        )
    }

    /// Bytes that a round of `updates` of `parameters` takes in memory where the rule needs every update: 4 for each coordinate,
    /// and 8 for each distance that [`krum`] compares.
    pub fn kept_bytes(&self, updates: u32, parameters: usize) -> u128 {
        let (n, d) = (u128::from(updates), parameters as u128);
        match self {
            Self::Krum { .. } | Self::MultiKrum { .. } => 4 * n * d + 8 * n * n,
            _ if self.needs_updates() => 4 * n * d,
            _ => 0,
        }
    }

    /// About how many multiplications and additions close a round of `updates` of `parameters`, where that is more than a few
    /// for each coordinate: n²d/2 for the distances of [`krum`], and 2nd for each step of the rules that come nearer.
    pub fn operations(&self, updates: u32, parameters: usize) -> u128 {
        let (n, d) = (u128::from(updates), parameters as u128);
        match *self {
            Self::Krum { .. } | Self::MultiKrum { .. } => n * n * d / 2,
            Self::GeometricMedian { iterations, .. } | Self::CentredClipping { iterations, .. } => {
                2 * n * d * u128::from(iterations)
            }
            _ => 0,
        }
    }

    /// The most that one client weighs, where clients weigh differently: each update then ends with its weight.
    pub const fn max_weight(&self) -> Option<u32> {
        match self {
            Self::WeightedMean { max_weight } => Some(*max_weight),
            _ => None,
        }
    }

    /// The most rounds that may have closed since the one whose model an update starts from; 0 where rounds are synchronous.
    pub const fn max_staleness(&self) -> u32 {
        match self {
            Self::FedBuff { max_staleness, .. } => *max_staleness,
            _ => 0,
        }
    }

    /// The fewest updates that the rule is defined for.
    pub const fn least_updates(&self) -> u64 {
        match *self {
            Self::TrimmedMean { trim } => 2 * trim as u64 + 1,
            Self::Krum { byzantine } => krum::least_updates(byzantine),
            Self::MultiKrum { byzantine, chosen } => {
                let (least, chosen) = (krum::least_updates(byzantine), chosen as u64 + byzantine as u64);
                if least > chosen { least } else { chosen }
            }
            _ => 1,
        }
    }

    fn check(&self) -> Result<(), StrategyError> {
        let require = |ok: bool, field, value: f64, expected: &str| {
            let wrong = || StrategyError::new(field, format!("{value} is not {expected}"));
            ok.then_some(()).ok_or_else(wrong)
        };
        let positive = |field, value: f64| {
            let ok = value > 0.0 && value <= 1e9;
            require(ok, field, value, "a number above 0 and at most 1e9")
        };
        let count = |field, value: u32, most: u32| {
            let wrong =
                || StrategyError::new(field, format!("{value} is not a whole number from 1 to {most}"));
            (1..=most).contains(&value).then_some(()).ok_or_else(wrong)
        };
        match *self {
            Self::Mean {}
            | Self::Scaffold { .. }
            | Self::CoordinateMedian {}
            | Self::Krum { .. }
            | Self::TrimmedMean { .. } => Ok(()),
            Self::WeightedMean { max_weight } => count("aggregation.max_weight", max_weight, MAX_WEIGHT),
            Self::NormBounding { bound_l2 } => positive("aggregation.bound_l2", bound_l2),
            Self::FedBuff {
                max_staleness,
                exponent,
            } => fed_buff::check(max_staleness, exponent),
            Self::MultiKrum { chosen, .. } => count("aggregation.chosen", chosen, u32::MAX),
            Self::GeometricMedian {
                iterations,
                smoothing,
            } => {
                let ok = (LEAST_DIVISOR..=1e9).contains(&smoothing);
                let expected = "a number from 1e-12 to 1e9";
                require(ok, "aggregation.smoothing", smoothing, expected)?;
                count("aggregation.iterations", iterations, MAX_ITERATIONS)
            }
            Self::CentredClipping {
                radius_l2,
                iterations,
            } => {
                positive("aggregation.radius_l2", radius_l2)?;
                count("aggregation.iterations", iterations, MAX_ITERATIONS)
            }
        }
    }
}

/// The least number that a rule or an optimiser divides by so that it never divides by nothing: quotients by it, and sums of them, are finite.
const LEAST_DIVISOR: f64 = 1e-12;

/// A weighted coordinate of a noiseless update is below 2²⁵ · 2²⁰, and a round has at most 2¹⁶ of them: the sum fits an `i64`.
const MAX_WEIGHT: u32 = 1 << 20;

/// More than any of these rules needs to converge; a bound on what a task file can make a relay compute.
const MAX_ITERATIONS: u32 = 1_000;

/// What a strategy remembers from round to round. It belongs to the newest model, and is kept with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Whose it is: a memory of another kind is not taken over.
    pub kind: String,
    /// The last direction where the rule needs it, then the optimiser's vectors, each `[d]`.
    pub values: Vec<f32>,
}

impl Strategy {
    /// Checks every number.
    ///
    /// # Errors
    /// [`StrategyError`] for the first that is out of range.
    pub fn check(&self) -> Result<(), StrategyError> {
        self.aggregation.check()?;
        self.server.check()
    }

    /// Whether it is plain federated averaging, which a manifest does not mention.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn keeps_direction(&self) -> bool {
        matches!(self.aggregation, Aggregation::CentredClipping { .. })
    }

    /// What the strategy remembers before the first round of a model of `parameters`.
    pub fn fresh(&self, parameters: usize) -> Memory {
        let mut values = vec![0.0; if self.keeps_direction() { parameters } else { 0 }];
        values.extend(self.server.fresh(parameters));
        let direction = if self.keeps_direction() { "direction+" } else { "" };
        Memory {
            kind: format!("{direction}{}", self.server.name()),
            values,
        }
    }

    /// A memory that was kept, where it is this strategy's; else a fresh one.
    pub fn recall(&self, kept: Option<&Memory>, parameters: usize) -> Memory {
        let fresh = self.fresh(parameters);
        match kept {
            Some(kept) if kept.kind == fresh.kind && kept.values.len() == fresh.values.len() => kept.clone(),
            _ => fresh,
        }
    }

    /// The next model, and `memory` as it is after it. `grid_step` is what one step of the updates means in the model's units.
    ///
    /// Directions are computed in f64; the parameters, and what is remembered, are rounded to f32 once.
    ///
    /// # Panics
    /// If `updates` are none, or of another length than `parameters`.
    pub fn next_model(
        &self,
        parameters: &[f32],
        updates: &Gathered,
        grid_step: f64,
        memory: &mut Memory,
    ) -> Vec<f32> {
        let direction = self.direction(updates, grid_step, memory, parameters.len());
        self.follow(parameters, &direction, memory)
    }

    /// What the rule makes of `updates`.
    fn direction(&self, updates: &Gathered, grid_step: f64, memory: &mut Memory, d: usize) -> Vec<f64> {
        let (last, _) = memory
            .values
            .split_at_mut(if self.keeps_direction() { d } else { 0 });
        let direction = match (updates, self.aggregation) {
            (Gathered::Sum { sum, .. }, Aggregation::WeightedMean { .. }) => sum.weighted_mean(grid_step),
            (Gathered::Sum { sum, count }, Aggregation::NormBounding { .. }) => {
                sum.mean(*count, grid_step / f64::from(norm_bounding::PARTS))
            }
            (Gathered::Sum { sum, count }, Aggregation::FedBuff { exponent, .. }) => {
                fed_buff::direction(sum, d, *count, exponent, grid_step)
            }
            (Gathered::Sum { sum, count }, _) => sum.mean(*count, grid_step),
            (Gathered::Updates(updates), rule) => {
                let rows: Vec<&[i32]> = updates.values().map(Vec::as_slice).collect();
                let last: Vec<f64> = last.iter().map(|&value| f64::from(value) / grid_step).collect();
                let steps = robust(rule, &rows, &last, grid_step);
                steps.into_iter().map(|steps| steps * grid_step).collect()
            }
        };
        for (last, &now) in last.iter_mut().zip(&direction) {
            *last = now as f32;
        }
        direction
    }

    /// The next model along a direction that is known, in the model's units.
    ///
    /// # Panics
    /// If it is of another length than `parameters`.
    pub fn follow(&self, parameters: &[f32], direction: &[f64], memory: &mut Memory) -> Vec<f32> {
        let d = parameters.len();
        assert_eq!(direction.len(), d, "a direction has one entry per parameter");
        let (_, optimizer) = memory
            .values
            .split_at_mut(if self.keeps_direction() { d } else { 0 });
        self.server.step(parameters, direction, optimizer)
    }
}

/// The direction of a rule that sees every update, in grid steps.
fn robust(rule: Aggregation, rows: &[&[i32]], last: &[f64], grid_step: f64) -> Vec<f64> {
    match rule {
        Aggregation::CoordinateMedian {} => order_statistics::median(rows),
        Aggregation::TrimmedMean { trim } => order_statistics::trimmed_mean(rows, trim as usize),
        Aggregation::Krum { byzantine } => krum::multi_krum(rows, byzantine as usize, 1),
        Aggregation::MultiKrum { byzantine, chosen } => {
            krum::multi_krum(rows, byzantine as usize, chosen as usize)
        }
        Aggregation::GeometricMedian {
            iterations,
            smoothing,
        } => geometric_median::smoothed_weiszfeld(rows, iterations, smoothing / grid_step),
        Aggregation::CentredClipping {
            radius_l2,
            iterations,
        } => centred_clipping::clip_around(rows, last, iterations, radius_l2 / grid_step),
        // A round is gathered as its rule needs: updates that are kept one by one have a rule above, and the mean is what is
        // left to say of any others.
        Aggregation::Mean {}
        | Aggregation::WeightedMean { .. }
        | Aggregation::NormBounding { .. }
        | Aggregation::Scaffold { .. }
        | Aggregation::FedBuff { .. } => mean(rows),
    }
}

/// Σ uᵢ / n of rows of equal length.
pub(crate) fn mean(rows: &[&[i32]]) -> Vec<f64> {
    let mut sum = vec![0_i64; rows.first().map_or(0, |row| row.len())];
    for row in rows {
        for (sum, &value) in sum.iter_mut().zip(*row) {
            *sum += i64::from(value);
        }
    }
    sum.into_iter()
        .map(|sum| sum as f64 / rows.len() as f64)
        .collect()
}

/// ‖a − b‖² in f64, added up in eight lanes: the same on every machine, and fast.
pub(crate) fn squared_distance<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    let mut lanes = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            let difference: f64 = a.into() - b.into();
            *lane += difference * difference;
        }
    }
    lanes.iter().sum()
}
