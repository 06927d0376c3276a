//! Whole numbers of gradients that are outer products, added up without any gradient being written down.
//!
//! Of a dense layer an example's gradient is `[x | 1]ᵀ·δ`, and its whole numbers are `round(xᵣ·e_c)` with `e = δ·f`, scaled once. So they
//! are made where they are added: a product, a rounding and an addition each, over examples that share what is read and written. What is
//! rounded is one product of two numbers of the example, so that no sum over others comes near it.

#[cfg(any(test, target_arch = "wasm32"))]
use crate::backend::matrix::lane::{Lane, each_lane};
use crate::{
    crew::{self, Parts},
    ops::dense::Dense,
};

/// 1.5·2²³: the sum of it and a number of at most 2²² is that number rounded to a whole one (ties to even), in the sum's last bits:
/// between 2²³ and 2²⁴ neighbouring floats are 1 apart.
const TO_WHOLE: f32 = 12_582_912.0;

/// Examples whose numbers are added in one pass over sums.
const AT_ONCE: usize = 4;

/// What is taken off again of a sum of the bits of as many numbers.
const SHIFT: i32 = (TO_WHOLE.to_bits() as i32).wrapping_mul(AT_ONCE as i32);

/// Numbers of sums that stay in the first cache while all examples are added to them.
const BLOCK: usize = 4096;

/// Adds the whole numbers of those `examples` of a batch that may count to the sums of `dense`, `[inputs + 1, outputs]`: its inputs are
/// `x`, `[rows, inputs]`, and the scaled gradients of its outputs `e`, `[rows, outputs]`. No product of the two is above 2²² in magnitude.
///
/// # Panics
/// Where one of the examples is not there.
pub(crate) fn add(sums: &mut [i32], x: &[f32], e: &[f32], examples: &[usize], dense: &Dense) {
    let (inputs, outputs) = (dense.inputs, dense.outputs);
    let there = |&row: &usize| row < x.len() / inputs && row < e.len() / outputs;
    assert!(examples.iter().all(there), "examples");
    let sums = Parts::of(&mut sums[dense.parameters()]);
    let zeros = vec![0.0; outputs];
    crew::split(inputs + 1, 1, 2 * outputs * examples.len(), |lines| {
        let mut first = lines.start;
        while first < lines.end {
            // The bias is behind the kernel, and its input is 1.
            let last = lines.end.min(first + (BLOCK / outputs).max(1));
            let last = if first < inputs { last.min(inputs) } else { last };
            // SAFETY: every thread has other lines.
            let sums = unsafe { sums.part(first * outputs..last * outputs) };
            for some in examples.chunks(AT_ONCE) {
                let mut lines = Lines {
                    sums: sums.as_mut_ptr(),
                    count: last - first,
                    outputs,
                    factors: [&raw const ONE; AT_ONCE],
                    numbers: [zeros.as_ptr(); AT_ONCE],
                };
                for at in 0..AT_ONCE {
                    // Where there are fewer, the first fills up, times 0: its numbers are finite.
                    let example = some.get(at).unwrap_or(&some[0]);
                    if first < inputs {
                        lines.factors[at] = x.as_ptr().wrapping_add(example * inputs + first);
                    }
                    if at < some.len() {
                        lines.numbers[at] = e.as_ptr().wrapping_add(example * outputs);
                    }
                }
                // SAFETY: by the assertion above.
                unsafe { lines.add() };
            }
            first = last;
        }
    });
}

/// What a bias is multiplied with.
static ONE: f32 = 1.0;

/// Some lines of sums, `[count, outputs]`, and what is added to them: `Σ round(factors[r] · numbers[c])`.
struct Lines {
    sums: *mut i32,
    count: usize,
    outputs: usize,
    /// Each has `count` numbers.
    factors: [*const f32; AT_ONCE],
    /// Each has as many as there are outputs.
    numbers: [*const f32; AT_ONCE],
}

impl Lines {
    /// By the widest vectors that the machine has, which changes no bit.
    ///
    /// # Safety
    /// All that is named above can be read and, of the sums, written, and nothing else borrows the sums.
    unsafe fn add(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            #[cfg(target_arch = "wasm32")]
            self.add_by_lanes();
            #[cfg(not(target_arch = "wasm32"))]
            self.add_widely();
        }
    }

    /// # Safety
    /// As for [`Self::add`].
    #[cfg(not(target_arch = "wasm32"))]
    unsafe fn add_widely(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512(lines: &Lines) {
                // SAFETY: the caller's promise.
                unsafe { lines.add_here() };
            }
            #[target_feature(enable = "avx2")]
            unsafe fn avx2(lines: &Lines) {
                // SAFETY: the caller's promise.
                unsafe { lines.add_here() };
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the caller's promise, and the machine has it.
                return unsafe { avx512(self) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: likewise.
                return unsafe { avx2(self) };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.add_here() };
    }

    /// # Safety
    /// As for [`Self::add`].
    #[cfg(not(target_arch = "wasm32"))]
    #[inline(always)]
    unsafe fn add_here(&self) {
        // SAFETY: the caller's promise.
        let slice = |at: *const f32| unsafe { std::slice::from_raw_parts(at, self.outputs) };
        let [n0, n1, n2, n3] = self.numbers.map(slice);
        for line in 0..self.count {
            // SAFETY: the caller's promise.
            let sums =
                unsafe { std::slice::from_raw_parts_mut(self.sums.add(line * self.outputs), self.outputs) };
            // SAFETY: likewise.
            let [f0, f1, f2, f3] = self.factors.map(|factors| unsafe { factors.add(line).read() });
            let whole = |factor: f32, number: f32| (factor * number + TO_WHOLE).to_bits().cast_signed();
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = sum
                    .wrapping_sub(SHIFT)
                    .wrapping_add(whole(f0, n0[at]))
                    .wrapping_add(whole(f1, n1[at]))
                    .wrapping_add(whole(f2, n2[at]))
                    .wrapping_add(whole(f3, n3[at]));
            }
        }
    }

    /// Four numbers at a time, and written out: the browser build is compiled for size, which leaves loops as they are.
    ///
    /// # Safety
    /// As for [`Self::add`].
    #[cfg(any(test, target_arch = "wasm32"))]
    unsafe fn add_by_lanes(&self) {
        let ([n0, n1, n2, n3], len) = (self.numbers, self.outputs);
        let [mut f0, mut f1, mut f2, mut f3] = self.factors;
        let (mut to, mut left) = (self.sums.cast::<f32>(), self.count);
        while left > 0 {
            // SAFETY: the caller's promise; the pointers end behind the last line.
            unsafe {
                let (a, b, c, d) = (f0.read(), f1.read(), f2.read(), f3.read());
                each_lane!(len, |at: L| {
                    let to_whole = L::splat(TO_WHOLE);
                    L::load(to.add(at))
                        .add_bits(L::splat(f32::from_bits(SHIFT.wrapping_neg().cast_unsigned())))
                        .add_bits(L::load(n0.add(at)).mul(L::splat(a)).add(to_whole))
                        .add_bits(L::load(n1.add(at)).mul(L::splat(b)).add(to_whole))
                        .add_bits(L::load(n2.add(at)).mul(L::splat(c)).add(to_whole))
                        .add_bits(L::load(n3.add(at)).mul(L::splat(d)).add(to_whole))
                        .store(to.add(at));
                });
            }
            (f0, f1) = (f0.wrapping_add(1), f1.wrapping_add(1));
            (f2, f3) = (f2.wrapping_add(1), f3.wrapping_add(1));
            to = to.wrapping_add(len);
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
