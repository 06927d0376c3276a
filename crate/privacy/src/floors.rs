//! The least that a client asks of a task, whatever the task says.

use serde::Serialize;
use unsaid_document::{Decimal, Document, Fields, Value, deserialize_by_read};

deserialize_by_read!(ClientFloors);

/// A client's own limits. A task below them is not taken part in.
///
/// Written in camelCase in JSON; a field left out has its default.
///
/// ```
/// use unsaid_privacy::{ClientFloors, FloorError};
/// let floors = ClientFloors::default();
/// assert_eq!(floors.check(Some(4.0), 1.0, 10), Ok(()));
/// assert!(matches!(floors.check(None, 1.0, 10), Err(FloorError::NoNoise { .. })));
/// let open = ClientFloors { min_noise_multiplier: 0.0, ..floors };
/// assert_eq!(open.check(None, 1.0, 10), Ok(()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientFloors {
    /// The least noise multiplier (σ over the bound of an update, or over what one example can add to a sum). 0 allows tasks without noise. Default:
    /// [`Self::DEFAULT_MIN_NOISE_MULTIPLIER`].
    pub min_noise_multiplier: f64,
    /// The largest clip norm, in the model's units. It limits how far one participant can pull the model; privacy depends on the
    /// noise multiplier and not on it. Default: [`Self::DEFAULT_MAX_CLIP_L2`].
    pub max_clip_l2: f64,
    /// The least number of updates that a round may publish with. Default: [`Self::DEFAULT_MIN_COHORT`].
    pub min_cohort: u32,
    /// The most updates that the ledger books in 24 hours, in all tasks: [`crate::Ledger::check_day`]. Default:
    /// [`Self::DEFAULT_MAX_ROUNDS_PER_DAY`].
    pub max_rounds_per_day: u32,
    /// Whether tasks may be taken part in that protect single examples, and not the participant as a whole. Default: no, unless tasks
    /// without noise are allowed, which protect nothing.
    pub example_level: bool,
    /// Whether the relay may be trusted to add the noise (central differential privacy): it sees each clipped update as it is. Default:
    /// no.
    pub trust_relay: bool,
}

impl Document for ClientFloors {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let default = Self::default();
        let floors = Self {
            min_noise_multiplier: f
                .optional("minNoiseMultiplier")
                .unwrap_or(default.min_noise_multiplier),
            max_clip_l2: f.optional("maxClipL2").unwrap_or(default.max_clip_l2),
            min_cohort: f.optional("minCohort").unwrap_or(default.min_cohort),
            max_rounds_per_day: f
                .optional("maxRoundsPerDay")
                .unwrap_or(default.max_rounds_per_day),
            example_level: f.optional("exampleLevel").unwrap_or(default.example_level),
            trust_relay: f.optional("trustRelay").unwrap_or(default.trust_relay),
        };
        fields.finish().map(|()| floors)
    }
}

/// Why a client refuses a task.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FloorError {
    /// The task adds no noise.
    #[error(
        "the task adds no noise, but this client wants a noise multiplier of at least {floor}: choose another task, or set the \
         floor minNoiseMultiplier to 0 if its relay may see each update as it is", floor = Decimal(*floor))]
    NoNoise {
        /// The client's floor.
        floor: f64,
    },
    /// The task adds too little noise.
    #[error(
        "the task's noise multiplier is {found}, but this client wants at least {floor}: ask the task's operator for more \
         noise, or lower the floor minNoiseMultiplier knowingly", found = Decimal(*found), floor = Decimal(*floor))]
    NoiseTooWeak {
        /// The task's noise multiplier.
        found: f64,
        /// The client's floor.
        floor: f64,
    },
    /// The task lets an update be too long.
    #[error(
        "the task clips updates to {found}, but this client wants at most {floor}: ask the task's operator for a smaller clip \
         norm, or raise the limit maxClipL2 knowingly", found = Decimal(*found), floor = Decimal(*floor))]
    ClipTooLarge {
        /// The task's clip norm.
        found: f64,
        /// The client's limit.
        floor: f64,
    },
    /// The task publishes with too few updates.
    #[error(
        "the task publishes with {found} updates, but this client wants at least {floor}: ask the task's operator for larger \
         rounds, or lower the floor minCohort knowingly"
    )]
    CohortTooSmall {
        /// The task's least number of updates.
        found: u32,
        /// The client's floor.
        floor: u32,
    },
    /// The task protects less than the participant as a whole.
    #[error(
        "the task protects single examples, and not you as a whole: choose another task, or set the floor exampleLevel to true \
         if what your examples have in common may be learned from your update"
    )]
    ExampleLevel,
    /// The relay, and not this device, adds the noise.
    #[error(
        "the task's relay adds the noise and sees each update without it: choose another task, or set the floor trustRelay to true \
         if you trust it"
    )]
    RelayNotTrusted,
    /// A floor that is no floor.
    #[error("the floor {field} is {found}, but must be a finite number of at least 0", found = Decimal(*found))]
    Floor {
        /// The field.
        field: &'static str,
        /// Its value.
        found: f64,
    },
}

