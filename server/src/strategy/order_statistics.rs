//! The median and the trimmed mean of each coordinate.
//!
//! Yin, Chen, Ramchandran, Bartlett, “Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates”, ICML 2018
//! ([arXiv:1803.01498](https://arxiv.org/abs/1803.01498)), definitions 1 (median; of an even number of values, the mean of
//! the two in the middle) and 2 (trimmed mean; here with a number of values in place of their share β).

/// The median of each coordinate of `rows`, `[n][d] → [d]`, all in grid steps.
pub fn median(rows: &[&[i32]]) -> Vec<f64> {
    by_coordinate(rows, |values| {
        let middle = values.len() / 2;
        if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1].into(), values[middle].into())
        } else {
            values[middle].into()
        }
    })
}

/// The mean of each coordinate without its `trim` least and `trim` greatest values. Where that would leave none, as many are
/// kept as the median is of.
pub fn trimmed_mean(rows: &[&[i32]], trim: usize) -> Vec<f64> {
    let trim = trim.min(rows.len().saturating_sub(1) / 2);
    by_coordinate(rows, |values| {
        let kept = &values[trim..values.len() - trim];
        kept.iter().map(|&value| i64::from(value)).sum::<i64>() as f64 / kept.len() as f64
    })
}

fn by_coordinate(rows: &[&[i32]], of_sorted: impl Fn(&[i32]) -> f64) -> Vec<f64> {
    let d = rows.first().map_or(0, |row| row.len());
    let mut values = vec![0; rows.len()];
    let one = |at: usize| {
        for (value, row) in values.iter_mut().zip(rows) {
            *value = row[at];
        }
        values.sort_unstable();
        of_sorted(&values)
    };
    (0..d).map(one).collect()
}
