//! Central differential privacy: the relay bounds each update, adds them up, and adds noise to the sum, once.
//!
//! **What holds the bound.** An update whose squared norm is above the task's bound is refused, in whole numbers, before it is counted:
//! a client that does not clip gains nothing. Where the clip norm adapts, the relay shortens each update to it as well.
//!
//! **One noise for one sum.** The noised model is made and committed in the turn that closes the round, in one transaction with the end
//! of the sum. Readers see it after that commit. A relay that is killed before it has shown nobody anything, and may draw other noise
//! when it closes the round again; one that is killed after it never has that sum again.
//!
//! **What is told.** The noised sum, moved through the strategy (post-processing), and the noised share of short updates. Who takes part,
//! and how many, is public, and no privacy is claimed from it: there is no amplification by sampling.

use rand_core::CryptoRng;
use unsaid_privacy::{
    AccountingError, Adjacency, Encoding, Rho,
    central::{AdaptiveClip, CentralError, CentralNoise},
};
use unsaid_protocol::{CentralAdjacency, CentralPrivacy, RoundPrivacy};

use crate::aggregate::PartialSum;

#[cfg(test)]
mod tests;

/// Parts of a grid step that a shortened coordinate is counted in, so that shortening costs little precision.
pub const PARTS: u32 = 16;

/// How a task's sums are noised.
#[derive(Debug, Clone, Copy)]
pub struct Central {
    adjacency: Adjacency,
    delta: f64,
    noise_multiplier: f64,
    /// The bound of an update that clients clip, in grid steps².
    bound_squared: u64,
    grid_step: f64,
    clip_l2: f64,
    target_clients: u32,
    adaptive: Option<Adaptive>,
}

#[derive(Debug, Clone, Copy)]
struct Adaptive {
    rule: AdaptiveClip,
    initial_l2: f64,
    /// Of the sum, beside that of the count.
    sum_multiplier: f64,
}

/// What is known from round to round. All of it is public.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// What all rounds so far cost under add/remove, whatever the task's adjacency is: that may change.
    pub spent: Rho,
    /// The clip norm of the open round, in the model's own units.
    pub clip_l2: f64,
}

/// A sum that may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The direction: the noised sum in the model's units over the number of updates, `[d]`.
    pub direction: Vec<f64>,
    /// The state after it.
    pub state: State,
}

impl Central {
    /// The mechanism of a task.
    ///
    /// # Errors
    /// [`CentralError`] where its numbers make none.
    pub fn new(
        privacy: &CentralPrivacy,
        encoding: &Encoding,
        target_clients: u32,
    ) -> Result<Self, CentralError> {
        let adjacency = match privacy.adjacency {
            CentralAdjacency::AddRemove => Adjacency::AddRemove,
            // The other two inputs that can be meant are no farther apart.
            _ => Adjacency::ReplaceOne,
        };
        let adaptive = match privacy.adaptive_clip {
            None => None,
            Some(clip) => {
                let range = |field, found, expected| CentralError::Parameter {
                    field,
                    found,
                    expected,
                };
                let (least, most) = (encoding.grid_step(), encoding.clip_l2());
                if !(least..=most).contains(&clip.initial_l2) {
                    let expected = "from update.grid_step to update.clip_l2";
                    return Err(range("initial_l2", clip.initial_l2, expected));
                }
                if most / least > MOST_STEPS {
                    let expected = "at least update.clip_l2 / 4,194,304 where the clip norm adapts";
                    return Err(range("update.grid_step", least, expected));
                }
                let rule =
                    AdaptiveClip::new(clip.quantile, clip.rate, clip.count_noise, target_clients.into())?;
                Some(Adaptive {
                    rule,
                    initial_l2: clip.initial_l2,
                    sum_multiplier: rule.sum_noise_multiplier(privacy.noise_multiplier)?,
                })
            }
        };
        let central = Self {
            adjacency,
            delta: privacy.delta,
            noise_multiplier: privacy.noise_multiplier,
            bound_squared: encoding.bound_squared(),
            grid_step: encoding.grid_step(),
            clip_l2: encoding.clip_l2(),
            target_clients,
            adaptive,
        };
        // That it works at either end of what the clip norm can be.
        for clip_l2 in [central.grid_step, central.clip_l2] {
            central.noise(clip_l2)?;
        }
        Ok(central)
    }

    /// Before the first round.
    pub fn first(&self) -> State {
        State {
            spent: Rho::ZERO,
            clip_l2: self.adaptive.map_or(self.clip_l2, |adaptive| adaptive.initial_l2),
        }
    }

    /// Where the last round left off. What was spent under other terms stays spent.
    ///
    /// # Errors
    /// [`AccountingError::Rho`] where what was spent is no finite number: it is never taken for nothing.
    pub fn resume(&self, last: Option<&RoundPrivacy>) -> Result<State, AccountingError> {
        let first = self.first();
        let Some(last) = last else { return Ok(first) };
        Ok(State {
            // Written and read as a decimal: not below what it was.
            spent: Rho::new(last.rho.next_up())?,
            clip_l2: self.adaptive.map_or(first.clip_l2, |_| {
                last.next_clip_l2.clamp(self.grid_step, self.clip_l2)
            }),
        })
    }

