//! How fast updates are added up, beside copying memory.
//!
//! ```text
//! cargo run --release -p unsaid-relay --example aggregation [COORDINATES]
//! ```
//!
//! Adds updates to one exact sum, on one thread, as a relay does: for each coordinate four bytes of the update and eight of the sum
//! are read, and eight are written. The updates lie one after the other in far more memory than any cache has, and with many
//! coordinates so does the sum. A copy of the same memory reads and writes each byte once; medians of 9.

// What fails here ends the measurement.
#![allow(clippy::unwrap_used)]

use std::{hint::black_box, time::Instant};

use unsaid_relay::aggregate::PartialSum;

/// Coordinates of all updates together: 1 GiB.
const ALL: usize = 1 << 28;

fn main() {
    let argument = std::env::args().nth(1);
    let sizes = match argument.and_then(|text| text.parse().ok()) {
        Some(size) => vec![size],
        None => vec![199_998, 1_663_370, 1 << 26],
    };
    let updates: Vec<i32> = (0..ALL as i32).collect();
    let mut copy = vec![0_i32; ALL];
    let copied = 8.0 * ALL as f64 / median(|| copy.copy_from_slice(black_box(&updates)));
    println!("a copy: {:.1} GB/s read and written", copied / 1e9);
    drop(copy);
    println!("coordinates   µs/update     GB/s   of a copy");
    for size in sizes {
        let mut sum = PartialSum::zero(size);
        let cohort = ALL / size;
        let took = median(|| {
            for update in updates.chunks_exact(size) {
                sum.add(black_box(update));
            }
        });
        let bandwidth = 20.0 * (cohort * size) as f64 / took;
        let share = bandwidth / copied;
        println!(
            "{size:11} {:11.1} {:8.1} {share:11.2}",
            1e6 * took / cohort as f64,
            bandwidth / 1e9
        );
        black_box(&sum);
    }
}

/// Seconds.
fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
