//! All ways to multiply, the crate's and our own two (in plain arrays of four), against sums in `f64`.

use super::{lane::Scalars, *};

/// Numbers in [-1, 1), the same in every run (a linear congruential generator with Knuth's constants).
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// How an operand is given.
#[derive(Clone, Copy, Debug)]
enum Given {
    RowMajor,
    Transposed,
    /// With gaps between rows.
    Gaps,
    /// With gaps between rows and between columns.
    Scattered,
    Source,
    TransposedSource,
}

const GIVEN: [Given; 6] = [
    Given::RowMajor,
    Given::Transposed,
    Given::Gaps,
    Given::Scattered,
    Given::Source,
    Given::TransposedSource,
];

impl Given {
    /// The matrix of this size whose numbers come from `data`.
    fn matrix(self, data: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
        match self {
            Self::RowMajor | Self::Source => Matrix::new(&data[..rows * columns], rows, columns),
            Self::Transposed | Self::TransposedSource => {
                Matrix::new(&data[..rows * columns], columns, rows).transposed()
            }
            Self::Gaps => Matrix::strided(data, rows, columns, columns + 3, 1),
            Self::Scattered => Matrix::strided(data, rows, columns, 2 * columns + 1, 2),
        }
    }

    fn operand<'a>(self, matrix: &'a Matrix<'a>, turned: &'a Matrix<'a>) -> Operand<'a> {
        match self {
            Self::Source => Operand::Source(matrix),
            Self::TransposedSource => Operand::Transposed(turned),
            _ => Operand::Matrix(*matrix),
        }
    }
}

/// What becomes of the product.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Overwrite,
    Add,
    Bias,
    BiasRelu,
}

const ENDINGS: [Ending; 4] = [Ending::Overwrite, Ending::Add, Ending::Bias, Ending::BiasRelu];

type Product = fn(MatrixMut<'_>, Operand<'_>, Operand<'_>, Start<'_>, bool);

const PRODUCTS: [(&str, Product); 3] = [
    ("crate", product),
    ("own", blocked::product::<Scalars<false>>),
    ("own, fused", blocked::product::<Scalars<true>>),
];

/// Rows of the output are this much longer than the product's, and the rest must stay as it was.
const GAP: usize = 2;

fn check([m, n, k]: [usize; 3], a: Given, b: Given, ending: Ending) {
    let (a_data, b_data) = (
        numbers(2 * m * k + m + 3 * m, 1),
        numbers(2 * k * n + k + 3 * k, 2),
    );
    let (before, bias) = (numbers(m * (n + GAP), 3), numbers(n, 4));
    let (lhs, rhs) = (a.matrix(&a_data, m, k), b.matrix(&b_data, k, n));
    let (lhs_turned, rhs_turned) = (lhs.transposed(), rhs.transposed());
    let start = match ending {
        Ending::Overwrite => Start::Zero,
        Ending::Add => Start::Output,
        Ending::Bias | Ending::BiasRelu => Start::Row(&bias),
    };
    let relu = matches!(ending, Ending::BiasRelu);
    for (name, product) in PRODUCTS {
        let mut out = before.clone();
        product(
            MatrixMut::strided(&mut out, m, n, n + GAP),
            a.operand(&lhs, &lhs_turned),
            b.operand(&rhs, &rhs_turned),
            start,
            relu,
        );
        for i in 0..m {
            for j in 0..n {
                let mut sum = match ending {
                    Ending::Overwrite => 0.0,
                    Ending::Add => f64::from(before[i * (n + GAP) + j]),
                    Ending::Bias | Ending::BiasRelu => f64::from(bias[j]),
                };
                let mut magnitude = f64::abs(sum);
                for p in 0..k {
                    let product = f64::from(lhs.data[i * lhs.row_stride + p * lhs.column_stride])
                        * f64::from(rhs.data[p * rhs.row_stride + j * rhs.column_stride]);
                    sum += product;
                    magnitude += product.abs();
                }
                if relu {
                    sum = sum.max(0.0);
                }
                // k products and k additions, each rounded to half a unit in the last place of what is at most the sum of the
                // magnitudes: Higham, "Accuracy and Stability of Numerical Algorithms", (3.5), for any order of the sum.
                let units = (k + 1) as f64 * f64::from(f32::EPSILON) / 2.0;
                let tolerance = units / (1.0 - units) * magnitude;
                let got = f64::from(out[i * (n + GAP) + j]);
                assert!(
                    (got - sum).abs() <= tolerance,
                    "{name}, {m}×{n}×{k}, {a:?} × {b:?}, {ending:?}: ({i}, {j}) is {got}, not {sum} ± {tolerance}"
                );
            }
            let gap = i * (n + GAP) + n..(i + 1) * (n + GAP);
            assert_eq!(
                out[gap.clone()],
                before[gap],
                "{name}: the gap behind row {i} was written"
            );
        }
    }
}

