//! What one update would give away of one example: an attacker at the relay, played for the person whose example it is.
//!
//! Nothing here takes part in anything: no ledger is debited, and nothing is sent. The update is made as a session makes it, by the same
//! training, clipping, grid, noise and frame, on the very model, and the attacker has what a relay has: the frame's bytes and the model.
//!
//! **What is found, and what is not.** The attack is exact for one example in a step, of a model that begins with a dense layer. On many
//! examples it finds mixtures of them. That it finds nothing proves nothing: another attacker may know more, or see many updates. What is
//! proved is ε.

use unsaid_engine::{Device, Examples, Training, Unobserved, train};
use unsaid_privacy::{Encoding, LocalNoise, PrivacyError, fit_dense, label_from_bias, psnr, ssim};
use unsaid_protocol::{ClientId, ContentHash, Privacy, UpdateFrame, UpdateId};

use crate::{
    ClientError,
    lots::Lots,
    protect::{Learned, protect},
    random::Random,
    task::Task,
};

/// What is done to the update before the attacker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// Nothing but the rounding to the grid.
    None,
    /// It is shortened as the task says, without noise.
    Clip,
    /// Clipping and the task's own noise: on the update or on the gradients, as it leaves the device; where the relay adds it, as all
    /// others see it who know every other update of the round's sum.
    Noise,
}

/// What the attacker finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    /// Behind what.
    pub protection: Protection,
    /// Length of the frame that was attacked.
    pub frame_bytes: usize,
    /// Whether the update was shortened.
    pub clipped: bool,
    /// The input that was found, `[features]`, held within the range of the example's own; none where nothing was.
    pub found: Option<Vec<f32>>,
    /// The label that was read off the last bias; none where none was.
    pub label: Option<usize>,
    /// Peak signal-to-noise ratio of what was found, in dB: infinite where it is the example itself. 0 where nothing was found.
    pub psnr: f64,
    /// Structural similarity of the two as pictures; none where the input is no picture of at least 7 × 7.
    pub ssim: Option<f64>,
}

/// The attack on the update that a device with this one example, and no other, would send: without protection, clipped, and with the task's
/// noise where it has any.
///
/// `model` are the shared parameters `[d]`, `x` is the example `[features]` and `label` its label.
///
/// # Errors
/// [`ClientError::BadOptions`] where the model does not begin with a dense layer and its bias, or does not end with the bias of one unit for
/// each class; [`ClientError::BadData`] for an example that does not fit; and what training and protecting may fail with.
pub async fn exposure(
    task: &Task,
    model: &[f32],
    x: &[f32],
    label: u32,
    random: &mut Random,
) -> Result<Vec<Exposure>, ClientError> {
    let target = Target::of(task)?;
    let example = Examples::new(
        x.to_vec(),
        vec![label],
        task.model.features(),
        task.model.classes(),
    )?;
    let delta = |after: &[f32]| -> Vec<f32> {
        after
            .iter()
            .zip(model)
            .map(|(after, before)| after - before)
            .collect()
    };

    // Plain training, where the task has noise on gradients too: that is what there would be without protection.
    let mut plain = task.training.clone();
    if task.gradient_noise.is_some() {
        plain.clip_examples_l2 = None;
    }
    let trained = async |spec| {
        train(
            &task.model,
            model,
            &example,
            spec,
            0,
            &Device::Cpu,
            &mut Unobserved,
        )
        .await
    };
    let open = trained(&plain).await?.parameters;
    let shortened = trained(&task.training).await?.parameters;

    let change = delta(&open);
    let length = change.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let wide = Encoding::new(
        task.encoding.clip_l2().max(1.01 * length),
        task.encoding.grid_step(),
        change.len(),
    )
    .map_err(PrivacyError::from)?;
    let mut found = vec![
        target.attack(Protection::None, &framed(&wide, None, &change, random)?, &wide, x)?,
        target.attack(
            Protection::Clip,
            &framed(&task.encoding, None, &delta(&shortened), random)?,
            &task.encoding,
            x,
        )?,
    ];
    if let Some(bytes) = noised(task, model, &shortened, &example, random).await? {
        found.push(target.attack(Protection::Noise, &bytes, &task.encoding, x)?);
    }
    Ok(found)
}

/// A frame, and whether what is in it was shortened.
struct Framed {
    bytes: Vec<u8>,
    clipped: bool,
}

/// The update with the task's own noise; none in a task without.
async fn noised(
    task: &Task,
    before: &[f32],
    after: &[f32],
    example: &Examples,
    random: &mut Random,
) -> Result<Option<Framed>, ClientError> {
    let after = match (task.private_steps(), task.manifest.privacy) {
        (Some((noise, steps)), _) => {
            let mut lots = Lots::new(noise)?;
            let training = Training::new(&task.model, example, &task.training);
            &training
                .run_private(before, steps, &mut lots, &Device::Cpu, &mut Unobserved)
                .await?
                .parameters
        }
        (None, Privacy::Central(terms)) => {
            let noise =
                LocalNoise::new(&task.encoding, terms.noise_multiplier).map_err(PrivacyError::from)?;
            let change: Vec<f32> = after
                .iter()
                .zip(before)
                .map(|(after, before)| after - before)
                .collect();
            return framed(&task.encoding, Some(&noise), &change, random).map(Some);
        }
        _ if task.noise.is_none() => return Ok(None),
        _ => after,
    };
    let learned = Learned {
        before,
        after,
        examples: 1,
    };
    let client = ClientId::from_bytes(random.bytes()?);
    let made = protect(task, client, 1, ContentHash::of(&[]), learned, random)?;
    Ok(Some(Framed {
        bytes: made.frame,
        clipped: made.report.clipped,
    }))
}

