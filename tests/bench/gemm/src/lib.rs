//! What `run.mjs` times: one product of matrices, as often as asked. The engine's module is compiled in as it is.

#[allow(dead_code, unused_imports, reason = "the benchmark has one thread")]
#[path = "../../../../crate/engine/src/crew/mod.rs"]
mod crew;
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the benchmark uses one of its forms"
)]
#[path = "../../../../crate/engine/src/backend/matrix/mod.rs"]
mod matrix;

use matrix::{Matrix, MatrixMut, multiply_into};

/// Operands and output.
struct Job {
    a: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
}

/// Makes operands for `m × n × k`.
#[unsafe(no_mangle)]
pub extern "C" fn prepare(m: usize, n: usize, k: usize) -> *mut core::ffi::c_void {
    let numbers = |len: usize| (0..len).map(|at| (at * 7 % 19) as f32 / 19.0 - 0.5).collect();
    let job = Job {
        a: numbers(m * k),
        b: numbers(k * n),
        out: vec![0.0; m * n],
    };
    Box::into_raw(Box::new(job)).cast()
}

/// Frees them.
///
/// # Safety
/// `job` is from `prepare`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discard(job: *mut core::ffi::c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(job.cast::<Job>()) });
}

/// Multiplies `times` times; bit 0 of `transposed` says that `a` is stored transposed, bit 1 the same of `b`. An element of the
/// output.
///
/// # Safety
/// `job` is what `prepare` gave for the same sizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn run(
    job: *mut core::ffi::c_void,
    m: usize,
    n: usize,
    k: usize,
    transposed: u32,
    times: u32,
) -> f32 {
    // SAFETY: the caller's promise.
    let job = unsafe { &mut *job.cast::<Job>() };
    let stored = |data, rows, columns, transposed| {
        if transposed {
            Matrix::new(data, columns, rows).transposed()
        } else {
            Matrix::new(data, rows, columns)
        }
    };
    for _ in 0..times {
        let a = stored(&job.a, m, k, transposed & 1 != 0);
        let b = stored(&job.b, k, n, transposed & 2 != 0);
        multiply_into(MatrixMut::new(&mut job.out, m, n), a, b, false);
    }
    job.out[job.out.len() / 2]
}

/// Multiplies small matrices of every size around a tile's, and some beyond a block's: how far a result is from the sum in
/// `f64`, at most, as a part of the error that rounding may make.
#[unsafe(no_mangle)]
pub extern "C" fn worst_error() -> f64 {
    let mut worst: f64 = 0.0;
    let sizes = (1..=13).flat_map(|m| (1..=18).flat_map(move |n| [1, 4, 7].map(|k| [m, n, k])));
    for [m, n, k] in sizes.chain([[101, 29, 330], [7, 530, 12], [70, 520, 9]]) {
        for transposed in 0..4 {
            let job = prepare(m, n, k);
            // SAFETY: `job` is for these sizes, and is discarded at the end.
            unsafe {
                run(job, m, n, k, transposed, 1);
                let Job { a, b, out } = &*job.cast::<Job>();
                for (at, &out) in out.iter().enumerate() {
                    let (i, j) = (at / n, at % n);
                    let (mut sum, mut magnitude) = (0.0, 0.0);
                    for p in 0..k {
                        let a = a[if transposed & 1 == 0 { i * k + p } else { p * m + i }];
                        let b = b[if transposed & 2 == 0 { p * n + j } else { j * k + p }];
                        sum += f64::from(a) * f64::from(b);
                        magnitude += (f64::from(a) * f64::from(b)).abs();
                    }
                    let allowed = (k + 1) as f64 * f64::from(f32::EPSILON) * magnitude + f64::MIN_POSITIVE;
                    worst = worst.max((f64::from(out) - sum).abs() / allowed);
                }
                discard(job);
            }
        }
    }
    worst
}