#[test]
fn products_agree_with_f64_for_small_sizes_around_every_tile() {
    for m in 1..=14 {
        for n in 1..=18 {
            for k in [1, 2, 3, 4, 5, 7, 8, 13] {
                let given = (m * 31 + n * 7 + k) % 36;
                check(
                    [m, n, k],
                    GIVEN[given % 6],
                    GIVEN[given / 6],
                    ENDINGS[(m + n + k) % 4],
                );
            }
        }
    }
}

#[test]
fn products_agree_with_f64_however_the_operands_are_given() {
    for a in GIVEN {
        for b in GIVEN {
            for ending in ENDINGS {
                for size in [
                    [1, 1, 1],
                    [6, 8, 16],
                    [13, 21, 11],
                    [5, 10, 37],
                    [101, 3, 6],
                    [3, 29, 330],
                ] {
                    check(size, a, b, ending);
                }
            }
        }
    }
}

#[test]
fn products_agree_with_f64_beyond_one_block_in_each_dimension() {
    for a in GIVEN {
        for b in GIVEN {
            let ending = ENDINGS[(a as usize + b as usize) % 4];
            check([197, 17, 9], a, b, ending);
            check([7, 1033, 5], a, b, ending);
            check([10, 11, 647], a, b, ending);
        }
    }
    check(
        [103, 523, 331],
        Given::RowMajor,
        Given::RowMajor,
        Ending::BiasRelu,
    );
    check(
        [520, 19, 521],
        Given::Source,
        Given::TransposedSource,
        Ending::Add,
    );
}

/// Threads may cut rows so that one is left over: what it gets must not depend on that.
#[test]
fn a_row_by_itself_has_the_bits_that_it_has_among_others() {
    fn check<L: lane::Block>() {
        for [n, k] in [
            [4, 1],
            [7, 3],
            [8, 4],
            [10, 784],
            [33, 5],
            [130, 331],
            [1024, 256],
        ] {
            for b in [Given::RowMajor, Given::Transposed, Given::Gaps, Given::Scattered] {
                for ending in ENDINGS {
                    let (a_data, b_data) = (numbers(3 * k, 1), numbers(2 * k * n + k + 3 * k, 2));
                    let (before, bias) = (numbers(3 * n, 3), numbers(n, 4));
                    let start = match ending {
                        Ending::Overwrite => Start::Zero,
                        Ending::Add => Start::Output,
                        Ending::Bias | Ending::BiasRelu => Start::Row(&bias),
                    };
                    let relu = matches!(ending, Ending::BiasRelu);
                    let (a, b) = (Matrix::new(&a_data, 3, k), b.matrix(&b_data, k, n));
                    let mut together = before.clone();
                    let out = MatrixMut::new(&mut together, 3, n);
                    blocked::product::<L>(out, a.into(), b.into(), start, relu);
                    let mut alone = before.clone();
                    let out = MatrixMut::new(&mut alone[n..2 * n], 1, n);
                    blocked::product::<L>(out, a.some_rows(&(1..2)).into(), b.into(), start, relu);
                    let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(
                        bits(&alone[n..2 * n]),
                        bits(&together[n..2 * n]),
                        "{n}×{k}, {ending:?}"
                    );
                    assert_eq!((&alone[..n], &alone[2 * n..]), (&before[..n], &before[2 * n..]));
                }
            }
        }
    }
    check::<Scalars<false>>();
    check::<Scalars<true>>();
}

