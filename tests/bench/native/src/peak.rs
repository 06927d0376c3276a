//! What the `gemm` crate reaches at most, as the engine calls it: one large product on each thread, all at once.

use std::{sync::Barrier, thread};

use crate::now_ms;

/// Lines, columns and depth: operands that fill no more than the second cache of each core.
const SIZE: usize = 384;
const REPEATS: usize = 20;
const ROUNDS: usize = 10;

/// GFLOP/s of so many threads together: the best of a few rounds, since what else the machine does can only slow them.
pub(crate) fn measure(threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let rates = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| rounds(&barrier))).collect();
        let rates = workers.into_iter().filter_map(|worker| worker.join().ok());
        rates.collect::<Vec<_>>()
    });
    let round = |round: usize| rates.iter().map(|rates| rates[round]).sum::<f64>();
    (0..ROUNDS).map(round).fold(0.0, f64::max)
}

fn rounds(barrier: &Barrier) -> [f64; ROUNDS] {
    let a: Vec<f32> = (0..SIZE * SIZE).map(|at| (at % 19) as f32 / 19.0 - 0.5).collect();
    let mut out = vec![0.0f32; SIZE * SIZE];
    let stride = SIZE as isize;
    std::array::from_fn(|_| {
        barrier.wait();
        let start = now_ms();
        for _ in 0..REPEATS {
            // SAFETY: all three are `SIZE × SIZE`, row by row, and the output overlaps no operand.
            unsafe {
                gemm::gemm(
                    SIZE,
                    SIZE,
                    SIZE,
                    out.as_mut_ptr(),
                    1,
                    stride,
                    false,
                    a.as_ptr(),
                    1,
                    stride,
                    a.as_ptr(),
                    1,
                    stride,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
        let ms = now_ms() - start;
        2.0 * (SIZE * SIZE * SIZE * REPEATS) as f64 / ms / 1e6
    })
}
