//! How an update looks before and after noise, for the person's own page.

/// Counts of an update's coordinates before and after noise, over common bins that are symmetric around 0.
///
/// The edges come from the noised values, and everything stays on the device: the counts before noise are not protected.
///
/// ```
/// use unsaid_privacy::Histogram;
/// let histogram = Histogram::of(&[0.0, 0.1, -0.1], &[1.0, -2.0, 0.5], 4);
/// assert_eq!(histogram.edges, [-2.0, -1.0, 0.0, 1.0, 2.0]);
/// assert_eq!(histogram.before, [0, 1, 2, 0]);
/// assert_eq!(histogram.after, [1, 0, 1, 1]);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// Edges in ascending order, one more than bins. A bin holds its lower edge and not its upper one; the last holds both.
    pub edges: Vec<f64>,
    /// Coordinates before noise in each bin. Values beyond the edges are in the outermost bins.
    pub before: Vec<u32>,
    /// Coordinates after noise in each bin.
    pub after: Vec<u32>,
}

impl Histogram {
    /// The most bins.
    pub const MAX_BINS: usize = 4_096;

    /// Counts `before` and `after` (of any lengths) into `bins` bins, or the nearest number from 1 to [`Self::MAX_BINS`],
    /// between plus and minus the largest finite magnitude in `after` (1 where there is none but 0). Values that are not
    /// finite are left out.
    pub fn of(before: &[f32], after: &[f32], bins: usize) -> Self {
        let bins = bins.clamp(1, Self::MAX_BINS);
        let finite = |values: &[f32]| -> Vec<f64> {
            values
                .iter()
                .filter(|x| x.is_finite())
                .map(|x| f64::from(*x))
                .collect()
        };
        let (before, after) = (finite(before), finite(after));
        let reach = match after.iter().fold(0.0_f64, |reach, x| reach.max(x.abs())) {
            0.0 => 1.0,
            reach => reach,
        };
        let width = 2.0 * reach / bins as f64;
        let edges: Vec<f64> = (0..=bins)
            .map(|i| {
                if i == bins {
                    reach
                } else {
                    -reach + width * i as f64
                }
            })
            .collect();
        let count = |values: &[f64]| {
            let mut counts = vec![0_u32; bins];
            for x in values {
                // A float below 0 or too large becomes the nearest index.
                let bin = (((x + reach) / width) as usize).min(bins - 1);
                counts[bin] = counts[bin].saturating_add(1);
            }
            counts
        };
        Self {
            before: count(&before),
            after: count(&after),
            edges,
        }
    }
}

#[cfg(test)]
mod tests;
