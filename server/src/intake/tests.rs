use proptest::prelude::*;
use unsaid_protocol::{ClientId, ContentHash, UpdateId};

use super::*;
use crate::{round::FrameDigest, task_file::Task};

const HEAD: usize = UpdateFrame::HEADER_LEN;

/// A task of 20 coordinates (3 × 5 and 5 biases), with a weight where asked for.
fn config(weighted: bool) -> TaskConfig {
    let strategy = if weighted {
        r#"strategy = { aggregation = { type = "weighted-mean", max_weight = 100 } }"#
    } else {
        ""
    };
    let text = format!(
        r#"
        task = "small"
        title = "Small"
        model = {{ input = [3], layers = [{{ type = "dense", units = 5 }}], loss = "softmax-cross-entropy" }}
        training = {{ epochs = 1, batch_size = 10, optimizer = {{ type = "sgd", learning_rate = 0.1 }} }}
        update = {{ clip_l2 = 1.0, grid_step = 5.960464477539063e-8 }}
        privacy = {{ mode = "none" }}
        rounds = {{ min_clients = 2, target_clients = 2, deadline_ms = 60_000 }}
        {strategy}
        "#
    );
    TaskConfig::new(Task::parse("small", &text, &[]).unwrap())
}

/// What an update is, from its whole bytes, one number at a time: as a relay did before it read updates while they arrive.
fn by_definition(config: &TaskConfig, bytes: &[u8]) -> Result<Submission, DecodeError> {
    let frame = UpdateFrame::decode(bytes)?;
    let claim = Claim {
        update: frame.update,
        client: frame.client,
        manifest: frame.manifest,
        model: frame.model,
        round: frame.round,
        digest: digest_by_definition(&bytes[..HEAD], &frame.coordinates),
        bytes: bytes.len() as u64,
        identity: None,
    };
    let coordinates = fit_by_definition(config, frame.coordinates);
    Ok(Submission { claim, coordinates })
}

fn digest_by_definition(head: &[u8], coordinates: &[i32]) -> FrameDigest {
    let mut hasher = FrameHasher::new(false);
    hasher.head(head);
    let mut blocks: Vec<Block> = Vec::new();
    for block in coordinates.chunks(exact::BLOCK) {
        let mut of = Block::default();
        for (place, &value) in (0..).zip(block) {
            of.sum += i64::from(value);
            of.moment += place * i64::from(value);
            of.square += u128::from(value.unsigned_abs()).pow(2);
        }
        blocks.push(of);
    }
    if coordinates.len().is_multiple_of(exact::BLOCK) {
        blocks.push(Block::default()); // the last one is never whole
    }
    blocks.iter().for_each(|block| hasher.block(block));
    hasher.digest()
}

fn fit_by_definition(config: &TaskConfig, coordinates: Vec<i32>) -> Result<Vec<i32>, Refusal> {
    let (found, expected) = (coordinates.len(), config.coordinates());
    if found != expected {
        return Err(Refusal::Coordinates { found, expected });
    }
    let (change, weight) = coordinates.split_at(config.manifest.parameters as usize);
    if let (Some(&found), Some(most)) = (weight.first(), config.strategy.aggregation.max_weight())
        && !u32::try_from(found).is_ok_and(|weight| (1..=most).contains(&weight))
    {
        return Err(Refusal::Weight { found, most });
    }
    if let Some(bound) = config.norm_bound {
        let square = |&coordinate: &i32| u128::from(coordinate.unsigned_abs()).pow(2);
        let found = change.iter().map(square).sum::<u128>();
        if found > u128::from(bound) {
            return Err(Refusal::Norm { found, bound });
        }
    }
    Ok(coordinates)
}

fn in_parts(config: &TaskConfig, bytes: &[u8], cuts: &[usize]) -> Result<Submission, DecodeError> {
    let mut intake = Intake::new(config, false);
    let mut rest = bytes;
    for &cut in cuts {
        let (part, after) = rest.split_at(cut.min(rest.len()));
        intake.push(part);
        rest = after;
    }
    intake.push(rest);
    intake.finish()
}

fn frame(coordinates: Vec<i32>) -> Vec<u8> {
    let frame = UpdateFrame {
        update: UpdateId::from_bytes([1; 16]),
        client: ClientId::from_bytes([2; 16]),
        manifest: ContentHash::of(b"manifest"),
        model: ContentHash::of(b"model"),
        round: 3,
        coordinates,
    };
    frame.encode()
}

#[test]
fn the_norm_is_bounded_to_the_last_step() {
    let config = config(false);
    let bound = config.norm_bound.unwrap();
    let side = bound.isqrt() as i32;
    let rest = (bound - u64::from(side.unsigned_abs()).pow(2)).isqrt() as i32;
    let mut coordinates = vec![0; config.coordinates()];
    (coordinates[0], coordinates[19]) = (side, -rest);
    let within = config.examine(&frame(coordinates.clone())).unwrap();
    assert_eq!(within.coordinates, Ok(coordinates.clone()));
    coordinates[19] = -rest - 1;
    let beyond = config.examine(&frame(coordinates)).unwrap();
    assert!(matches!(beyond.coordinates, Err(Refusal::Norm { .. })));
}

#[test]
fn a_frame_of_another_length_is_looked_at_and_not_kept() {
    let config = config(false);
    let bytes = frame(vec![1; 5_000]);
    let mut intake = Intake::new(&config, false);
    for part in bytes.chunks(100) {
        intake.push(part);
        assert!(intake.coordinates.capacity() <= 200, "twice a part");
    }
    let (found, expected) = (5_000, config.coordinates());
    let refused = Err(Refusal::Coordinates { found, expected });
    assert_eq!(intake.finish().unwrap().coordinates, refused);
}

