//! The local examples.

use crate::DataError;

/// Checked, labelled examples: features `[examples, features]`, row-major, all finite; one label below `classes` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    features: usize,
    classes: usize,
    x: Vec<f32>,
    y: Vec<u32>,
}

impl Examples {
    /// Checks and keeps examples.
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
        if y.is_empty() {
            return Err(DataError::Empty);
        }
        if y.len().checked_mul(features) != Some(x.len()) {
            return Err(DataError::Length {
                values: x.len(),
                labels: y.len(),
                features,
            });
        }
        if let Some(example) = y.iter().position(|&label| label as usize >= classes) {
            return Err(DataError::Label {
                example,
                label: y[example],
                classes,
            });
        }
        if let Some(index) = x.iter().position(|value| !value.is_finite()) {
            return Err(DataError::NonFinite {
                example: index / features,
                feature: index % features,
            });
        }
        Ok(Self {
            features,
            classes,
            x,
            y,
        })
    }

    /// Number of examples, at least 1.
    pub const fn len(&self) -> usize {
        self.y.len()
    }

    /// Always false: examples are never empty.
    pub const fn is_empty(&self) -> bool {
        self.y.is_empty()
    }

    /// Numbers per example.
    pub const fn features(&self) -> usize {
        self.features
    }

    /// Number of labels.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// The features, `[examples, features]`, row-major.
    pub fn x(&self) -> &[f32] {
        &self.x
    }

    /// The labels.
    pub fn y(&self) -> &[u32] {
        &self.y
    }
}
