//! Clients of asynchronous rounds: so many train at the same time, each for as long as it takes, and another starts when one is
//! done.
//!
//! The setting of Nguyen et al. 2022, section 5: a constant number of clients in training, whose times are drawn from a half-normal
//! distribution.

use std::{collections::BTreeSet, sync::Arc};

use rand_core::Rng;
use unsaid_protocol::{CheckIn, CheckInReply, ContentHash};

use super::{Purpose, SimulateError, Simulation, client_id, random};
use crate::{live::Live, store::Changes};

/// A client that has checked in.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) client: usize,
    /// The round that it checked in to.
    pub(super) round: u64,
    /// That round's model.
    pub(super) model: ContentHash,
    /// It, `[d]`.
    pub(super) parameters: Arc<[f32]>,
}

/// The clients that train now. The unit of time is the mean of the normal distribution's size: nothing depends on it.
#[derive(Debug, Default)]
pub(super) struct Flight {
    now: f64,
    started: u64,
    training: Vec<(f64, Start)>,
}

impl Simulation {
    /// The clients that report to the open round, in the order in which they are done. Those whose model has become too old by then
    /// are left out: the relay would refuse them.
    pub(super) fn arrivals(
        &self,
        live: &mut Live,
        changes: &mut Changes,
        flight: &mut Flight,
        (count, now_ms): (usize, u64),
    ) -> Result<Vec<Start>, SimulateError> {
        let round = live.rounds.round();
        let parameters: Arc<[f32]> = live.parameters().into();
        let oldest = round.saturating_sub(u64::from(self.config.strategy.aggregation.max_staleness()));
        let mut arrived = Vec::new();
        while arrived.len() < count {
            while flight.training.len() < self.settings.concurrency {
                let mut rng = self.seed.generator(Purpose::Flight, flight.started, 0);
                let busy: BTreeSet<usize> = (flight.training.iter().map(|(_, start)| start.client))
                    .chain(arrived.iter().map(|start: &Start| start.client))
                    .collect();
                let free: Vec<usize> = (0..self.data.clients.len())
                    .filter(|client| !busy.contains(client))
                    .collect();
                let client = free[random::below(&mut rng, free.len())]; // more than train and report, see `Simulation::new`
                let ask = CheckIn {
                    client: client_id(client),
                    manifest: self.config.manifest_hash,
                };
                let CheckInReply::Train { round, model, .. } = live.check_in(&ask, now_ms, changes)? else {
                    return Err(self.stuck(round, live));
                };
                let start = Start {
                    client,
                    round,
                    model,
                    parameters: parameters.clone(),
                };
                flight.started += 1;
                flight.training.push((flight.now + half_normal(&mut rng), start));
            }
            let first = (0..flight.training.len()).min_by(|&a, &b| {
                let done = |at: usize| flight.training[at].0;
                done(a).total_cmp(&done(b)) // of two at once, the one that started first
            });
            let Some(first) = first else {
                return Err(self.stuck(round, live));
            };
            let (done, start) = flight.training.remove(first);
            flight.now = done;
            if start.round >= oldest {
                arrived.push(start);
            }
        }
        Ok(arrived)
    }
}

/// The size of a standard normal number (Box and Muller 1958).
fn half_normal(rng: &mut impl Rng) -> f64 {
    let mut uniform = || ((rng.next_u64() >> 11) as f64 + 0.5) * 2_f64.powi(-53);
    let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
    (radius * angle.cos()).abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::random::Seed;

    #[test]
    fn the_times_are_half_normal() {
        let n = 20_000;
        let mut rng = Seed::new(1).generator(Purpose::Flight, 0, 0);
        let times: Vec<f64> = (0..n).map(|_| half_normal(&mut rng)).collect();
        let mean = times.iter().sum::<f64>() / f64::from(n);
        let square = times.iter().map(|time| time * time).sum::<f64>() / f64::from(n);
        // Mean √(2/π), mean square 1; standard errors √((1 − 2/π)/n) and √(2/n). Six of them: a false alarm in 10⁹, and the seed is
        // fixed.
        let expected = (2.0 / std::f64::consts::PI).sqrt();
        assert!(
            (mean - expected).abs() < 6.0 * (0.3634 / f64::from(n)).sqrt(),
            "{mean}"
        );
        assert!(
            (square - 1.0).abs() < 6.0 * (2.0 / f64::from(n)).sqrt(),
            "{square}"
        );
    }
}
