use super::*;
use crate::optim::lot::{Lot, Outer};

/// Numbers of all sizes, some of them 0, from a linear congruential generator.
fn numbers(seed: u64, len: usize, decades: i32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0
    };
    let mut number = || match next() {
        none if none < 0.1 => 0.0,
        _ => (2.0 * next() - 1.0) * 10f32.powf((2.0 * next() - 1.0) * decades as f32),
    };
    (0..len).map(|_| number()).collect()
}

fn dense(inputs: usize, outputs: usize) -> Dense {
    Dense {
        positions: 1,
        inputs,
        outputs,
        offset: 3,
        relu: false,
    }
}

/// What one example adds, number by number, rounded in `f64` as the standard library rounds.
fn alone(x: &[f32], e: &[f32]) -> Vec<i32> {
    let rows = x.iter().copied().chain([1.0]);
    let whole = rows.flat_map(|x| e.iter().map(move |e| f64::from(x * e).round_ties_even() as i32));
    [0; 3].into_iter().chain(whole).chain([0; 2]).collect()
}

const SIZES: [[usize; 2]; 9] = [
    [1, 1],
    [2, 3],
    [5, 4],
    [3, 10],
    [4, 16],
    [7, 31],
    [2, 67],
    [130, 9],
    [33, 130],
];

/// Each number is that of the example alone, whoever is added beside it and in which order, and nothing beside the layer is touched.
#[test]
fn sums_are_those_of_each_example_alone_and_others_are_not_read() {
    for [inputs, outputs] in SIZES {
        let rows = 17;
        let (mut x, mut e) = (numbers(1, rows * inputs, 3), numbers(2, rows * outputs, 3));
        // Two who may not count: nothing of them is read.
        for row in [0, 9] {
            x[row * inputs..][..inputs].fill(f32::NAN);
            e[row * outputs..][..outputs].fill(f32::INFINITY);
        }
        let dense = dense(inputs, outputs);
        let counted = |row: usize| ![0, 9].contains(&row);
        let all: Vec<usize> = (0..rows).filter(|&row| counted(row)).collect();
        let backwards: Vec<usize> = all.iter().rev().copied().collect();
        for examples in [&all[..], &backwards, &all[..1], &all[3..5], &all[4..8], &[]] {
            let mut sums: Vec<i32> = (0..dense.parameters().end as i32 + 2)
                .map(|at| at * 7 - 50)
                .collect();
            let mut expected = sums.clone();
            for &row in examples {
                let own = alone(&x[row * inputs..][..inputs], &e[row * outputs..][..outputs]);
                expected.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            }
            add(&mut sums, &x, &e, examples, &dense);
            assert_eq!(sums, expected, "{inputs}×{outputs}, {examples:?}");
        }
    }
}

/// The loops that wasm has, and those without wide vectors, give what the machine's own give.
#[test]
fn every_loop_gives_the_same_bits() {
    for outputs in 1..70 {
        let numbers: Vec<Vec<f32>> = (0..4).map(|seed| numbers(seed, outputs, 3)).collect();
        let numbers = [&numbers[0][..], &numbers[1], &numbers[2], &numbers[3]];
        // Ties, too: a half of odd whole numbers.
        let factors = [
            [0.5, 1e-30, 7.0],
            [-1.5, 3.0, -8.5],
            [1e3, -1.0, 0.1],
            [0.0, 0.25, -0.0],
        ];
        let pointers = [0, 1, 2, 3].map(|which: usize| factors[which].as_ptr());
        let loops = [Lines::add, Lines::add_here, Lines::add_by_lanes];
        // Sums that lie, as bits, where floats are usual, and where they are numbers that are none and signal: to move such must change no bit.
        let starts = [5 - (1 << 30), -5_000_000];
        for (add, before) in loops
            .into_iter()
            .flat_map(|add| starts.map(|before| (add, before)))
        {
            let mut sums = vec![before; 3 * outputs];
            let lines = Lines {
                sums: sums.as_mut_ptr(),
                count: 3,
                outputs,
                factors: pointers,
                numbers: numbers.map(<[f32]>::as_ptr),
            };
            // SAFETY: all are as long as it says.
            unsafe { add(&lines) };
            for (at, sum) in sums.iter().enumerate() {
                let (line, column) = (at / outputs, at % outputs);
                let whole =
                    |which: usize| f64::from(factors[which][line] * numbers[which][column]).round_ties_even();
                let all: f64 = (0..4).map(whole).sum();
                assert_eq!(*sum, before + all as i32);
            }
        }
    }
}

