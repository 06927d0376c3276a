//! Federated averaging on a grid of whole numbers: the sum is exact, so the order of arrival cannot change a bit of it.

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
        for (sum, &coordinate) in self.steps.iter_mut().zip(coordinates) {
            *sum += i64::from(coordinate);
        }
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

    /// Back to the sum of no updates.
    pub fn clear(&mut self) {
        self.steps.fill(0);
    }
}

/// The next model: `w + sum × grid_step / count`, each step in f64 and the result rounded to f32 once.
///
/// Federated averaging (McMahan et al. 2017, Algorithm 1) with equal weights: a client's weight cannot depend on how many
/// examples it has, since that number would be one more thing to protect.
///
/// # Panics
/// If the lengths differ or `count` is 0.
pub fn federated_average(parameters: &[f32], sum: &PartialSum, count: u32, grid_step: f64) -> Vec<f32> {
    assert_eq!(
        parameters.len(),
        sum.steps.len(),
        "a sum has one entry per parameter"
    );
    assert_ne!(count, 0, "an average is of at least one update");
    let next = |(&weight, &steps): (&f32, &i64)| {
        (f64::from(weight) + steps as f64 * grid_step / f64::from(count)) as f32
    };
    parameters.iter().zip(&sum.steps).map(next).collect()
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
        assert_eq!(federated_average(&[1.0, 1.0], &sum, 2, 0.5), [2.5, -1.0]);
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
        /// Any order and any grouping of the same updates gives the same model, bit for bit.
        #[test]
        fn order_and_grouping_cannot_change_a_bit(
            updates in prop::collection::vec(prop::collection::vec(any::<i32>(), 5), 1..12),
            order in any::<prop::sample::Index>(),
            cuts in prop::collection::vec(any::<bool>(), 12),
            weights in prop::collection::vec(-10f32..10.0, 5),
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
            let bits = |sum| federated_average(&weights, sum, count, 1.0 / 1024.0).iter().map(|w| w.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&plain), bits(&grouped));
        }
    }
}
