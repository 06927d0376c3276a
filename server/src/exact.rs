//! Whole-number arithmetic over long vectors, exact, and as wide as the processor's registers.
//!
//! [`pulp`] compiles each loop for several instruction sets and picks one when it runs; the results are the same bits.

use std::{ops::AddAssign, sync::LazyLock};

use pulp::Arch;
use unsaid_protocol::CoordinateWidth;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Coordinates that are looked at together: few enough to stay in the first-level cache, and for the squares of those within 24
/// bits and a sign, each at most 2⁴⁸, to fit one `u64`, and their moment an `i64`.
pub const BLOCK: usize = 1 << 12;

/// The largest `v ^ (v >> 31)` of coordinates −2²⁴ ≤ v < 2²⁴.
const NARROW: i32 = (1 << 24) - 1;

/// What the coordinates of a vector have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// The bits that any `v ^ (v >> 31)` has: see [`CoordinateWidth::for_reach`].
    pub reach: i32,
    /// The sum of squares.
    pub square: u128,
}

impl AddAssign for Measure {
    fn add_assign(&mut self, other: Self) {
        self.reach |= other.reach;
        self.square += other.square;
    }
}

/// What tells a block of [`BLOCK`] coordinates from another: three whole numbers, exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    /// Coordinates so far.
    pub length: usize,
    /// Their sum.
    pub sum: i64,
    /// The sum of each times its place in the block, from 0.
    pub moment: i64,
    /// The sum of squares.
    pub square: u128,
}

/// Appends the coordinates that `payload` holds, no more than are left of `block`, and measures them on their way: they are written
/// once, and not read again.
pub fn read(
    width: CoordinateWidth,
    payload: &[u8],
    coordinates: &mut Vec<i32>,
    block: &mut Block,
) -> Measure {
    let before = coordinates.len();
    let narrow = match width {
        CoordinateWidth::One => read_as::<1>(payload, coordinates, block.length),
        CoordinateWidth::Two => read_as::<2>(payload, coordinates, block.length),
        CoordinateWidth::Three => read_as::<3>(payload, coordinates, block.length),
        CoordinateWidth::Four => read_as::<4>(payload, coordinates, block.length),
    };
    let square = if narrow.reach <= NARROW {
        narrow.square.into()
    } else {
        square_wide(&coordinates[before..])
    };
    block.length += coordinates.len() - before;
    block.sum += narrow.sum;
    block.moment += narrow.moment;
    block.square += square;
    Measure {
        reach: narrow.reach,
        square,
    }
}

/// Of at most [`BLOCK`] coordinates.
struct Narrow {
    reach: i32,
    /// If they are within [`NARROW`]; if not, any number.
    square: u64,
    sum: i64,
    moment: i64,
}

/// Of one width, the first of them at this place. Were the widths told apart within the dispatch, the compiler would put the loops elsewhere,
/// without its registers.
fn read_as<const WIDTH: usize>(payload: &[u8], coordinates: &mut Vec<i32>, place: usize) -> Narrow {
    let (chunks, _) = payload.as_chunks();
    ARCH.dispatch(
        #[inline(always)]
        || {
            let (mut reach, mut square, mut sum, mut moment) = (0, 0_u64, 0_i64, 0_i64);
            let mut place = place as i32; // below `BLOCK`
            let read = chunks.iter().map(
                #[inline(always)]
                |chunk| {
                    let value = CoordinateWidth::coordinate::<WIDTH>(chunk);
                    let wide = i64::from(value);
                    reach |= value ^ (value >> 31);
                    square = square.wrapping_add((wide * wide).cast_unsigned());
                    sum = sum.wrapping_add(wide);
                    moment = moment.wrapping_add(wide * i64::from(place));
                    place = place.wrapping_add(1);
                    value
                },
            );
            coordinates.extend(read);
            Narrow {
                reach,
                square,
                sum,
                moment,
            }
        },
    )
}

