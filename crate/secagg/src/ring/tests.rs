use super::*;

/// Numbers that are different enough for property tests (SplitMix64; nothing here needs to be hard to guess).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn rings() -> impl Iterator<Item = Ring> {
    (1..=64).map(|bits| Ring::new(bits).unwrap())
}

#[test]
fn every_number_in_range_is_read_back() {
    let mut numbers = Numbers(1);
    for ring in rings() {
        let (least, most) = ring.range();
        let mut values = vec![least, most, 0, -1];
        values.extend((0..100).map(|_| ring.lift_one(numbers.next())));
        let elements = ring.encode(&values).unwrap();
        assert!(elements.iter().all(|element| *element <= ring.mask()));
        assert_eq!(ring.lift(&elements), values, "{} bits", ring.bits());
    }
}

#[test]
fn a_number_out_of_range_is_refused() {
    for ring in rings().take(63) {
        let (least, most) = ring.range();
        for value in [least - 1, most + 1, i64::MIN, i64::MAX] {
            let bits = ring.bits();
            assert_eq!(
                ring.encode(&[0, value]),
                Err(RingError::OutOfRange { value, bits })
            );
        }
    }
}

#[test]
fn the_sum_is_the_same_in_any_order_and_equals_the_true_sum() {
    let mut numbers = Numbers(2);
    for _ in 0..500 {
        let cohort = 1 + numbers.below(50);
        let size = 1 + numbers.below(40);
        let max_abs = 1 + numbers.below(1 << size);
        let ring = Ring::for_sum(cohort, max_abs).unwrap();
        let vectors: Vec<Vec<i64>> = (0..cohort)
            .map(|_| {
                (0..5)
                    .map(|_| numbers.below(2 * max_abs + 1) as i64 - max_abs as i64)
                    .collect()
            })
            .collect();
        let mut order: Vec<usize> = (0..vectors.len()).collect();
        let mut sums = Vec::new();
        for _ in 0..3 {
            let mut sum = vec![0; 5];
            for index in &order {
                ring.add_assign(&mut sum, &ring.encode(&vectors[*index]).unwrap())
                    .unwrap();
            }
            sums.push(sum);
            for i in (1..order.len()).rev() {
                order.swap(i, numbers.below(i as u64 + 1) as usize);
            }
        }
        assert!(sums.iter().all(|sum| *sum == sums[0]));
        let truth: Vec<i64> = (0..5)
            .map(|i| vectors.iter().map(|vector| vector[i]).sum())
            .collect();
        assert_eq!(ring.lift(&sums[0]), truth);
    }
}

#[test]
fn what_is_added_and_taken_away_again_leaves_no_trace() {
    let mut numbers = Numbers(3);
    for ring in rings() {
        let values: Vec<u64> = (0..20).map(|_| ring.reduce(numbers.next())).collect();
        let mask: Vec<u64> = (0..20).map(|_| numbers.next()).collect();
        let mut sum = values.clone();
        ring.add_assign(&mut sum, &mask).unwrap();
        ring.sub_assign(&mut sum, &mask).unwrap();
        assert_eq!(sum, values);
    }
}

#[test]
fn the_chosen_width_holds_the_extremes_and_one_bit_less_does_not() {
    let mut numbers = Numbers(4);
    for _ in 0..500 {
        let cohort = 1 + numbers.below(1_000);
        let size = 1 + numbers.below(50);
        let max_abs = 1 + numbers.below(1 << size);
        let ring = Ring::for_sum(cohort, max_abs).unwrap();
        let reach = (cohort * max_abs) as i64;
        for extreme in [reach, -reach] {
            assert_eq!(ring.lift_one(ring.reduce(extreme as u64)), extreme);
        }
        let narrower = Ring::new(ring.bits() - 1).unwrap();
        assert_ne!(narrower.lift_one(narrower.reduce(reach as u64)), reach);
    }
}

#[test]
fn a_sum_wraps_exactly_at_the_boundary() {
    for ring in rings() {
        let (least, most) = ring.range();
        let mut sum = ring.encode(&[most, least]).unwrap();
        ring.add_assign(&mut sum, &[1, ring.mask()]).unwrap();
        assert_eq!(ring.lift(&sum), [least, most], "{} bits", ring.bits());
    }
}

#[test]
fn widths_and_sums_that_do_not_fit_are_typed_errors() {
    for bits in [0, 65, u32::MAX] {
        assert_eq!(Ring::new(bits), Err(RingError::Bits(bits)));
    }
    assert_eq!(Ring::bits_for(0, 5), Ok(1));
    assert_eq!(Ring::bits_for(1, 1), Ok(2));
    assert_eq!(Ring::bits_for(1, i64::MAX as u64), Ok(64));
    for (cohort, max_abs) in [
        (1, 1 << 63),
        (2, 1 << 62),
        (u64::MAX, u64::MAX),
        (1 << 32, 1 << 32),
    ] {
        assert_eq!(
            Ring::bits_for(cohort, max_abs),
            Err(RingError::SumTooLarge { cohort, max_abs })
        );
    }
}

#[test]
fn vectors_of_different_lengths_are_not_added() {
    let ring = Ring::new(8).unwrap();
    let mut sum = [1, 2];
    let error = RingError::Length {
        found: 3,
        expected: 2,
    };
    assert_eq!(ring.add_assign(&mut sum, &[1, 1, 1]), Err(error));
    assert_eq!(ring.sub_assign(&mut sum, &[1, 1, 1]), Err(error));
    assert_eq!(sum, [1, 2]);
    let mut words = [u64::MAX, 256, 255];
    ring.reduce_assign(&mut words);
    assert_eq!(words, [255, 0, 255]);
}
