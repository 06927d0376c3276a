//! What an update gives away where nothing protects it: gradient inversion, as an attacker would do it, for people to see.

mod matching;

pub use matching::{Matching, match_gradient, ssim};

/// Why there is nothing to invert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InversionError {
    /// Sizes that do not fit together.
    #[error("a kernel of {kernel} numbers does not belong to a dense layer of {units} units")]
    Shape {
        /// Numbers in the kernel.
        kernel: usize,
        /// Units.
        units: usize,
    },
    /// No unit's bias changed, or a number is not finite.
    #[error("no unit's bias changed by a finite number, so that there is nothing to divide by")]
    NoSignal,
    /// Two vectors that cannot be compared.
    #[error("vectors of {0} and {1} numbers cannot be compared")]
    Length(usize, usize),
}

/// The input of a dense first layer, from the change of its weights in one step on one example.
///
/// For y = xW + b the gradient of W is the outer product of x and the gradient of b, so that each column of W's gradient, divided by b's
/// entry, is x itself, to rounding (Phong, Aono, Hayashi, Wang, Moriai, IEEE TIFS 2018; Geiping, Bauermeister, Dröge, Moeller, NeurIPS
/// 2020, Proposition 3.1). The unit with the largest change of its bias is taken. A change of the weights is the gradient times a factor,
/// which cancels. On several examples or steps the result is a mixture of the inputs.
///
/// `kernel` is `[inputs, units]`, row-major, and `bias` `[units]`, as the engine lays them out.
///
/// ```
/// use unsaid_privacy::{InversionError, invert_dense};
/// // x = (1, 2), and the gradient of b is (0.5, −0.25).
/// let x = invert_dense(&[0.5, -0.25, 1.0, -0.5], &[0.5, -0.25])?;
/// assert_eq!(x, [1.0, 2.0]);
/// # Ok::<(), InversionError>(())
/// ```
///
/// # Errors
/// [`InversionError::Shape`], and [`InversionError::NoSignal`] where no bias changed by a finite number.
pub fn invert_dense(kernel: &[f32], bias: &[f32]) -> Result<Vec<f32>, InversionError> {
    let units = bias.len();
    if units == 0 || kernel.is_empty() || !kernel.len().is_multiple_of(units) {
        return Err(InversionError::Shape {
            kernel: kernel.len(),
            units,
        });
    }
    let (unit, change) = bias
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, change)| change.is_finite() && *change != 0.0)
        .max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()))
        .ok_or(InversionError::NoSignal)?;
    Ok(kernel
        .iter()
        .skip(unit)
        .step_by(units)
        .map(|x| x / change)
        .collect())
}

/// The input of a dense first layer, as [`invert_dense`] looks for it, from all units at once: what an attacker would do where there is noise.
///
/// One step on one example changes kernel and bias together by the outer product of (x, 1) and the gradient of b, a matrix of rank one. With
/// noise of the same variance on every number the likeliest such matrix is the nearest one, that of the largest singular value (Eckart, Young,
/// Psychometrika 1936), here by power iteration from the change of the bias. Without noise it is exact to rounding. Steps that follow on the same
/// example under plain gradient descent only add to the second factor.
///
/// ```
/// use unsaid_privacy::{InversionError, fit_dense};
/// let x = fit_dense(&[0.5, -0.25, 1.0, -0.5], &[0.5, -0.25])?;
/// assert!((x[0] - 1.0).abs() < 1e-6 && (x[1] - 2.0).abs() < 1e-6);
/// # Ok::<(), InversionError>(())
/// ```
///
/// # Errors
/// As [`invert_dense`]; [`InversionError::NoSignal`] also where a number of the kernel is not finite.
pub fn fit_dense(kernel: &[f32], bias: &[f32]) -> Result<Vec<f32>, InversionError> {
    /// Each brings the second direction down by the square of the ratio of the two singular values.
    const ITERATIONS: u32 = 64;
    // Its checks are these.
    invert_dense(kernel, bias)?;
    let rows = || kernel.chunks_exact(bias.len()).chain([bias]);
    let inner =
        |row: &[f32], unit: &[f64]| -> f64 { row.iter().zip(unit).map(|(a, b)| f64::from(*a) * b).sum() };
    let mut units: Vec<f64> = bias.iter().copied().map(f64::from).collect();
    for _ in 0..ITERATIONS {
        let mut next = vec![0.0; units.len()];
        for row in rows() {
            let share = inner(row, &units);
            for (next, change) in next.iter_mut().zip(row) {
                *next += share * f64::from(*change);
            }
        }
        let length = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !(length.is_finite() && length > 0.0) {
            return Err(InversionError::NoSignal);
        }
        units = next.into_iter().map(|x| x / length).collect();
    }
    let one = inner(bias, &units);
    if one == 0.0 {
        return Err(InversionError::NoSignal);
    }
    Ok(kernel
        .chunks_exact(bias.len())
        .map(|row| (inner(row, &units) / one) as f32)
        .collect())
}

/// The label of the one example that a classifier with a softmax learned from, from the change of its last bias under gradient descent:
/// the gradient of the bias is the probability less 1 for the label and the probability for all others, so that the label's bias alone
/// rose (Zhao, Mopuri, Bilen 2020, “iDLG”, [arXiv:2001.02610](https://arxiv.org/abs/2001.02610), section 3).
///
/// `change` is the bias after the step less the bias before it.
///
/// # Errors
/// [`InversionError::NoSignal`] where no entry rose.
pub fn label_from_bias(change: &[f32]) -> Result<usize, InversionError> {
    change
        .iter()
        .enumerate()
        .filter(|(_, change)| **change > 0.0)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(label, _)| label)
        .ok_or(InversionError::NoSignal)
}

/// How alike a picture and an attempt at it are: the peak signal-to-noise ratio 10·log₁₀(peak²/MSE), in decibels. Above 30 they look the
/// same; around 10 there is nothing to see. Infinite for two that are equal.
///
/// # Errors
/// [`InversionError::Length`] for different lengths, or none.
pub fn psnr(original: &[f32], attempt: &[f32], peak: f32) -> Result<f64, InversionError> {
    if original.len() != attempt.len() || original.is_empty() {
        return Err(InversionError::Length(original.len(), attempt.len()));
    }
    let error = original
        .iter()
        .zip(attempt)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum::<f64>()
        / original.len() as f64;
    Ok(10.0 * (f64::from(peak).powi(2) / error).log10())
}

#[cfg(test)]
mod tests;