/// Of at most [`BLOCK`] coordinates: the low and the high halves of the squares, each at most 2³², are added up apart.
fn square_wide(block: &[i32]) -> u128 {
    let (low, high) = ARCH.dispatch(
        #[inline(always)]
        || {
            block.iter().fold((0, 0), |(low, high): (u64, u64), &value| {
                let square = u64::from(value.unsigned_abs()).pow(2);
                (low + (square & 0xffff_ffff), high + (square >> 32))
            })
        },
    );
    (u128::from(high) << 32) + u128::from(low)
}

/// Adds `coordinates` to as many entries of a sum.
pub fn add(sum: &mut [i64], coordinates: &[i32]) {
    ARCH.dispatch(
        #[inline(always)]
        || {
            for (sum, &coordinate) in sum.iter_mut().zip(coordinates) {
                *sum += i64::from(coordinate);
            }
        },
    );
}

/// Adds several vectors to as many entries of a sum: up to four at a time are read for one reading and writing of the sum.
pub fn add_all(sum: &mut [i64], vectors: &[impl AsRef<[i32]>]) {
    for (at, sum) in sum.chunks_mut(BLOCK).enumerate() {
        let (start, length) = (at * BLOCK, sum.len());
        for vectors in vectors.chunks(4) {
            match vectors {
                [a, b, c, d] => add_four(sum, [a, b, c, d].map(|vector| part(vector, start, length))),
                [a, b, c] => add_three(sum, [a, b, c].map(|vector| part(vector, start, length))),
                [a, b] => add_two(sum, [a, b].map(|vector| part(vector, start, length))),
                _ => vectors
                    .iter()
                    .for_each(|vector| add(sum, part(vector, start, length))),
            }
        }
    }
}

/// What a vector has of so many entries from `start` on.
fn part(vector: &impl AsRef<[i32]>, start: usize, length: usize) -> &[i32] {
    let vector = vector.as_ref();
    &vector[start.min(vector.len())..vector.len().min(start + length)]
}

fn add_two(sum: &mut [i64], [a, b]: [&[i32]; 2]) {
    ARCH.dispatch(
        #[inline(always)]
        || {
            for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
                *sum += i64::from(a) + i64::from(b);
            }
        },
    );
}

fn add_three(sum: &mut [i64], [a, b, c]: [&[i32]; 3]) {
    ARCH.dispatch(
        #[inline(always)]
        || {
            for (((sum, &a), &b), &c) in sum.iter_mut().zip(a).zip(b).zip(c) {
                *sum += i64::from(a) + i64::from(b) + i64::from(c);
            }
        },
    );
}

fn add_four(sum: &mut [i64], [a, b, c, d]: [&[i32]; 4]) {
    ARCH.dispatch(
        #[inline(always)]
        || {
            for ((((sum, &a), &b), &c), &d) in sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *sum += (i64::from(a) + i64::from(b)) + (i64::from(c) + i64::from(d));
            }
        },
    );
}

/// Whether every entry is an `i32`.
pub fn fits_i32(sum: &[i64]) -> bool {
    let reach = ARCH.dispatch(
        #[inline(always)]
        || sum.iter().fold(0, |reach, entry| reach | (entry ^ (entry >> 63))),
    );
    i32::try_from(reach).is_ok()
}

