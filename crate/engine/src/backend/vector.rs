//! Loops over vectors, four numbers at once. The browser build is compiled for size, which leaves the loops of the operations as
//! they are written; so those that a training step spends its time in are written here, or with [`each_lane`] where they are used.

use super::matrix::lane::{Lane, each_lane};
use crate::ops::exponential;

/// `sum += factor · more`; as long as each other.
pub(crate) fn add_scaled(sum: &mut [f32], more: &[f32], factor: f32) {
    assert!(sum.len() == more.len(), "lengths");
    let (sum, more, len) = (sum.as_mut_ptr(), more.as_ptr(), more.len());
    each_lane!(len, |at: L| {
        // SAFETY: both are as long.
        unsafe {
            let to = sum.add(at);
            L::load(to)
                .add_product(L::load(more.add(at)), L::splat(factor))
                .store(to);
        }
    });
}

/// `values *= factors`, number by number; as long as each other.
pub(crate) fn multiply(values: &mut [f32], factors: &[f32]) {
    assert!(values.len() == factors.len(), "lengths");
    let (values, factors, len) = (values.as_mut_ptr(), factors.as_ptr(), factors.len());
    each_lane!(len, |at: L| {
        // SAFETY: both are as long.
        unsafe {
            let to = values.add(at);
            L::load(to).mul(L::load(factors.add(at))).store(to);
        }
    });
}

/// `values *= factor`.
pub(crate) fn scale(values: &mut [f32], factor: f32) {
    let (values, len) = (values.as_mut_ptr(), values.len());
    each_lane!(len, |at: L| {
        // SAFETY: inside.
        unsafe {
            let to = values.add(at);
            L::load(to).mul(L::splat(factor)).store(to);
        }
    });
}

/// Adds every row of `rows`, `[…, sum]`, to `sum`.
pub(crate) fn add_rows(sum: &mut [f32], rows: &[f32]) {
    let len = sum.len();
    assert!(rows.len().is_multiple_of(len.max(1)), "whole rows");
    let count = rows.len() / len.max(1);
    let (sum, rows) = (sum.as_mut_ptr(), rows.as_ptr());
    each_lane!(len, |at: L| {
        // SAFETY: there are `count` rows of `len`; the pointer ends behind them.
        unsafe {
            let mut total = L::load(sum.add(at));
            let mut from = rows.add(at);
            let mut left = count;
            while left > 0 {
                total = total.add(L::load(from));
                from = from.wrapping_add(len);
                left -= 1;
            }
            total.store(sum.add(at));
        }
    });
}

/// `Σ aᵢ·bᵢ`, in `f32` over 256 numbers at a time and in `f64` over all: off by at most 64 + 4 units of 2⁻²⁴ of the sum of magnitudes.
/// Where `f32` holds no product, or nearly none, `f64` does.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut total = 0.0;
    for (a_piece, b_piece) in a.chunks(256).zip(b.chunks(256)) {
        let len = a_piece.len().min(b_piece.len());
        let mut sums = [0.0f32; 4];
        let (a, b, to) = (a_piece.as_ptr(), b_piece.as_ptr(), sums.as_mut_ptr());
        each_lane!(len, |at: L| {
            // SAFETY: both are as long at least, and a lane is no longer than `sums`.
            unsafe {
                L::load(to)
                    .add_product(L::load(a.add(at)), L::load(b.add(at)))
                    .store(to);
            }
        });
        let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        total += if (LEAST..f32::INFINITY).contains(&sum.abs()) {
            f64::from(sum)
        } else {
            dot_f64(a_piece, b_piece)
        };
    }
    total
}

/// A piece's sum below this may be what is left of products that vanished.
const LEAST: f32 = 1e-30;

/// As [`dot`], every product in `f64`.
fn dot_f64(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The largest number; NaN where there is one, and −∞ of none.
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; 4];
    let (values, len, to) = (values.as_ptr(), values.len(), most.as_mut_ptr());
    let or_greater = |most: f32, value: f32| {
        if value > most || value.is_nan() {
            value
        } else {
            most
        }
    };
    each_lane!(len, |at: L| {
        // SAFETY: inside, and a lane is no longer than `most`.
        unsafe {
            let (value, before) = (L::load(values.add(at)), L::load(to));
            let greater = value.greater(before).or(value.not_a_number());
            greater.select(value, before).store(to);
        }
    });
    most[1..]
        .iter()
        .fold(most[0], |most, &value| or_greater(most, value))
}