    /// What is added to the sum besides the coordinates: the number of short updates, where the clip norm adapts.
    pub const fn extra(&self) -> usize {
        self.adaptive.is_some() as usize
    }

    /// Adds an update that was found to be within the task's bound.
    pub fn add(&self, sum: &mut PartialSum, coordinates: &[i32], state: &State) {
        if self.adaptive.is_none() {
            return sum.add(coordinates);
        }
        let (mut parts, within) = shorten(coordinates, self.bound_in_parts(state.clip_l2));
        parts.push(within.into());
        sum.merge(&PartialSum::from_steps(parts));
    }

    /// Noises a round's sum of `count` updates, and says what that cost.
    ///
    /// # Errors
    /// [`CentralError`]: nothing may be told of the sum then.
    pub fn release<R: CryptoRng + ?Sized>(
        &self,
        sum: &PartialSum,
        count: u32,
        state: &State,
        rng: &mut R,
    ) -> Result<Release, CentralError> {
        let noise = self.noise(state.clip_l2)?;
        let (coordinates, within) = sum.steps().split_at(sum.steps().len() - self.extra());
        let mut noised = coordinates.to_vec();
        noise.add(&mut noised, rng)?;
        let mut spent = state.spent + noise.rho(Adjacency::AddRemove);
        let (mut clip_l2, mut unit) = (state.clip_l2, self.grid_step);
        if let Some(Adaptive { rule, .. }) = &self.adaptive {
            let within = within.first().copied().unwrap_or(0).unsigned_abs();
            let next = rule.next(state.clip_l2, within, count.into(), rng)?;
            spent = spent + rule.rho(Adjacency::AddRemove);
            clip_l2 = next.clip_l2.clamp(self.grid_step, self.clip_l2);
            unit /= f64::from(PARTS);
        }
        // Who comes is no part of a sum under add/remove: it is divided by a constant.
        let updates = match self.adjacency {
            Adjacency::ReplaceOne => count.max(1),
            _ => self.target_clients,
        };
        Ok(Release {
            direction: noised
                .into_iter()
                .map(|steps| steps as f64 * unit / f64::from(updates))
                .collect(),
            state: State { spent, clip_l2 },
        })
    }

    /// ε at `delta` under the task's adjacency of what costs `spent` under add/remove: two sums are twice as far apart under replace-one.
    ///
    /// # Errors
    /// [`AccountingError::Delta`].
    pub fn epsilon(&self, spent: Rho, delta: f64) -> Result<f64, AccountingError> {
        let cost = match self.adjacency {
            Adjacency::AddRemove => spent,
            _ => std::iter::repeat_n(spent, 4).sum(),
        };
        cost.epsilon(delta)
    }

    /// What is told of `state`.
    pub fn figures(&self, state: &State) -> RoundPrivacy {
        RoundPrivacy {
            // The task's δ was checked; were it not, there would be no promise.
            epsilon: self
                .epsilon(state.spent, self.delta)
                .unwrap_or(f64::MAX)
                .min(f64::MAX),
            rho: state.spent.get(),
            next_clip_l2: state.clip_l2,
        }
    }

    /// The noise of a round at a clip norm.
    fn noise(&self, clip_l2: f64) -> Result<CentralNoise, CentralError> {
        match &self.adaptive {
            None => CentralNoise::new(self.bound_squared, self.noise_multiplier),
            Some(adaptive) => CentralNoise::new(self.bound_in_parts(clip_l2), adaptive.sum_multiplier),
        }
    }

    /// The squared clip norm in [`PARTS`]², rounded down to a whole number: the bound that the integers obey. At most 2⁵².
    fn bound_in_parts(&self, clip_l2: f64) -> u64 {
        let parts = clip_l2 / self.grid_step * f64::from(PARTS);
        (parts * parts) as u64
    }
}

/// The most grid steps of a clip norm that adapts: 2²², so that its square in [`PARTS`] is at most 2⁵².
const MOST_STEPS: f64 = 4_194_304.0;

/// `coordinates`, in grid steps, as [`PARTS`] of one, with a squared norm of at most `bound_squared`; and whether they were that short
/// before. What is less than a part is cut off.
fn shorten(coordinates: &[i32], bound_squared: u64) -> (Vec<i64>, bool) {
    let norm_squared = |parts: &[i64]| -> u128 {
        parts
            .iter()
            .map(|part| u128::from(part.unsigned_abs()).pow(2))
            .sum()
    };
    let whole: Vec<i64> = coordinates
        .iter()
        .map(|&steps| i64::from(steps) * i64::from(PARTS))
        .collect();
    let squared = norm_squared(&whole);
    if squared <= bound_squared.into() {
        return (whole, true);
    }
    let mut share = (bound_squared as f64 / squared as f64).sqrt();
    loop {
        let shortened: Vec<i64> = whole.iter().map(|&part| (part as f64 * share) as i64).collect();
        if norm_squared(&shortened) <= bound_squared.into() {
            return (shortened, false);
        }
        // Floats may be off by a few units in their last place; the bound is not.
        share *= 1.0 - 1e-12;
    }
}