/// What [`protect`] does, with an encoding and a noise that may not be the task's.
fn framed(
    encoding: &Encoding,
    noise: Option<&LocalNoise>,
    change: &[f32],
    random: &mut Random,
) -> Result<Framed, ClientError> {
    let encoded = encoding
        .encode(change, random.generator()?)
        .map_err(PrivacyError::from)?;
    let mut coordinates = encoded.coordinates;
    if let Some(noise) = noise {
        noise
            .add(&mut coordinates, random.generator()?)
            .map_err(PrivacyError::from)?;
    }
    let frame = UpdateFrame {
        update: UpdateId::from_bytes(random.bytes()?),
        client: ClientId::from_bytes(random.bytes()?),
        manifest: ContentHash::of(&[]),
        model: ContentHash::of(&[]),
        round: 1,
        coordinates,
    };
    Ok(Framed {
        bytes: frame.encode(),
        clipped: encoded.clipped,
    })
}

/// Where in the flat vector the attack reads, and what of a picture the input is.
struct Target {
    kernel: std::ops::Range<usize>,
    bias: std::ops::Range<usize>,
    last_bias: std::ops::Range<usize>,
    /// Height and width.
    picture: Option<[usize; 2]>,
}

impl Target {
    fn of(task: &Task) -> Result<Self, ClientError> {
        let features = task.model.features();
        let refuse = |what: &str| {
            ClientError::BadOptions(format!(
                "this attack reads {what}, which the task’s model does not have"
            ))
        };
        let kind = |layer: &unsaid_document::Value| {
            layer
                .get("type")
                .and_then(|kind| kind.as_str())
                .map(str::to_owned)
        };
        let layers = task
            .manifest
            .model
            .get("layers")
            .and_then(|layers| layers.as_array());
        let mut kinds = layers.into_iter().flatten().filter_map(kind);
        let tensors = task.model.layout().tensors();
        let [kernel, bias, ..] = tensors else {
            return Err(refuse("a dense first layer"));
        };
        let dense = kinds
            .find(|kind| kind != "flatten")
            .is_some_and(|kind| kind == "dense");
        if !dense || kernel.shape.first() != Some(&features) || kernel.shape.get(1..) != Some(&bias.shape) {
            return Err(refuse("a dense first layer with a bias"));
        }
        let last = tensors.last().filter(|last| last.shape == [task.model.classes()]);
        let last = last.ok_or_else(|| refuse("the bias of a unit for each class at its end"))?;
        let side = features.isqrt();
        let shape = task
            .manifest
            .model
            .get("input")
            .and_then(|input| input.as_array());
        let shape: Option<Vec<u64>> =
            shape.map(|shape| shape.iter().filter_map(unsaid_document::Value::as_u64).collect());
        let picture = match shape.as_deref() {
            Some([height, width, 1]) => Some([*height as usize, *width as usize]),
            // A flat input of as many numbers as a square has.
            Some([_]) if side * side == features => Some([side, side]),
            _ => None,
        };
        Ok(Self {
            kernel: kernel.range(),
            bias: bias.range(),
            last_bias: last.range(),
            picture: picture.filter(|[height, width]| *height.min(width) >= 7),
        })
    }

    /// What the relay can make of a frame's bytes.
    fn attack(
        &self,
        protection: Protection,
        made: &Framed,
        encoding: &Encoding,
        x: &[f32],
    ) -> Result<Exposure, ClientError> {
        let frame = UpdateFrame::decode(&made.bytes)?;
        let change = encoding.decode(&frame.coordinates);
        let [kernel, bias, last_bias] =
            [&self.kernel, &self.bias, &self.last_bias].map(|range| &change[range.clone()]);
        let (low, high) = x
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| {
                (low.min(*x), high.max(*x))
            });
        // Pixels have a known range, and an attacker keeps to it.
        let found = fit_dense(kernel, bias).ok();
        let found: Option<Vec<f32>> =
            found.map(|found| found.into_iter().map(|x| x.clamp(low, high)).collect());
        let fault = |error: unsaid_privacy::InversionError| ClientError::Internal(error.to_string());
        let (mut decibels, mut alike) = (0.0, None);
        if let Some(found) = &found {
            let peak = if high > low { high - low } else { 1.0 };
            decibels = psnr(x, found, peak).map_err(fault)?;
            if let Some(picture) = self.picture {
                alike = Some(ssim(x, found, picture, peak).map_err(fault)?);
            }
        }
        Ok(Exposure {
            protection,
            frame_bytes: made.bytes.len(),
            clipped: made.clipped,
            found,
            label: label_from_bias(last_bias).ok(),
            psnr: decibels,
            ssim: alike,
        })
    }
}

#[cfg(test)]
mod tests;
