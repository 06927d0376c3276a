//! The section `[identity]`: whom a task lets take part.

use serde::Deserialize;
use toml::Spanned;
use unsaid_privacy::Cost;
use unsaid_protocol::{Enrolment, Privacy};

use super::{
    document::Fault,
    number::{Count, Delta, MaxEpsilon},
};
use crate::identity::{CostError, Rules, USUAL_DELTA, cost_without_noise};

/// The section as it is written. With `required = "none"` the rest may stay in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentitySection {
    #[serde(default)]
    required: Required,
    /// Otherwise one.
    updates_per_round: Option<Spanned<Count>>,
    /// Otherwise any number.
    updates_per_day: Option<Count>,
    max_epsilon: Option<Spanned<MaxEpsilon>>,
    delta: Option<Delta>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Required {
    #[default]
    None,
    Open,
    Invitation,
}

impl IdentitySection {
    /// The rules, in a task of these terms whose updates have this cost; none where it asks for no identity.
    pub(super) fn read(
        &self,
        span: std::ops::Range<usize>,
        privacy: &Privacy,
        cost: impl FnOnce() -> Result<Cost, CostError>,
    ) -> Result<Option<Rules>, Fault> {
        let required = match self.required {
            Required::None => return Ok(None),
            Required::Open => Enrolment::Open,
            Required::Invitation => Enrolment::Invitation,
        };
        let usual = match privacy {
            Privacy::Central(terms) => {
                // k updates in a sum of one noise cost k² times one, not k times.
                if let Some(most) = self
                    .updates_per_round
                    .as_ref()
                    .filter(|most| most.get_ref().get() > 1)
                {
                    let message = format!(
                        "{} is too many for privacy mode \"central\": all updates of an identity would share one noise, so that k cost as much as k²",
                        most.get_ref().get()
                    );
                    return Err(Fault::at(most.span(), message));
                }
                terms.delta
            }
            _ => USUAL_DELTA,
        };
        let cost = cost().map_err(|error| Fault::at(span.clone(), error))?;
        let (max_epsilon, delta) = match (&self.max_epsilon, self.delta) {
            (None, delta) => (None, delta.map_or(usual, Delta::get)),
            (Some(max), _) if cost == cost_without_noise() => {
                let message =
                    "must be left out with privacy mode \"none\": updates without noise have no epsilon";
                return Err(Fault::at(max.span(), message));
            }
            (Some(max), None) => return Err(Fault::at(max.span(), "needs a delta beside it")),
            (Some(max), Some(delta)) => {
                let (epsilon, delta) = (max.get_ref().get(), delta.get());
                let one = cost.epsilon(delta).unwrap_or(f64::INFINITY);
                if one > epsilon {
                    let message =
                        format!("{epsilon} is below {one}, which one update costs: nobody could take part");
                    return Err(Fault::at(max.span(), message));
                }
                (Some(epsilon), delta)
            }
        };
        Ok(Some(Rules {
            required,
            per_round: self
                .updates_per_round
                .as_ref()
                .map_or(1, |most| most.get_ref().get()),
            per_day: self.updates_per_day.map(Count::get),
            cost,
            max_epsilon,
            delta,
        }))
    }
}
