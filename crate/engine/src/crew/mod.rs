//! Threads that share the work of a step: one forks it into tasks, all that are there take tasks until none is left, and the
//! first goes on.
//!
//! Who has helpers decides: natively [`start`], in a browser a worker that shares the memory and calls [`help`]. A build for
//! browsers without shared memory has none, and no code for them.
//!
//! Into which parts work is cut depends on how many threads there are, never on which of them is free; no sum is cut. So the
//! number of threads changes no bit in wasm, and natively only what the `gemm` crate does otherwise for other sizes.

use std::ops::Range;

#[cfg(any(not(target_arch = "wasm32"), target_feature = "atomics"))]
mod threads;
#[cfg(any(not(target_arch = "wasm32"), target_feature = "atomics"))]
use threads::run;
#[cfg(not(target_arch = "wasm32"))]
pub use threads::start;
#[cfg(any(not(target_arch = "wasm32"), target_feature = "atomics"))]
pub use threads::{help, size};

/// Without threads: one after the other.
#[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
#[inline(always)]
fn run(tasks: usize, work: impl Fn(usize)) {
    (0..tasks).for_each(work);
}

/// Threads, this one included.
#[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
pub const fn size() -> usize {
    1
}

/// What a task should at least cost, in multiply-adds: below, it is not worth the fork. To fork and join takes 0.3 µs where helpers are
/// looking for work (measured natively, on two idle cores), and then what a task reads may lie in the other core's cache. This is 2 to 3 µs
/// of one thread, natively and in wasm. (With 2¹⁷ in wasm two threads were slower by 1.2 times on a perceptron and by 1.6 on a logistic
/// regression.)
#[cfg(any(not(target_arch = "wasm32"), target_feature = "atomics"))]
const WORTH: usize = if cfg!(target_arch = "wasm32") {
    1 << 15
} else {
    1 << 17
};

/// Cuts `0..count` into parts, each a multiple of `unit` but the last, and works on all of them; `cost` is that of one of
/// `count`.
#[inline(always)]
pub(crate) fn split(count: usize, unit: usize, cost: usize, work: impl Fn(Range<usize>) + Sync) {
    #[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
    {
        let _ = (unit, cost);
        work(0..count);
    }
    #[cfg(any(not(target_arch = "wasm32"), target_feature = "atomics"))]
    {
        let worth = count.saturating_mul(cost) / WORTH;
        let parts = size().min(worth).min(count.div_ceil(unit)).max(1);
        let part = count.div_ceil(parts).next_multiple_of(unit);
        run(count.div_ceil(part.max(1)), &|at: usize| {
            work(at * part..count.min((at + 1) * part))
        });
    }
}

/// Works on tasks `0..tasks`, of which there are as many however many threads there are.
#[inline(always)]
pub(crate) fn each(tasks: usize, work: impl Fn(usize) + Sync) {
    run(tasks, &work);
}

/// Numbers of which every task writes others.
pub(crate) struct Parts<'a, T = f32> {
    start: *mut T,
    len: usize,
    of: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow; whoever calls `part` from several threads promises that these do not meet.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub fn of(numbers: &'a mut [T]) -> Self {
        Self {
            start: numbers.as_mut_ptr(),
            len: numbers.len(),
            of: std::marker::PhantomData,
        }
    }

    /// # Safety
    /// While the part lives, no other is taken that overlaps it.
    ///
    /// # Panics
    /// Where it is not inside.
    #[inline(always)]
    pub unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part");
        // SAFETY: inside of what is borrowed, and by the caller's promise not borrowed again.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
