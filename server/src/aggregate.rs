//! Federated averaging on a grid of whole numbers: the sum is exact, so the order of arrival cannot change a bit of it.

use crate::exact;

/// The sum of some updates, in grid steps. Sums form a commutative monoid: parts may be added in any order and grouping.
///
/// Each `i64` holds the sum of up to 2³² coordinates of type `i32`, more than a round lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialSum {
    steps: Vec<i64>,
}

impl PartialSum {
    /// The sum of no updates.
    pub fn zero(dimension: usize) -> Self {
        Self {
            steps: vec![0; dimension],
        }
    }

    /// A stored sum.
    pub const fn from_steps(steps: Vec<i64>) -> Self {
        Self { steps }
    }

    /// What [`Self::from_steps`] gives back. Until then this is the sum of nothing, of no length.
    pub fn lend(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.steps)
    }

    /// One whole number for each parameter.
    pub fn steps(&self) -> &[i64] {
        &self.steps
    }

    /// Adds one update.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&mut self, coordinates: &[i32]) {
        assert_eq!(
            self.steps.len(),
            coordinates.len(),
            "an update has one coordinate per parameter"
        );
        exact::add(&mut self.steps, coordinates);
    }

    /// Adds several updates: the same as one after the other, and sooner done.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_all(&mut self, updates: &[impl AsRef<[i32]>]) {
        assert!(
            updates
                .iter()
                .all(|update| update.as_ref().len() == self.steps.len()),
            "every update has one coordinate per parameter"
        );
        exact::add_all(&mut self.steps, updates);
    }

    /// Adds one update to the entries from `first` on.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn add_from(&mut self, first: usize, coordinates: &[i32]) {
        exact::add(&mut self.steps[first..first + coordinates.len()], coordinates);
    }

    /// Becomes the same sum as `other`, in the memory that it has.
    pub fn copy(&mut self, other: &Self) {
        self.steps.clone_from(&other.steps);
    }

    /// Adds another sum.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(
            self.steps.len(),
            other.steps.len(),
            "both sums have one entry per parameter"
        );
        for (sum, part) in self.steps.iter_mut().zip(&other.steps) {
            *sum += part;
        }
    }

    /// Adds one update as often as its last coordinate says: its weight, which is added up behind the others.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_weighted(&mut self, coordinates: &[i32]) {
        assert_eq!(
            self.steps.len(),
            coordinates.len(),
            "a weighted update has one coordinate per parameter and its weight"
        );
        let Some((&weight, coordinates)) = coordinates.split_last() else {
            return;
        };
        for (sum, &coordinate) in self.steps.iter_mut().zip(coordinates) {
            *sum += i64::from(weight) * i64::from(coordinate);
        }
        if let Some(weights) = self.steps.last_mut() {
            *weights += i64::from(weight);
        }
    }

    /// `sum × grid_step / count` in f64, evaluated from the left: the mean of `count` updates in the model's units.
    ///
    /// Federated averaging (McMahan et al. 2017, Algorithm 1) with equal weights: a client's weight cannot depend on how many
    /// examples it has, since that number would be one more thing to protect.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn mean(&self, count: u32, grid_step: f64) -> Vec<f64> {
        assert_ne!(count, 0, "a mean is of at least one update");
        let mean = |&steps: &i64| steps as f64 * grid_step / f64::from(count);
        self.steps.iter().map(mean).collect()
    }

    /// The mean of weighted updates: as [`Self::mean`], over the sum of weights, which is the last entry.
    ///
    /// # Panics
    /// If there is no weight.
    pub fn weighted_mean(&self, grid_step: f64) -> Vec<f64> {
        let (&weights, steps) = self.steps.split_last().unwrap_or((&0, &[]));
        assert!(weights > 0, "a weighted mean is of at least one update");
        let mean = |&steps: &i64| steps as f64 * grid_step / weights as f64;
        steps.iter().map(mean).collect()
    }

    /// Back to the sum of no updates.
    pub fn clear(&mut self) {
        self.steps.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_average_is_the_mean_in_the_models_units() {
        let mut sum = PartialSum::zero(2);
        sum.add(&[4, -8]);
        sum.add(&[2, 0]);
        assert_eq!(sum.mean(2, 0.5), [1.5, -2.0]);
    }

    #[test]
    fn a_weighted_update_counts_as_often_as_it_weighs() {
        let mut sum = PartialSum::zero(3);
        sum.add_weighted(&[4, -8, 3]);
        sum.add_weighted(&[0, 4, 1]);
        assert_eq!(sum.steps(), [12, -20, 4]);
        assert_eq!(sum.weighted_mean(0.5), [1.5, -2.5]);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut sum = PartialSum::zero(2);
        for _ in 0..1000 {
            sum.add(&[i32::MIN, i32::MAX]);
        }
        assert_eq!(
            sum.steps(),
            [1000 * i64::from(i32::MIN), 1000 * i64::from(i32::MAX)]
        );
    }

    proptest! {
        /// Any order and any grouping of the same updates gives the same mean, bit for bit.
        #[test]
        fn order_and_grouping_cannot_change_a_bit(
            updates in prop::collection::vec(prop::collection::vec(any::<i32>(), 5), 1..12),
            order in any::<prop::sample::Index>(),
            cuts in prop::collection::vec(any::<bool>(), 12),
        ) {
            let mut plain = PartialSum::zero(5);
            updates.iter().for_each(|update| plain.add(update));

            let mut shuffled = updates.clone();
            let pivot = order.index(updates.len());
            shuffled.rotate_left(pivot);
            shuffled[pivot..].reverse();
            let (mut grouped, mut part) = (PartialSum::zero(5), PartialSum::zero(5));
            for (update, &cut) in shuffled.iter().zip(&cuts) {
                part.add(update);
                if cut {
                    part.merge(&grouped);
                    grouped = std::mem::replace(&mut part, PartialSum::zero(5));
                }
            }
            grouped.merge(&part);

            prop_assert_eq!(&plain, &grouped);
            let count = updates.len() as u32;
            let bits = |sum: &PartialSum| sum.mean(count, 1.0 / 1024.0).iter().map(|w| w.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&plain), bits(&grouped));
        }
    }
}
