//! From a trained model to what may leave the device: the change is clipped, put on the grid, noised, and framed, in this order.

use unsaid_privacy::{Histogram, PrivacyError};
use unsaid_protocol::{ClientId, ContentHash, CoordinateWidth, UpdateFrame, UpdateId};

use crate::{
    ClientError,
    events::{HistogramView, UpdateReport},
    random::Random,
    task::Task,
};

/// Bins of the histogram that the page draws.
const HISTOGRAM_BINS: usize = 41;
/// Bytes of the frame that the page shows: the header and the first few coordinates.
const HEAD_BYTES: usize = 132;

/// An update that is ready to be paid for and sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Protected {
    /// Its id.
    pub update: UpdateId,
    /// The very bytes.
    pub frame: Vec<u8>,
    /// What the page is told.
    pub report: UpdateReport,
    /// What is left of the change, `[d]`: clipped and on the grid, without noise. It stays here.
    pub change: Vec<f32>,
}

/// What local training gave.
#[derive(Debug, Clone, Copy)]
pub struct Learned<'a> {
    /// The parameters that training began with.
    pub before: &'a [f32],
    /// Those that it ended with.
    pub after: &'a [f32],
    /// How many examples it saw.
    pub examples: usize,
}

/// Makes the update of one round: `after − before`, protected as the task says. Where clients weigh by their examples, the update
/// ends with their number, at most what the task allows.
///
/// # Errors
/// [`ClientError::NonFinite`] where a parameter is not a number, [`ClientError::NoEntropy`] where there is no randomness. Nothing
/// may be sent then.
pub fn protect(
    task: &Task,
    client: ClientId,
    round: u64,
    model: ContentHash,
    learned: Learned<'_>,
    random: &mut Random,
) -> Result<Protected, ClientError> {
    let Learned { before, after, .. } = learned;
    let delta: Vec<f32> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    let encoded = task
        .encoding
        .encode(&delta, random.generator()?)
        .map_err(PrivacyError::from)?;
    let mut coordinates = encoded.coordinates;
    let clear = task.encoding.decode(&coordinates);
    if let Some(noise) = &task.noise {
        noise
            .add(&mut coordinates, random.generator()?)
            .map_err(PrivacyError::from)?;
    }
    let histogram = Histogram::of(&clear, &task.encoding.decode(&coordinates), HISTOGRAM_BINS);
    if let Some(most) = task.manifest.update.max_weight {
        // At most 2²⁰, and only in a task without noise: the manifest was checked for both.
        coordinates.push(learned.examples.min(most as usize) as i32);
    }
    let update = UpdateId::from_bytes(random.bytes()?);
    let frame = UpdateFrame {
        update,
        client,
        manifest: task.hash,
        model,
        round,
        coordinates,
    };
    let width = task.fixed_width();
    let bytes = frame.encode_in(width);
    let width = width.unwrap_or_else(|| CoordinateWidth::for_coordinates(&frame.coordinates));
    let report = UpdateReport {
        round,
        manifest: task.hash.to_string(),
        model: model.to_string(),
        update_id: update.to_string(),
        bytes: bytes.len(),
        coordinates: frame.coordinates.len(),
        width_bytes: width.bytes(),
        norm_before_clip: encoded.norm_before_clip,
        clipped: encoded.clipped,
        sigma_steps: task
            .noise
            .as_ref()
            .map_or(0.0, unsaid_privacy::LocalNoise::sigma_steps),
        head_hex: bytes
            .iter()
            .take(HEAD_BYTES)
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        histogram: HistogramView {
            edges: histogram.edges,
            before: histogram.before,
            after: histogram.after,
        },
    };
    Ok(Protected {
        update,
        frame: bytes,
        report,
        change: clear,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use unsaid_privacy::Encoding;

    use super::*;
    use crate::task::tests::{NO_FLOORS, read, terms};

    /// A task of `4·units + units` parameters, with noise of `multiplier` or without.
    fn task(units: u32, multiplier: Option<f64>) -> Task {
        let mut terms = terms();
        terms["model"]["layers"][0]["units"] = units.into();
        terms["data"]["classes"] = units.into();
        terms["parameters"] = (5 * units).into();
        terms["privacy"] = match multiplier {
            Some(multiplier) => json!({"mode": "local", "noise_multiplier": multiplier}),
            None => json!({"mode": "none"}),
        };
        read(&terms, &NO_FLOORS).unwrap()
    }

    const fn learned<'a>(before: &'a [f32], after: &'a [f32]) -> Learned<'a> {
        Learned {
            before,
            after,
            examples: 60,
        }
    }

    fn protected(
        task: &Task,
        before: &[f32],
        after: &[f32],
    ) -> Result<(Protected, UpdateFrame), ClientError> {
        let client = ClientId::from_bytes([3; 16]);
        let model = ContentHash::of(b"model");
        let learned = learned(before, after);
        let made = protect(task, client, 7, model, learned, &mut Random::default())?;
        let frame = UpdateFrame::decode(&made.frame).unwrap();
        assert_eq!((frame.client, frame.model, frame.round), (client, model, 7));
        assert_eq!((frame.manifest, frame.update), (task.hash, made.update));
        Ok((made, frame))
    }

    fn norm_squared(coordinates: &[i32]) -> u64 {
        coordinates
            .iter()
            .map(|c| u64::from(c.unsigned_abs()).pow(2))
            .sum()
    }

    /// A start, and an end `norm` away from it.
    fn change(parameters: usize, norm: f32) -> (Vec<f32>, Vec<f32>) {
        let raw: Vec<f32> = (0..parameters).map(|i| (i as f32 * 1.618).sin()).collect();
        let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
        (
            vec![0.0; parameters],
            raw.iter().map(|x| x / length * norm).collect(),
        )
    }

    #[test]
    fn without_noise_each_coordinate_is_the_change_rounded_to_the_grid() {
        let task = task(40, None);
        let (before, after) = change(200, 0.5);
        let (made, frame) = protected(&task, &before, &after).unwrap();
        for (sent, after) in frame.coordinates.iter().zip(&after) {
            let steps = f64::from(*after) * 1024.0;
            assert!((f64::from(*sent) - steps).abs() < 1.0, "{sent} {steps}");
        }
        assert!(!made.report.clipped && (made.report.norm_before_clip - 0.5).abs() < 1e-6);
        assert_eq!(made.report.sigma_steps, 0.0);
        assert_eq!(made.report.histogram.before, made.report.histogram.after);
    }

    #[test]
    fn whatever_the_change_the_integers_obey_the_bound() {
        let task = task(40, None);
        for norm in [0.0, 1e-9, 0.999, 1.0, 1.001, 50.0, 1e18, 1e30] {
            let (before, after) = change(200, 1.0);
            let after: Vec<f32> = after.iter().map(|x| x * norm).collect();
            let (made, frame) = protected(&task, &before, &after).unwrap();
            assert!(
                norm_squared(&frame.coordinates) <= task.encoding.bound_squared(),
                "{norm}"
            );
            assert_eq!(made.report.clipped, made.report.norm_before_clip > 1.0, "{norm}");
        }
    }

    #[test]
    fn with_noise_the_frame_lies_as_far_from_the_change_as_the_noise_says() {
        // Σ(noise/σ)² of d coordinates has mean d and standard deviation √(2d): beyond eight of them with probability below 10⁻¹³.
        const D: usize = 10_000;
        let off = 8.0 * (2.0 / D as f64).sqrt();
        let spread = |multiplier| {
            let task = task(D as u32 / 5, multiplier);
            let (before, after) = change(D, 1.0);
            let (made, frame) = protected(&task, &before, &after).unwrap();
            let sigma = 4.0 * task.encoding.bound_steps();
            let squares = frame.coordinates.iter().zip(&after).map(|(sent, after)| {
                let clear = f64::from(*after) * 1024.0;
                ((f64::from(*sent) - clear) / sigma).powi(2)
            });
            (squares.sum::<f64>() / D as f64, made)
        };
        let (with, made) = spread(Some(4.0));
        assert!((with - 1.0).abs() < off, "{with}");
        assert_ne!(made.report.histogram.before, made.report.histogram.after);
        // The control: without noise this measure is next to nothing.
        let (without, _) = spread(None);
        assert!(without < 1e-6, "{without}");
    }

    #[test]
    fn the_same_change_is_never_protected_alike_twice() {
        let task = task(40, Some(4.0));
        let (before, after) = change(200, 1.0);
        let (one, one_frame) = protected(&task, &before, &after).unwrap();
        let (other, other_frame) = protected(&task, &before, &after).unwrap();
        assert_ne!(one.update, other.update);
        assert_ne!(one_frame.coordinates, other_frame.coordinates);
        // One generator that goes on, too.
        let mut random = Random::default();
        let mut next = || {
            let client = ClientId::from_bytes([3; 16]);
            let model = ContentHash::of(b"model");
            protect(&task, client, 7, model, learned(&before, &after), &mut random).unwrap()
        };
        let (one, other) = (next(), next());
        assert!(one.update != other.update && one.frame != other.frame);
    }

    #[test]
    fn a_change_that_is_not_a_number_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for multiplier in [None, Some(4.0)] {
                let task = task(40, multiplier);
                let (before, mut after) = change(200, 1.0);
                after[199] = bad;
                let result = protected(&task, &before, &after);
                assert!(
                    matches!(result, Err(ClientError::NonFinite(_))),
                    "{bad} {result:?}"
                );
            }
        }
        // Two numbers whose difference is none.
        let task = task(40, None);
        let result = protected(&task, &[f32::MIN; 200], &[f32::MAX; 200]);
        assert!(matches!(result, Err(ClientError::NonFinite(_))), "{result:?}");
    }

    #[test]
    fn where_clients_weigh_by_their_examples_the_update_ends_with_their_number() {
        let weighs = |most: u32| json!({"aggregation": {"type": "weighted-mean", "max_weight": most}});
        for (most, weight) in [(1_000_u32, 60), (60, 60), (7, 7)] {
            let mut terms = terms();
            terms["privacy"] = json!({"mode": "none"});
            terms["update"]["max_weight"] = most.into();
            terms["strategy"] = weighs(most);
            let task = read(&terms, &NO_FLOORS).unwrap();
            let (before, after) = change(15, 0.5);
            let (made, frame) = protected(&task, &before, &after).unwrap();
            assert_eq!((frame.coordinates.len(), frame.coordinates[15]), (16, weight));
            assert_eq!(
                made.report.coordinates, 16,
                "the page is told of all that is sent"
            );
            assert!(norm_squared(&frame.coordinates[..15]) <= task.encoding.bound_squared());
        }
        // A relay that asks for a weight that its rule has no use for would learn how many examples there are.
        for (most, strategy) in [(7, json!({})), (7, weighs(8))] {
            let mut terms = terms();
            terms["privacy"] = json!({"mode": "none"});
            terms["update"]["max_weight"] = most.into();
            terms["strategy"] = strategy;
            let refused = read(&terms, &NO_FLOORS).map(drop);
            assert!(
                matches!(&refused, Err(ClientError::BadManifest(reason)) if reason.contains("max_weight")),
                "{refused:?}"
            );
        }
        // With noise the number of examples would leave the device without any.
        let mut terms = terms();
        terms["update"]["max_weight"] = 7.into();
        assert!(matches!(
            read(&terms, &NO_FLOORS),
            Err(ClientError::BadManifest(_))
        ));
    }

    #[test]
    fn where_the_relay_adds_the_noise_a_frame_is_as_long_whatever_is_in_it() {
        let mut terms = terms();
        terms["privacy"] = json!({
            "mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian", "adjacency": "replace-one",
            "noise_multiplier": 4.0, "delta": 1e-5,
        });
        let task = read(&terms, &NO_FLOORS).unwrap();
        let lengths = [0.0, 1e-4, 0.1, 0.9, 50.0].map(|norm| {
            let (before, mut after) = (vec![0.0; 15], vec![0.0; 15]);
            after[3] = norm;
            let client = ClientId::from_bytes([3; 16]);
            let model = ContentHash::of(b"model");
            let learned = learned(&before, &after);
            let made = protect(&task, client, 7, model, learned, &mut Random::default()).unwrap();
            assert!(UpdateFrame::decode_in(&made.frame, task.fixed_width()).is_ok());
            assert_eq!(
                (made.report.width_bytes, made.report.bytes),
                (2, made.frame.len())
            );
            made.frame.len()
        });
        assert_eq!(lengths, [UpdateFrame::HEADER_LEN + 30; 5]);
    }

    /// The vectors' frames were put together byte by byte from PROTOCOL.md, by another program in another language.
    #[test]
    fn central_frames_are_those_of_the_vectors() {
        let vectors = include_str!("../../tests/vectors/v1/central-frames.json");
        let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
        assert_eq!(vectors.len(), 5);
        for vector in vectors {
            let number = |field: &str| vector[field].as_f64().unwrap();
            let encoding = Encoding::new(number("clip_l2"), number("grid_step"), 3).unwrap();
            assert_eq!(Some(encoding.bound_squared()), vector["bound_squared"].as_u64());
            let width = CoordinateWidth::for_bound(encoding.bound_squared());
            assert_eq!(Some(width.bytes() as u64), vector["width"].as_u64());
            let frame = UpdateFrame {
                update: UpdateId::from_bytes([0x11; 16]),
                client: ClientId::from_bytes([0x22; 16]),
                manifest: ContentHash::from_bytes([0x33; 32]),
                model: ContentHash::from_bytes([0x44; 32]),
                round: 0x0102_0304,
                coordinates: serde_json::from_value(vector["coordinates"].clone()).unwrap(),
            };
            let bytes = frame.encode_in(Some(width));
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(Some(hex.as_str()), vector["frame"].as_str());
        }
    }

    #[test]
    fn a_change_of_another_length_is_refused() {
        let task = task(40, None);
        assert!(protected(&task, &[0.0; 199], &[0.0; 199]).is_err());
    }

    #[test]
    fn the_report_describes_the_very_bytes() {
        let task = task(40, Some(4.0));
        let (before, after) = change(200, 3.0);
        let (made, frame) = protected(&task, &before, &after).unwrap();
        let report = &made.report;
        let head: String = made.frame[..HEAD_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!((report.bytes, &report.head_hex), (made.frame.len(), &head));
        assert_eq!(report.update_id, frame.update.to_string());
        assert_eq!(report.coordinates, 200);
        assert_eq!(report.bytes, UpdateFrame::HEADER_LEN + 200 * report.width_bytes);
        assert!(report.clipped && (report.norm_before_clip - 3.0).abs() < 1e-5);
        for counts in [&report.histogram.before, &report.histogram.after] {
            assert_eq!(counts.iter().sum::<u32>(), 200);
            assert_eq!(report.histogram.edges.len(), counts.len() + 1);
        }
    }
}