/// `to = exp(from − less)`, and the sum of that; as long as each other.
pub(crate) fn exponential(to: &mut [f32], from: &[f32], less: f32) -> f32 {
    assert!(to.len() == from.len(), "lengths");
    let mut sums = [0.0f32; 4];
    let (to, from, len, sum) = (to.as_mut_ptr(), from.as_ptr(), from.len(), sums.as_mut_ptr());
    each_lane!(len, |at: L| {
        // SAFETY: both are as long, and a lane is no longer than `sums`.
        unsafe {
            let value = exponential::exp(L::load(from.add(at)).sub(L::splat(less)));
            value.store(to.add(at));
            L::load(sum).add(value).store(sum);
        }
    });
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The logistic function of each number, in its place.
pub(crate) fn logistic(values: &mut [f32]) {
    let (values, len) = (values.as_mut_ptr(), values.len());
    each_lane!(len, |at: L| {
        // SAFETY: inside.
        unsafe {
            let to = values.add(at);
            exponential::logistic(L::load(to)).store(to);
        }
    });
}

/// The hyperbolic tangent of each number, in its place.
pub(crate) fn tanh(values: &mut [f32]) {
    let (values, len) = (values.as_mut_ptr(), values.len());
    each_lane!(len, |at: L| {
        // SAFETY: inside.
        unsafe {
            let to = values.add(at);
            exponential::tanh(L::load(to)).store(to);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths with and without a rest, and more than one piece of a sum.
    const LENS: [usize; 7] = [0, 1, 3, 4, 7, 256, 1003];

    fn numbers(seed: usize, len: usize) -> Vec<f32> {
        (0..len)
            .map(|at| ((at * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0)
            .collect()
    }

    #[test]
    fn every_number_is_reached_once() {
        for len in LENS {
            let (a, b) = (numbers(1, len), numbers(2, len));
            let mut sum = a.clone();
            add_scaled(&mut sum, &b, 0.5);
            let mut product = a.clone();
            multiply(&mut product, &b);
            let mut scaled = a.clone();
            scale(&mut scaled, 3.0);
            let (mut squashed, mut gates) = (a.clone(), a.clone());
            tanh(&mut squashed);
            logistic(&mut gates);
            let mut powers = vec![0.0; len];
            let total = exponential(&mut powers, &a, 0.25);
            for at in 0..len {
                let (a, b) = (a[at], b[at]);
                assert_eq!(sum[at], a + 0.5 * b);
                assert_eq!([product[at], scaled[at]], [a * b, 3.0 * a]);
                assert_eq!(
                    [squashed[at], gates[at]],
                    [exponential::tanh(a), exponential::logistic(a)]
                );
                assert_eq!(powers[at], exponential::exp(a - 0.25));
            }
            let exact: f64 = powers.iter().map(|&power| f64::from(power)).sum();
            assert!((f64::from(total) - exact).abs() <= len as f64 * 2f64.powi(-24) * exact);
            let exact: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let magnitudes: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from((a * b).abs())).sum();
            assert!((dot(&a, &b) - exact).abs() <= 68.0 * 2f64.powi(-24) * magnitudes);
        }
    }

    /// Squares that 32-bit floats cannot hold.
    #[test]
    fn a_norm_is_right_for_numbers_of_all_sizes() {
        for size in [1e-30f32, 1e-21, 1.0, 1e19, 1e30] {
            let numbers: Vec<f32> = numbers(5, 700).iter().map(|x| x * size).collect();
            let exact: f64 = numbers.iter().map(|&x| f64::from(x).powi(2)).sum();
            assert!(
                (dot(&numbers, &numbers) / exact - 1.0).abs() <= 68.0 * 2f64.powi(-24),
                "{size}"
            );
        }
        assert_eq!(dot(&[0.0; 300], &[0.0; 300]), 0.0);
        assert!(dot(&[f32::NAN, 1.0], &[1.0, 1.0]).is_nan());
    }

    #[test]
    fn rows_are_added_in_their_order() {
        for len in [1, 3, 4, 10] {
            let rows = numbers(3, 7 * len);
            let mut sum = numbers(4, len);
            let expected: Vec<f32> = (0..len)
                .map(|at| (0..7).fold(sum[at], |sum, row| sum + rows[row * len + at]))
                .collect();
            add_rows(&mut sum, &rows);
            assert_eq!(sum, expected);
        }
        add_rows(&mut [], &[]);
    }

    #[test]
    fn the_largest_is_found_anywhere_and_nan_is_larger() {
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
        for len in LENS.into_iter().skip(1) {
            for at in [0, len / 2, len - 1] {
                let mut values = vec![-3.0; len];
                values[at] = -2.0;
                assert_eq!(largest(&values), -2.0);
                values[at] = f32::NAN;
                assert!(largest(&values).is_nan());
            }
        }
    }
}