#[test]
fn a_false_count_allocates_nothing() {
    let config = config(false);
    let mut bytes = frame(vec![1; 4]);
    let count = UpdateFrame::HEADER_LEN - 4;
    bytes[count..UpdateFrame::HEADER_LEN].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut intake = Intake::new(&config, false);
    intake.push(&bytes);
    assert!(intake.coordinates.capacity() <= 8);
    assert!(matches!(intake.finish(), Err(DecodeError::Truncated { .. })));
}

#[test]
fn what_an_earlier_update_left_in_a_buffer_is_in_no_other() {
    let config = config(false);
    let left = vec![i32::MAX; config.coordinates()];
    let place = left.as_ptr();
    config.buffers.give(left);
    let coordinates: Vec<i32> = (0..config.coordinates() as i32).map(|at| at - 9).collect();
    let whole = frame(coordinates.clone());
    for length in UpdateFrame::HEADER_LEN..whole.len() {
        let mut intake = Intake::new(&config, false);
        intake.push(&whole[..length]);
        assert_eq!(intake.coordinates.as_ptr(), place, "it is the very buffer");
        assert!(coordinates.starts_with(&intake.coordinates), "{length}");
        config.buffers.give(std::mem::take(&mut intake.coordinates));
        assert!(matches!(intake.finish(), Err(DecodeError::Truncated { .. })));
    }
    let found = config.examine(&whole).unwrap().coordinates.unwrap();
    assert_eq!(found, coordinates);
    assert_eq!(found.as_ptr(), place);
}

/// The digests of frames of these coordinates, which need not fit the task.
fn digests(all: impl IntoIterator<Item = Vec<i32>>) -> Vec<FrameDigest> {
    let config = config(false);
    let digest = |coordinates| config.examine(&frame(coordinates)).unwrap().claim.digest;
    all.into_iter().map(digest).collect()
}

#[test]
fn whatever_is_changed_in_a_frame_changes_its_digest() {
    let one: Vec<i32> = (0..10_000)
        .map(|at: i32| at.wrapping_mul(2_654_435) >> 9)
        .collect();
    let changed = |change: &dyn Fn(&mut [i32])| {
        let mut other = one.clone();
        change(&mut other);
        other
    };
    let all = digests([
        one.clone(),
        changed(&|other| other[0] += 1),
        changed(&|other| other[9_999] -= 1),
        changed(&|other| other[5] = -other[5]),
        changed(&|other| other.iter_mut().for_each(|value| *value = -*value)),
        changed(&|other| other.swap(0, 1)),
        changed(&|other| other.swap(4_095, 4_096)),
        changed(&|other| other.swap(10, 9_000)),
        changed(&|other| other.reverse()),
        changed(&|other| other.rotate_left(1)),
        changed(&|other| other.rotate_left(4_096)),
        one[..9_999].to_vec(),
        one[..8_192].to_vec(),
        one[..4_096].to_vec(),
        [&one[..], &[0]].concat(),
        vec![0; 10_000],
        vec![0; 9_999],
    ]);
    for (at, digest) in all.iter().enumerate() {
        assert_eq!(all.iter().position(|other| other == digest), Some(at));
    }
    assert_eq!(digests([one.clone()])[0], all[0], "the control");
}

proptest! {
    /// Over the edges of blocks: the digest is that of the definition, however the frame is cut.
    #[test]
    fn a_digest_is_of_blocks_wherever_a_frame_is_cut(
        length in (0..3_usize).prop_flat_map(|blocks| blocks * exact::BLOCK..blocks * exact::BLOCK + 9),
        seed: i32,
        shift in 0u32..31,
        cuts in prop::collection::vec(0usize..20_000, 0..9),
    ) {
        let config = config(false);
        let coordinates: Vec<i32> = (0..length as i32).map(|at| at.wrapping_mul(seed | 1) >> shift).collect();
        let bytes = frame(coordinates.clone());
        let submission = in_parts(&config, &bytes, &cuts).unwrap();
        prop_assert_eq!(submission.claim.digest, digest_by_definition(&bytes[..HEAD], &coordinates));
    }

    /// Any bytes that look like a frame, however they are cut, are what they are as a whole: the same claim and coordinates, or
    /// the same error.
    #[test]
    fn an_update_in_parts_is_what_it_is_as_a_whole(
        weighted: bool,
        coordinates in prop_oneof![
            prop::collection::vec(any::<i32>(), 19..23),
            prop::collection::vec(-1_000..1_000, 20..22),
            prop::collection::vec(1..90, 21),
            prop::collection::vec(any::<i32>(), 0..40),
        ],
        shift in 0u32..31,
        cuts in prop::collection::vec(0usize..60, 0..12),
        change in prop::option::of((0usize..130, any::<u8>())),
        resize in prop::option::of(0usize..260),
    ) {
        let config = config(weighted);
        let mut bytes = frame(coordinates.into_iter().map(|value| value >> shift).collect());
        if let Some((at, to)) = change && at < bytes.len() {
            bytes[at] = to;
        }
        bytes.resize(resize.unwrap_or(bytes.len()), 7);
        let (parts, whole) = (in_parts(&config, &bytes, &cuts), by_definition(&config, &bytes));
        match (parts, whole) {
            (Ok(parts), Ok(whole)) => {
                prop_assert_eq!(parts.claim, whole.claim);
                prop_assert_eq!(parts.coordinates, whole.coordinates);
            }
            (parts, whole) => prop_assert_eq!(parts.err(), whole.err()),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, cuts in prop::collection::vec(0usize..60, 0..5)) {
        let config = config(false);
        let same = in_parts(&config, &bytes, &cuts).err() == by_definition(&config, &bytes).err();
        prop_assert!(same);
    }
}
