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
/// Bytes of the frame that the page shows.
const HEAD_BYTES: usize = 64;

/// An update that is ready to be paid for and sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Protected {
    /// Its id.
    pub update: UpdateId,
    /// The very bytes.
    pub frame: Vec<u8>,
    /// What the page is told.
    pub report: UpdateReport,
}

/// Makes the update of one round: `after − before`, protected as the task says.
///
/// # Errors
/// [`ClientError::NonFinite`] where a parameter is not a number, [`ClientError::NoEntropy`] where there is no randomness. Nothing
/// may be sent then.
pub fn protect(
    task: &Task,
    client: ClientId,
    round: u64,
    model: ContentHash,
    before: &[f32],
    after: &[f32],
    random: &mut Random,
) -> Result<Protected, ClientError> {
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
    let update = UpdateId::from_bytes(random.bytes()?);
    let frame = UpdateFrame {
        update,
        client,
        manifest: task.hash,
        model,
        round,
        coordinates,
    };
    let bytes = frame.encode();
    let report = UpdateReport {
        round,
        manifest: task.hash.to_string(),
        model: model.to_string(),
        update_id: update.to_string(),
        bytes: bytes.len(),
        coordinates: frame.coordinates.len(),
        width_bytes: CoordinateWidth::for_coordinates(&frame.coordinates).bytes(),
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
    })
}