/// All ways to multiply rows that are apart that this machine has.
fn ways_apart() -> Vec<(&'static str, Apart)> {
    let mut ways: Vec<(&'static str, Apart)> = vec![
        ("chosen", apart::product),
        ("tiles", |out, a, b, start, relu| {
            blocked::product::<Scalars<false>>(out, a.into(), b.into(), start, relu);
        }),
        ("tiles, fused", |out, a, b, start, relu| {
            blocked::product::<Scalars<true>>(out, a.into(), b.into(), start, relu);
        }),
    ];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has it.
            ways.push(("avx512", |out, a, b, start, relu| unsafe {
                apart::x86::avx512(&out, a, b, start, relu);
            }));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has them.
            ways.push(("avx2", |out, a, b, start, relu| unsafe {
                apart::x86::avx2(&out, a, b, start, relu);
            }));
        }
    }
    ways
}

type Apart = fn(MatrixMut<'_>, Matrix<'_>, Matrix<'_>, Start<'_>, bool);

fn bits(row: &[f32]) -> Vec<u32> {
    // What kind of none a number is has no part in anything.
    row.iter()
        .map(|v| {
            if v.is_nan() {
                f32::NAN.to_bits()
            } else {
                v.to_bits()
            }
        })
        .collect()
}

/// What private training stands on: each row is, to the last bit, what it is alone, in every place, beside rows of all sizes and beside
/// infinite ones and such as are no numbers; and it is right.
#[test]
fn rows_that_are_apart_have_the_bits_that_each_has_alone_in_every_place_and_company() {
    for (name, product) in ways_apart() {
        for [n, k] in [
            [1, 1],
            [3, 2],
            [8, 5],
            [9, 64],
            [10, 784],
            [17, 3],
            [66, 331],
            [9, 647],
        ] {
            for b in [Given::RowMajor, Given::Transposed, Given::Gaps, Given::Scattered] {
                let (row, b_data) = (numbers(k, 1), numbers(2 * k * n + k + 3 * k, 2));
                let (bias, matrix) = (numbers(n, 4), b.matrix(&b_data, k, n));
                for (start, relu) in [
                    (Start::Zero, false),
                    (Start::Row(&bias), false),
                    (Start::Row(&bias), true),
                ] {
                    let mut alone = vec![9.0; n];
                    let a = Matrix::new(&row, 1, k);
                    product(MatrixMut::new(&mut alone, 1, n), a, matrix, start, relu);
                    let units = (k + 1) as f64 * f64::from(f32::EPSILON) / 2.0;
                    for (j, got) in alone.iter().enumerate() {
                        let first = if matches!(start, Start::Row(_)) {
                            f64::from(bias[j])
                        } else {
                            0.0
                        };
                        let products = (0..k).map(|p| {
                            let weight = b_data[p * matrix.row_stride + j * matrix.column_stride];
                            f64::from(row[p]) * f64::from(weight)
                        });
                        let sum = first + products.clone().sum::<f64>();
                        let sum = if relu { sum.max(0.0) } else { sum };
                        let magnitude = first.abs() + products.map(f64::abs).sum::<f64>();
                        assert!(
                            (f64::from(*got) - sum).abs() <= units / (1.0 - units) * magnitude,
                            "{name}, {n}×{k}, {b:?}: {got} is not {sum}"
                        );
                    }
                    for m in [2, 5, 16, 19] {
                        for company in [1.0, 1e30, 1e-38, f32::INFINITY, f32::NAN] {
                            let mut a_data: Vec<f32> =
                                numbers(m * k, 7).iter().map(|value| value * company).collect();
                            for place in [0, m / 2, m - 1] {
                                let before = a_data[place * k..(place + 1) * k].to_vec();
                                a_data[place * k..(place + 1) * k].copy_from_slice(&row);
                                let mut out = vec![9.0; m * n];
                                let a = Matrix::new(&a_data, m, k);
                                product(MatrixMut::new(&mut out, m, n), a, matrix, start, relu);
                                assert_eq!(
                                    bits(&out[place * n..(place + 1) * n]),
                                    bits(&alone),
                                    "{name}, {m}×{n}×{k}, {b:?}, {place} beside {company}"
                                );
                                a_data[place * k..(place + 1) * k].copy_from_slice(&before);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Wide and narrow vectors fuse alike.
#[test]
#[cfg(target_arch = "x86_64")]
fn rows_that_are_apart_have_the_same_bits_with_vectors_of_every_width() {
    let (a, b) = (numbers(21 * 130, 1), numbers(130 * 19, 2));
    let (a, b) = (Matrix::new(&a, 21, 130), Matrix::new(&b, 130, 19));
    let wide: Vec<Vec<u32>> = ways_apart()
        .into_iter()
        .filter(|(name, _)| name.starts_with("avx"))
        .map(|(_, product)| {
            let mut out = vec![9.0; 21 * 19];
            product(MatrixMut::new(&mut out, 21, 19), a, b, Start::Zero, false);
            bits(&out)
        })
        .collect();
    assert!(wide.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn an_empty_inner_dimension_gives_what_the_sums_start_from() {
    for a in GIVEN {
        for b in GIVEN {
            for ending in ENDINGS {
                check([5, 10, 0], a, b, ending);
            }
        }
    }
}

#[test]
fn an_empty_output_is_left_alone() {
    for (m, n) in [(0, 3), (3, 0), (0, 0)] {
        let (a, b) = (vec![1.0; m * 2], vec![1.0; 2 * n]);
        multiply(&mut [], Matrix::new(&a, m, 2), Matrix::new(&b, 2, n), false);
    }
}

#[test]
fn what_is_not_a_number_passes_the_relu() {
    for (name, product) in PRODUCTS {
        let mut out = [0.0; 12];
        let (a, b) = ([f32::NAN, -1.0, 2.0], [1.0; 4]);
        product(
            MatrixMut::new(&mut out, 3, 4),
            Matrix::new(&a, 3, 1).into(),
            Matrix::new(&b, 1, 4).into(),
            Start::Row(&[0.0; 4]),
            true,
        );
        assert!(out[..4].iter().all(|value| value.is_nan()), "{name}");
        assert_eq!(out[4..], [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0], "{name}");
    }
}

#[test]
fn forms_that_the_operations_use_pass_their_wishes_on() {
    let (a, b) = ([1.0, 2.0], [3.0, -4.0]);
    let (a, b) = (Matrix::new(&a, 2, 1), Matrix::new(&b, 1, 2));
    let mut out = [1.0; 4];
    multiply(&mut out, a, b, true);
    assert_eq!(out, [4.0, -3.0, 7.0, -7.0]);
    multiply(&mut out, a, b, false);
    assert_eq!(out, [3.0, -4.0, 6.0, -8.0]);
    let bias = [-4.0, 5.0];
    for (epilogue, expected) in [
        (Epilogue::None, [3.0, -4.0, 6.0, -8.0]),
        (Epilogue::Bias(&bias), [-1.0, 1.0, 2.0, -3.0]),
        (Epilogue::BiasRelu(&bias), [0.0, 1.0, 2.0, 0.0]),
    ] {
        multiply_then(MatrixMut::new(&mut out, 2, 2), a, b, epilogue);
        assert_eq!(out, expected);
    }
}

#[test]
#[should_panic(expected = "matrix length")]
fn strides_beyond_the_slice_are_refused() {
    Matrix::strided(&[0.0; 11], 3, 4, 4, 1);
}

#[test]
#[should_panic(expected = "matrix length")]
fn strides_that_overflow_are_refused() {
    Matrix::strided(&[0.0; 4], 3, 1, usize::MAX / 2 + 1, 1);
}

#[test]
#[should_panic(expected = "rows overlap")]
fn an_output_whose_rows_overlap_is_refused() {
    MatrixMut::strided(&mut [0.0; 12], 3, 4, 3);
}

#[test]
#[should_panic(expected = "inner dimensions")]
fn operands_that_do_not_fit_are_refused() {
    multiply(
        &mut [0.0; 4],
        Matrix::new(&[0.0; 4], 2, 2),
        Matrix::new(&[0.0; 6], 3, 2),
        false,
    );
}
