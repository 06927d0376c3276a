//! The sums of a lot's whole numbers: exact, however many examples there are, and cut off once, at the end.

use super::LIMIT;
use crate::backend::matrix::lane::{Lane, each_lane};

/// A sum for each parameter. What is asked for in the end is the exact sum, cut off at ±(2³⁰ − 1): so an example more or less moves it by no more
/// than its own whole number, since no two numbers are further apart when both are cut off.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// `[d]`, of the examples since the last that were carried over.
    sums: Vec<i32>,
    /// The sums of those before, `[d]`, where there are any. It is held all the same: an allocation that comes with a large lot could end a
    /// training by how many examples there are.
    carried: Vec<i64>,
    /// Whether any sums were carried over since the last were taken; else all of `carried` is 0.
    carries: bool,
    /// What the magnitude of a number of `sums` cannot be above.
    most: u64,
}

impl Totals {
    /// Bytes for each parameter, however large the lots are.
    pub const BYTES: u64 = 4 + 8;

    /// Makes them sums of `len` parameters, if they are of none yet. Nothing else allocates.
    pub fn resize(&mut self, len: usize) {
        if self.sums.len() != len {
            self.sums = vec![0; len];
            self.carried = vec![0; len];
        }
    }

    /// The sums, `[d]`, with room for `examples` more, none of whose whole numbers is above `largest` in magnitude.
    pub fn room_for(&mut self, examples: usize, largest: u64) -> &mut [i32] {
        let more = largest.saturating_mul(examples as u64);
        self.most = self.most.saturating_add(more);
        if self.most > i32::MAX as u64 {
            self.most = more;
            self.carries = true;
            for (carried, sum) in self.carried.iter_mut().zip(&mut self.sums) {
                *carried += i64::from(std::mem::take(sum));
            }
        }
        &mut self.sums
    }

    /// Writes the sums, cut off at ±(2³⁰ − 1), and the `noise`, times `unit`, to `mean`, and begins again at 0.
    pub fn noised(&mut self, noise: &[i32], unit: f32, mean: &mut [f32]) {
        let most = std::mem::take(&mut self.most);
        let len = self.sums.len();
        assert!(noise.len() == len && mean.len() == len, "lengths");
        if std::mem::take(&mut self.carries) || most > LIMIT as u64 {
            let limit = i64::from(LIMIT);
            for (carried, sum) in self.carried.iter_mut().zip(&mut self.sums) {
                let all = i64::from(*sum) + std::mem::take(carried);
                *sum = all.clamp(-limit, limit) as i32;
            }
        }
        let (sums, noise) = (self.sums.as_mut_ptr().cast::<f32>(), noise.as_ptr().cast::<f32>());
        let mean = mean.as_mut_ptr();
        each_lane!(len, |at: L| {
            // SAFETY: all are as long.
            unsafe {
                let whole = L::load(sums.add(at)).add_bits(L::load(noise.add(at)));
                whole.of_whole().mul(L::splat(unit)).store(mean.add(at));
                L::splat(0.0).store(sums.add(at));
            }
        });
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        (4 * self.sums.capacity() + 8 * self.carried.capacity()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums, to what 32-bit floats have of them: where they are cut off, that is 2³⁰.
    fn taken(totals: &mut Totals) -> Vec<i32> {
        let mut mean = vec![9.0; 3];
        totals.noised(&[0, 1, 0], 0.5, &mut mean);
        mean[1] -= 0.5;
        mean.into_iter().map(|sum| (2.0 * sum) as i32).collect()
    }

    /// Nothing is allocated, nor freed, by how large a lot is.
    #[test]
    fn a_lot_of_any_size_holds_the_same_memory() {
        let mut totals = Totals::default();
        totals.resize(3);
        let bytes = totals.bytes();
        assert_eq!(bytes, 3 * Totals::BYTES);
        for lot in [0, 1, 1000, 1] {
            let mut carried = 0;
            for _ in 0..lot {
                totals.room_for(1, 1 << 24)[0] += 1 << 24;
                carried += usize::from(totals.carries);
            }
            assert_eq!((totals.bytes(), carried > 0), (bytes, lot == 1000));
            taken(&mut totals);
            assert_eq!(totals.bytes(), bytes);
        }
    }

    #[test]
    fn sums_are_exact_beyond_32_bits_and_cut_off_once() {
        let largest = 1 << 24;
        let mut totals = Totals::default();
        totals.resize(3);
        for (examples, sign) in [(1000, 1), (1000, -1), (10, 1)] {
            for _ in 0..examples {
                let sums = totals.room_for(1, largest);
                sums[0] += sign << 24;
                sums[1] += sign * 5;
                sums[2] += 1 << 24;
            }
        }
        // Cut off on the way, the first would be below 0.
        assert_eq!(taken(&mut totals), [10 << 24, 50, 1 << 30]);
        assert_eq!(taken(&mut totals), [0; 3], "it begins again");
        totals.room_for(16, largest)[2] = -(1 << 28);
        assert_eq!(taken(&mut totals), [0, 0, -(1 << 28)]);
        for _ in 0..65 {
            totals.room_for(1, largest)[0] -= 1 << 24;
        }
        assert_eq!(taken(&mut totals), [-(1 << 30), 0, 0]);
    }
}
