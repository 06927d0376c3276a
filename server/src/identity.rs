//! Whom a task lets take part, where it asks for identities: the rules of its file, and what is held against them in a turn.
//!
//! Who signed a request was found out before, beside decoding (`http/identities.rs`). Here it is asked whether the store knows the
//! signer, how often it has taken part, and what that has cost. The answers are read in the turn and written in the transaction that
//! counts the update: what is acknowledged is in the account, whatever is killed.

use std::collections::HashMap;

use unsaid_privacy::{Adjacency, Cost, Encoding, ExampleNoise, LocalNoise, PrivacyError, Rho};
use unsaid_protocol::{ContentHash, Enrolment, IdentityId, Privacy};

use crate::{
    round::{Refusal, Rounds},
    store::{Account, Standing, StoreError, Turn},
};

#[cfg(test)]
mod tests;

/// What a task asks of identities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Which identities.
    pub required: Enrolment,
    /// The most updates of one identity in a round.
    pub per_round: u32,
    /// The most updates of one identity on a day (UTC); none for any number.
    pub per_day: Option<u32>,
    /// What one update costs its sender; everything in a task without noise.
    pub cost: Cost,
    /// The most ε that all updates of one identity may cost; none for any.
    pub max_epsilon: Option<f64>,
    /// The δ at which ε is read.
    pub delta: f64,
}

/// The δ at which ε is told where a task says none.
pub const USUAL_DELTA: f64 = 1e-5;

/// Why it is not known what an update costs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The noise is none that can be counted.
    #[error(transparent)]
    Noise(#[from] PrivacyError),
    /// This relay knows no cost of the task's privacy mode.
    #[error("this relay does not know what an update costs with this privacy mode")]
    UnknownMode,
}

/// What an update without noise costs: there is no ε for it, at any δ.
pub fn cost_without_noise() -> Cost {
    Cost::of_examples(|_| f64::INFINITY)
}

/// What one update costs its sender, as the sender's own ledger counts it: in mode `central` too, where the relay's noise is all there
/// is, but for mode `none`, of which that ledger books nothing: [`cost_without_noise`]. `epochs` are those of the local training.
///
/// # Errors
/// [`CostError`]
pub fn cost_of_update(privacy: &Privacy, encoding: &Encoding, epochs: u32) -> Result<Cost, CostError> {
    Ok(match *privacy {
        Privacy::None => cost_without_noise(),
        Privacy::Local { noise_multiplier } => LocalNoise::new(encoding, noise_multiplier)
            .map_err(PrivacyError::from)?
            .rho(Adjacency::ReplaceOne)
            .into(),
        Privacy::Central(terms) => Rho::local_round(terms.noise_multiplier, Adjacency::ReplaceOne)
            .map_err(PrivacyError::from)?
            .into(),
        Privacy::Example {
            noise_multiplier,
            sampling_rate,
            ..
        } => {
            let noise = ExampleNoise::new(noise_multiplier, sampling_rate, encoding.dimension())
                .map_err(PrivacyError::from)?;
            let steps = epochs.saturating_mul(noise.steps_per_epoch());
            Cost::of_examples(|order| noise.cost(order, steps))
        }
        _ => return Err(CostError::UnknownMode),
    })
}

/// How the identities of one batch stand.
#[derive(Debug, Default)]
pub struct Standings(HashMap<IdentityId, Standing>);

impl Standings {
    /// Reads them in a turn.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn read(turn: &mut dyn Turn, ids: Vec<IdentityId>) -> Result<Self, StoreError> {
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let standings = turn.standings(&ids)?;
        Ok(Self(ids.into_iter().zip(standings).collect()))
    }

    /// Those that are known.
    fn of(&self, rules: &Rules, who: &IdentityId) -> Result<&Account, Refusal> {
        let standing = self.0.get(who);
        let known = standing.and_then(|it| it.identity.map(|identity| (identity, &it.account)));
        let Some((identity, account)) = known else {
            return Err(Refusal::IdentityUnknown { identity: *who });
        };
        if identity.revoked_ms.is_some() {
            return Err(Refusal::IdentityRevoked { identity: *who });
        }
        if rules.required == Enrolment::Invitation && !identity.invited {
            return Err(Refusal::Uninvited { identity: *who });
        }
        Ok(account)
    }

    /// Whether one more of the identity's clients may check in to the open round; one that is in already, or has reported, may ask
    /// again.
    ///
    /// # Errors
    /// [`Refusal`]: not known, revoked, not invited, or with what it has under way it would have more than its share.
    pub fn check_in(
        &self,
        rules: &Rules,
        rounds: &Rounds,
        who: &IdentityId,
        client: &unsaid_protocol::ClientId,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let account = self.of(rules, who)?;
        if rounds.is_in(client) || rounds.has_reported(client) {
            return Ok(());
        }
        let own = who.owned();
        let under_way = rounds.under_way_of(own, client, now_ms).saturating_add(1);
        if rounds.reported_of(own).saturating_add(under_way) > rules.per_round {
            let (round, most) = (rounds.round(), rules.per_round);
            return Err(Refusal::RoundQuota { round, most });
        }
        rules.allow(account, under_way, now_ms)
    }

    /// Whether one more update of the identity may be counted.
    ///
    /// # Errors
    /// As [`Self::check_in`], of what is counted alone.
    pub fn update(
        &self,
        rules: &Rules,
        rounds: &Rounds,
        who: &IdentityId,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let account = self.of(rules, who)?;
        if rounds.reported_of(who.owned()) >= rules.per_round {
            let (round, most) = (rounds.round(), rules.per_round);
            return Err(Refusal::RoundQuota { round, most });
        }
        rules.allow(account, 1, now_ms)
    }

    /// Counts an update. The account as it is to be written.
    pub fn count(&mut self, rules: &Rules, who: &IdentityId, now_ms: u64) -> Account {
        let standing = self.0.entry(*who).or_default();
        standing.account.count(rules.cost, now_ms);
        standing.account
    }
}

impl Rules {
    /// The name of what a manifest does not say of these rules: shares and budget.
    pub fn shares(&self) -> ContentHash {
        let Self {
            per_round,
            per_day,
            max_epsilon,
            delta,
            ..
        } = self;
        ContentHash::of(format!("{per_round} {per_day:?} {max_epsilon:?} {delta:?}").as_bytes())
    }

    /// ε of a cost.
    pub fn epsilon(&self, cost: Cost) -> f64 {
        // δ was checked when the file was read; were it not, nothing would be within any budget.
        cost.epsilon(self.delta).unwrap_or(f64::INFINITY)
    }

    /// Whether `more` updates may come on top of an account.
    fn allow(&self, account: &Account, more: u32, now_ms: u64) -> Result<(), Refusal> {
        if let Some(most) = self.per_day
            && account.today(now_ms).saturating_add(more) > most
        {
            return Err(Refusal::DayQuota { most });
        }
        if let Some(limit) = self.max_epsilon {
            let would_be = self.epsilon(account.cost + self.cost.times(more.into()));
            if would_be > limit {
                return Err(Refusal::RelayBudget {
                    limit: limit.to_string(),
                    would_be: would_be.to_string(),
                });
            }
        }
        Ok(())
    }
}