/// Writes as many little-endian `i32`s as there are entries, whose lower halves they are.
pub fn narrow(sum: &[i64], bytes: &mut [u8]) {
    let (chunks, _) = bytes.as_chunks_mut();
    ARCH.dispatch(
        #[inline(always)]
        || {
            for (chunk, &entry) in chunks.iter_mut().zip(sum) {
                *chunk = (entry as i32).to_le_bytes();
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whatever the lanes: the definition, one number at a time.
    fn square_by_definition(coordinates: &[i32]) -> u128 {
        let square = |&value: &i32| u128::from(value.unsigned_abs()).pow(2);
        coordinates.iter().map(square).sum()
    }

    fn block_by_definition(coordinates: &[i32]) -> Block {
        let wide = || coordinates.iter().copied().map(i64::from);
        Block {
            length: coordinates.len(),
            sum: wide().sum(),
            moment: (0..).zip(wide()).map(|(place, value)| place * value).sum(),
            square: square_by_definition(coordinates),
        }
    }

    /// Coordinates that are written in so many bytes and read again, and their measure.
    fn written_and_read(width: CoordinateWidth, coordinates: &[i32]) -> (Vec<i32>, Measure) {
        let bytes = coordinates.iter().map(|value| value.to_le_bytes());
        let payload: Vec<u8> = bytes
            .flat_map(|bytes| bytes.into_iter().take(width.bytes()))
            .collect();
        let (mut read, mut measure) = (vec![7], Measure::default());
        for (payload, coordinates) in payload
            .chunks(width.bytes() * BLOCK)
            .zip(coordinates.chunks(BLOCK))
        {
            let (first, last) = payload.split_at(width.bytes() * (coordinates.len() / 3));
            let mut block = Block::default();
            measure += super::read(width, first, &mut read, &mut block);
            measure += super::read(width, last, &mut read, &mut block);
            assert_eq!(block, block_by_definition(coordinates));
        }
        assert_eq!(read[0], 7, "they are appended");
        (read.split_off(1), measure)
    }

    #[test]
    fn the_largest_sums_of_a_block_fit_their_lanes() {
        for value in [1 << 24, -(1 << 24), (1 << 24) - 1, i32::MIN, i32::MAX] {
            for length in [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 9] {
                let all = vec![value; length];
                let (_, measure) = written_and_read(CoordinateWidth::Four, &all);
                assert_eq!(
                    measure.square,
                    square_by_definition(&all),
                    "{length} times {value}"
                );
            }
        }
    }

    #[test]
    fn a_sum_fits_i32_to_its_last_number() {
        for (entry, fits) in [
            (i64::from(i32::MAX), true),
            (i64::from(i32::MIN), true),
            (i64::from(i32::MAX) + 1, false),
            (i64::from(i32::MIN) - 1, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(fits_i32(&[0, -1, entry, 7]), fits, "{entry}");
        }
    }

    proptest! {
        #[test]
        fn coordinates_are_read_as_they_are_and_measures_are_those_of_the_definition(
            coordinates in prop::collection::vec(any::<i32>(), 0..300), shift in 0u32..31,
        ) {
            let coordinates: Vec<i32> = coordinates.iter().map(|value| value >> shift).collect();
            let width = CoordinateWidth::for_coordinates(&coordinates);
            let (read, measure) = written_and_read(width, &coordinates);
            prop_assert_eq!(measure.square, square_by_definition(&coordinates));
            prop_assert_eq!(CoordinateWidth::for_reach(measure.reach), width);
            prop_assert_eq!(read, coordinates);
        }

        #[test]
        fn sums_are_those_of_the_definition(pairs in prop::collection::vec((-(1_i64 << 62)..1 << 62, any::<i32>()), 0..300)) {
            let (mut sum, coordinates): (Vec<i64>, Vec<i32>) = pairs.iter().copied().unzip();
            add(&mut sum, &coordinates);
            let expected: Vec<i64> = pairs.iter().map(|&(entry, value)| entry + i64::from(value)).collect();
            prop_assert_eq!(sum, expected);
        }

        /// Over the edges of blocks, and with groups of four and what is left of them.
        #[test]
        fn many_at_once_are_one_after_the_other(
            length in (0..3_usize).prop_flat_map(|blocks| blocks * BLOCK..blocks * BLOCK + 9),
            seeds in prop::collection::vec(any::<u32>(), 0..10),
        ) {
            let vector = |seed: u32| (0..length as u32).map(|at| at.wrapping_mul(seed).cast_signed()).collect();
            let vectors: Vec<Vec<i32>> = seeds.into_iter().map(vector).collect();
            let (mut together, mut alone) = (vec![-7; length], vec![-7; length]);
            add_all(&mut together, &vectors);
            vectors.iter().for_each(|vector| add(&mut alone, vector));
            prop_assert_eq!(together, alone);
        }

        #[test]
        fn narrowed_entries_are_themselves(entries in prop::collection::vec(any::<i32>(), 0..99)) {
            let sum: Vec<i64> = entries.iter().copied().map(i64::from).collect();
            let mut bytes = vec![0; 4 * sum.len()];
            narrow(&sum, &mut bytes);
            let expected: Vec<u8> = entries.into_iter().flat_map(i32::to_le_bytes).collect();
            prop_assert_eq!(bytes, expected);
        }
    }
}
