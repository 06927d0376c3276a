//! Finding the input whose gradient looks like the one that was seen: the attack where nothing can be read off directly.

use super::InversionError;

/// How long and how the attacker searches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matching {
    /// Steps of the search.
    pub iterations: u32,
    /// Largest move of a pixel in the first of them; it falls to nothing at the end.
    pub step: f32,
    /// How much the attacker believes in smooth pictures: the weight of the total variation.
    pub smoothness: f32,
}

/// An input, `[height, width]`, with pixels from 0 to 1, whose gradient points where `seen` does: gradient matching (Geiping, Bauermeister,
/// Dröge, Moeller, “Inverting Gradients”, NeurIPS 2020, [arXiv:2003.14053](https://arxiv.org/abs/2003.14053), equation 4):
///
/// > arg min over x in [0, 1]ⁿ of 1 − ⟨g(x), seen⟩ / (‖g(x)‖·‖seen‖) + smoothness·TV(x)
///
/// by Adam on the signs of the objective's slopes, as there. `gradient` is what the attacker knows of the model: the gradient of its
/// parameters for an input, with the label that they guessed; none where it has none. The slopes are central differences, two gradients for
/// each pixel, so that it takes a small picture and a small model.
///
/// # Errors
/// [`InversionError::Length`] where `start` is not `width` × `height` long, or a gradient not as long as `seen`;
/// [`InversionError::NoSignal`] where `seen` is 0 or not finite.
pub fn match_gradient(
    seen: &[f32],
    start: &[f32],
    [height, width]: [usize; 2],
    how: Matching,
    mut gradient: impl FnMut(&[f32]) -> Option<Vec<f32>>,
) -> Result<Vec<f32>, InversionError> {
    /// Far enough that rounding of 32-bit gradients does not matter, near enough that the objective bends little.
    const NEAR: f32 = 0.01;
    let pixels = start.len();
    if pixels == 0 || height.checked_mul(width) != Some(pixels) {
        return Err(InversionError::Length(pixels, height.saturating_mul(width)));
    }
    if !(norm(seen).is_finite() && norm(seen) > 0.0) {
        return Err(InversionError::NoSignal);
    }
    let mut objective = |x: &[f32]| {
        let found = gradient(x).ok_or(InversionError::NoSignal)?;
        if found.len() != seen.len() {
            return Err(InversionError::Length(found.len(), seen.len()));
        }
        let inner: f64 = found
            .iter()
            .zip(seen)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum();
        let cosine = inner / (norm(&found) * norm(seen)).max(f64::MIN_POSITIVE);
        Ok(1.0 - cosine + f64::from(how.smoothness) * variation(x, width))
    };
    let mut x: Vec<f32> = start.iter().map(|pixel| pixel.clamp(0.0, 1.0)).collect();
    let mut best = (objective(&x)?, x.clone());
    let (mut mean, mut square) = (vec![0.0_f64; pixels], vec![0.0_f64; pixels]);
    for iteration in 1..=how.iterations {
        let mut slopes = Vec::with_capacity(pixels);
        for at in 0..pixels {
            let here = x[at];
            x[at] = here + NEAR;
            let above = objective(&x)?;
            x[at] = here - NEAR;
            let below = objective(&x)?;
            x[at] = here;
            slopes.push(above - below);
        }
        let left = 1.0 - f64::from(iteration - 1) / f64::from(how.iterations);
        for (at, slope) in slopes.iter().enumerate() {
            // Kingma, Ba 2015, algorithm 1, on the sign.
            let sign = if *slope == 0.0 { 0.0 } else { slope.signum() };
            mean[at] = 0.9 * mean[at] + 0.1 * sign;
            square[at] = 0.999 * square[at] + 0.001 * sign * sign;
            let corrected = mean[at] / (1.0 - 0.9_f64.powf(iteration.into()));
            let scale = (square[at] / (1.0 - 0.999_f64.powf(iteration.into()))).sqrt();
            let moved = f64::from(how.step) * left * corrected / (scale + 1e-8);
            x[at] = (x[at] - moved as f32).clamp(0.0, 1.0);
        }
        let found = objective(&x)?;
        if found < best.0 {
            best = (found, x.clone());
        }
    }
    Ok(best.1)
}

fn norm(values: &[f32]) -> f64 {
    values
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The mean difference of neighbouring pixels, sideways and downwards (Rudin, Osher, Fatemi 1992, in its anisotropic form).
fn variation(x: &[f32], width: usize) -> f64 {
    let apart = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    let sideways: f64 = x
        .chunks_exact(width)
        .flat_map(|row| row.iter().zip(&row[1..]))
        .map(apart)
        .sum();
    let downwards: f64 = x.iter().zip(x.iter().skip(width)).map(apart).sum();
    (sideways + downwards) / x.len() as f64
}

/// How alike two pictures of pixels from 0 to `peak` are in structure: the mean structural similarity over all windows of 7 × 7 pixels
/// (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, equation 13, with uniform windows, K₁ = 0.01 and K₂ = 0.03). 1 for equal ones, around 0
/// for two that have nothing in common.
///
/// ```
/// use unsaid_privacy::{InversionError, ssim};
/// let stripes: Vec<f32> = (0..64).map(|at| (at % 2) as f32).collect();
/// assert_eq!(ssim(&stripes, &stripes, [8, 8], 1.0)?, 1.0);
/// assert!(ssim(&stripes, &[0.5; 64], [8, 8], 1.0)? < 0.01);
/// # Ok::<(), InversionError>(())
/// ```
///
/// # Errors
/// [`InversionError::Length`] where either is not as large as it should be; pictures must be at least 7 × 7.
pub fn ssim(
    original: &[f32],
    attempt: &[f32],
    [height, width]: [usize; 2],
    peak: f32,
) -> Result<f64, InversionError> {
    const WINDOW: usize = 7;
    let pixels = height.checked_mul(width);
    if original.len() != attempt.len() || pixels != Some(original.len()) || height.min(width) < WINDOW {
        return Err(InversionError::Length(original.len(), attempt.len()));
    }
    let peak = f64::from(peak);
    let (c1, c2) = ((0.01 * peak).powi(2), (0.03 * peak).powi(2));
    let n = (WINDOW * WINDOW) as f64;
    let mut sum = 0.0;
    let (down, across) = (height - WINDOW + 1, width - WINDOW + 1);
    for (top, left) in (0..down).flat_map(|top| (0..across).map(move |left| (top, left))) {
        let places = (0..WINDOW).flat_map(|y| (0..WINDOW).map(move |x| (top + y) * width + left + x));
        let pairs = places.map(|at| (f64::from(original[at]), f64::from(attempt[at])));
        let [mut a, mut b, mut aa, mut bb, mut ab] = [0.0; 5];
        for (x, y) in pairs {
            a += x;
            b += y;
            aa += x * x;
            bb += y * y;
            ab += x * y;
        }
        let (mean_a, mean_b) = (a / n, b / n);
        let unbiased = n / (n - 1.0);
        let (var_a, var_b) = (
            (aa / n - mean_a * mean_a) * unbiased,
            (bb / n - mean_b * mean_b) * unbiased,
        );
        let covariance = (ab / n - mean_a * mean_b) * unbiased;
        sum += (2.0 * mean_a * mean_b + c1) * (2.0 * covariance + c2)
            / ((mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2));
    }
    Ok(sum / (down * across) as f64)
}
