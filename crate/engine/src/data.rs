//! The local examples.

use crate::DataError;

/// The label of a position that does not count: padding at the end of a sequence.
pub const PADDING: u32 = u32::MAX;

/// What the examples are labelled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetKind {
    /// Labels below `classes`, or [`PADDING`].
    Labels {
        /// Number of labels.
        classes: usize,
    },
    /// Numbers.
    Values,
}

/// Checked examples: features `[examples, features]`, row-major, all finite, and targets `[examples, targets]`.
///
/// Token ids are features too: an `f32` holds every whole number up to 2²⁴, and a vocabulary is smaller than that.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    len: usize,
    features: usize,
    targets_per_example: usize,
    kind: TargetKind,
    x: Vec<f32>,
    /// Labels, or numbers as their bits: one path through both back ends.
    targets: Vec<u32>,
}

impl Examples {
    /// Examples with one label each.
    ///
    /// ```
    /// # use unsaid_engine::{DataError, Examples};
    /// let two = Examples::new(vec![0.0, 0.5, 1.0, 0.25], vec![1, 0], 2, 2)?;
    /// assert_eq!(two.len(), 2);
    /// let bad = Examples::new(vec![0.0, 0.5], vec![2], 2, 2);
    /// assert_eq!(bad, Err(DataError::Label { example: 0, label: 2, classes: 2 }));
    /// # Ok::<(), DataError>(())
    /// ```
    ///
    /// # Errors
    /// [`DataError`] where there is no example, the lengths do not fit, a label is too large, or a feature is not finite.
    pub fn new(x: Vec<f32>, y: Vec<u32>, features: usize, classes: usize) -> Result<Self, DataError> {
        if let Some(example) = y.iter().position(|&label| label as usize >= classes) {
            return Err(DataError::Label {
                example,
                label: y[example],
                classes,
            });
        }
        Self::checked(x, y, features, 1, TargetKind::Labels { classes })
    }

    /// Examples with `labels_per_example` labels each, such as the next token of every position of a sequence. A label that is
    /// [`PADDING`] does not count.
    ///
    /// ```
    /// # use unsaid_engine::{DataError, Examples, PADDING};
    /// // One sequence of three tokens out of a vocabulary of nine; the last position is padding.
    /// let one = Examples::sequences(vec![4.0, 7.0, 0.0], vec![7, 8, PADDING], 3, 3, 9)?;
    /// assert_eq!(one.len(), 1);
    /// # Ok::<(), DataError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Examples::new`].
    pub fn sequences(
        x: Vec<f32>,
        labels: Vec<u32>,
        features: usize,
        labels_per_example: usize,
        classes: usize,
    ) -> Result<Self, DataError> {
        let bad = |&label: &u32| label != PADDING && label as usize >= classes;
        if let Some(index) = labels.iter().position(bad) {
            return Err(DataError::Label {
                example: index / labels_per_example.max(1),
                label: labels[index],
                classes,
            });
        }
        Self::checked(
            x,
            labels,
            features,
            labels_per_example,
            TargetKind::Labels { classes },
        )
    }

    /// Examples with `values_per_example` numbers to be predicted each.
    ///
    /// # Errors
    /// [`DataError`] where there is no example, the lengths do not fit, or a number is not finite.
    pub fn with_values(
        x: Vec<f32>,
        values: &[f32],
        features: usize,
        values_per_example: usize,
    ) -> Result<Self, DataError> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(DataError::NonFinite {
                example: index / values_per_example.max(1),
                feature: index % values_per_example.max(1),
            });
        }
        let bits = values.iter().map(|value| value.to_bits()).collect();
        Self::checked(x, bits, features, values_per_example, TargetKind::Values)
    }

    /// No examples with one label each: only training that is private for each example takes them, since what it gives must not tell that
    /// there are none.
    pub const fn none(features: usize, classes: usize) -> Self {
        Self {
            len: 0,
            features,
            targets_per_example: 1,
            kind: TargetKind::Labels { classes },
            x: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn checked(
        x: Vec<f32>,
        targets: Vec<u32>,
        features: usize,
        targets_per_example: usize,
        kind: TargetKind,
    ) -> Result<Self, DataError> {
        if targets.is_empty() {
            return Err(DataError::Empty);
        }
        let len = targets.len() / targets_per_example.max(1);
        if len.checked_mul(features) != Some(x.len()) || len * targets_per_example != targets.len() {
            return Err(DataError::Length {
                values: x.len(),
                labels: targets.len(),
                features,
            });
        }
        if let Some(index) = x.iter().position(|value| !value.is_finite()) {
            return Err(DataError::NonFinite {
                example: index / features,
                feature: index % features,
            });
        }
        Ok(Self {
            len,
            features,
            targets_per_example,
            kind,
            x,
            targets,
        })
    }

    /// Number of examples.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none: see [`Examples::none`].
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Numbers per example.
    pub const fn features(&self) -> usize {
        self.features
    }

    /// Targets per example.
    pub const fn targets_per_example(&self) -> usize {
        self.targets_per_example
    }

    /// What the targets are.
    pub const fn kind(&self) -> TargetKind {
        self.kind
    }

    /// The features, `[examples, features]`, row-major.
    pub fn x(&self) -> &[f32] {
        &self.x
    }

    /// The targets, `[examples, targets]`: labels, or the bits of numbers.
    pub fn y(&self) -> &[u32] {
        &self.targets
    }
}