impl ClientFloors {
    /// The default of [`Self::min_noise_multiplier`]. At 0.5 one round costs ρ = 8, ε ≈ 26 at δ = 10⁻⁵: hardly any protection, and
    /// yet the client's budget, not this floor, is what limits a person's loss. The floor is there so that nobody joins a task
    /// without noise (or next to none) by not having been asked.
    pub const DEFAULT_MIN_NOISE_MULTIPLIER: f64 = 0.5;
    /// The default of [`Self::max_clip_l2`].
    pub const DEFAULT_MAX_CLIP_L2: f64 = 100.0;
    /// The default of [`Self::min_cohort`]: a published model is never one participant's update alone.
    pub const DEFAULT_MIN_COHORT: u32 = 2;
    /// The default of [`Self::max_rounds_per_day`], which is as many as a ledger keeps one by one: a larger number limits no more.
    pub const DEFAULT_MAX_ROUNDS_PER_DAY: u32 = crate::Ledger::KEPT as u32;

    /// Whether a task may leave the noise to its relay.
    ///
    /// # Errors
    /// [`FloorError::RelayNotTrusted`] unless the floors say so.
    pub const fn check_trust(&self) -> Result<(), FloorError> {
        if self.trust_relay {
            Ok(())
        } else {
            Err(FloorError::RelayNotTrusted)
        }
    }

    /// Checks a task's terms; `noise_multiplier` is `None` for a task without noise.
    ///
    /// # Errors
    /// [`FloorError`] for the first term that is not good enough, with what can be done about it.
    pub fn check(
        &self,
        noise_multiplier: Option<f64>,
        clip_l2: f64,
        min_clients: u32,
    ) -> Result<(), FloorError> {
        for (field, found) in [
            ("minNoiseMultiplier", self.min_noise_multiplier),
            ("maxClipL2", self.max_clip_l2),
        ] {
            if !(found.is_finite() && found >= 0.0) {
                return Err(FloorError::Floor { field, found });
            }
        }
        let floor = self.min_noise_multiplier;
        match noise_multiplier {
            None if floor > 0.0 => return Err(FloorError::NoNoise { floor }),
            // NaN is below every floor.
            Some(found) if found.is_nan() || found < floor => {
                return Err(FloorError::NoiseTooWeak { found, floor });
            }
            _ => {}
        }
        if clip_l2.is_nan() || clip_l2 > self.max_clip_l2 {
            return Err(FloorError::ClipTooLarge {
                found: clip_l2,
                floor: self.max_clip_l2,
            });
        }
        if min_clients < self.min_cohort {
            return Err(FloorError::CohortTooSmall {
                found: min_clients,
                floor: self.min_cohort,
            });
        }
        Ok(())
    }
}

impl ClientFloors {
    /// Checks that a task may protect single examples only.
    ///
    /// # Errors
    /// [`FloorError::ExampleLevel`].
    pub const fn check_example_level(&self) -> Result<(), FloorError> {
        if self.example_level || self.min_noise_multiplier == 0.0 {
            Ok(())
        } else {
            Err(FloorError::ExampleLevel)
        }
    }
}

impl Default for ClientFloors {
    fn default() -> Self {
        Self {
            min_noise_multiplier: Self::DEFAULT_MIN_NOISE_MULTIPLIER,
            max_clip_l2: Self::DEFAULT_MAX_CLIP_L2,
            min_cohort: Self::DEFAULT_MIN_COHORT,
            max_rounds_per_day: Self::DEFAULT_MAX_ROUNDS_PER_DAY,
            example_level: false,
            trust_relay: false,
        }
    }
}

#[cfg(test)]
mod tests;
