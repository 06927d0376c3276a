use super::*;

#[test]
fn every_finite_value_is_counted_once() {
    let before: Vec<f32> = (0..1_000).map(|i| (i as f32 - 500.0) / 100.0).collect();
    let after: Vec<f32> = before.iter().map(|x| x / 2.0).collect();
    for bins in [1, 2, 3, 41, 1_000] {
        let histogram = Histogram::of(&before, &after, bins);
        assert_eq!(histogram.edges.len(), bins + 1);
        assert_eq!(histogram.before.iter().sum::<u32>(), 1_000);
        assert_eq!(histogram.after.iter().sum::<u32>(), 1_000);
        assert!(histogram.edges.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(histogram.edges[0], -histogram.edges[bins]);
        assert_eq!(histogram.edges[bins], 2.5);
    }
}

#[test]
fn values_beyond_the_edges_are_in_the_outermost_bins() {
    let histogram = Histogram::of(&[-9.0, 9.0, 9.0], &[1.0], 2);
    assert_eq!(histogram.before, [1, 2]);
}

#[test]
fn odd_input_makes_no_trouble() {
    let empty = Histogram::of(&[], &[], 0);
    assert_eq!(
        (empty.edges.as_slice(), empty.after.as_slice()),
        ([-1.0, 1.0].as_slice(), [0].as_slice())
    );
    let zeros = Histogram::of(&[0.0; 3], &[0.0; 3], 3);
    assert_eq!(zeros.after, [0, 3, 0]);
    let strange = Histogram::of(
        &[f32::NAN, f32::INFINITY, 1.0],
        &[f32::NAN, f32::MAX, f32::from_bits(1)],
        usize::MAX,
    );
    assert_eq!(strange.edges.len(), Histogram::MAX_BINS + 1);
    assert_eq!(
        (
            strange.before.iter().sum::<u32>(),
            strange.after.iter().sum::<u32>()
        ),
        (1, 2)
    );
    let subnormal = Histogram::of(&[], &[f32::from_bits(1), -f32::from_bits(1)], 4);
    assert_eq!(subnormal.after, [1, 0, 0, 1]);
}