/// Numbers up to the largest that a bound lets through are rounded right, ties to even.
#[test]
fn products_up_to_the_largest_bound_are_rounded_right() {
    let dense = dense(1, 1);
    let round = |x: f32, e: f32| {
        let mut sums = vec![0; 5];
        add(&mut sums, &[x], &[e], &[0], &dense);
        sums[3]
    };
    let largest = Lot::new(1.0, 1.0, 1 << 42, 1).largest() as f32;
    for (product, whole) in [
        (largest, largest as i32),
        (-largest, -(largest as i32)),
        (4_194_304.0, 4_194_304),
        (-4_194_304.0, -4_194_304),
        (2_097_151.5, 2_097_152),
        (2_097_150.5, 2_097_150),
        (-0.5, 0),
        (1.5, 2),
        (-2.5, -2),
        (0.49999997, 0),
        (1e-45, 0),
        (-0.0, 0),
    ] {
        assert_eq!(round(1.0, product), whole, "{product}");
    }
    // Factors far apart, whose product is as usual.
    assert_eq!(round(1e38, 1e-36), 100);
    assert_eq!(round(-1e-40, 1e38), 0);
}

/// What is proven of outer numbers holds, for factors of all sizes, and is no more than the design allows for: the norm is no more than a
/// clip norm with its allowance, and half a step for each number.
#[test]
fn what_is_proven_of_the_length_of_outer_numbers_holds_and_is_close() {
    let mut closest = 0.0_f64;
    for seed in 0..400 {
        let [inputs, outputs] = SIZES[seed as usize % SIZES.len()];
        let dense = dense(inputs, outputs);
        let x = numbers(seed, inputs, 1 + (seed % 37) as i32);
        let delta = numbers(seed + 1000, outputs, 1 + (seed % 5) as i32);
        let lot = Lot::new(1.0, 1.0 / 262_144.0, 1 << 42, 1);
        let input = 1.0 + crate::ops::ghost::squared(&x);
        let norm = input * crate::ops::ghost::squared(&delta);
        let factor = lot.factor(norm).unwrap();
        let e: Vec<f32> = delta.iter().map(|d| (f64::from(*d) * factor) as f32).collect();
        let outer = Outer {
            squared: input * crate::ops::ghost::squared(&e),
            count: dense.parameters().len(),
        };
        let mut sums = vec![0; dense.parameters().end];
        add(&mut sums, &x, &e, &[0], &dense);
        let squared: u64 = sums.iter().map(|v| u64::from(v.unsigned_abs()).pow(2)).sum();
        // The least bound that lets it in.
        let least = (0..64).rev().fold(0u64, |below, bit| {
            let tried = below | 1 << bit;
            let lets_in = Lot::new(1.0, 1.0, tried, 1).admits(0.0, outer);
            if lets_in { below } else { tried }
        }) + 1;
        assert!(squared <= least, "{seed}: {squared} {least}");
        let designed = 262_144.0 * (1.0 + 1.0 / 16_384.0) + (outer.count as f64).sqrt() / 2.0;
        assert!((least as f64).sqrt() <= designed, "{seed}: {least}");
        closest = closest.max((squared as f64 / least as f64).sqrt());
    }
    assert!(closest > 0.9999, "{closest}");
}
