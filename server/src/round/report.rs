//! Which updates a round counts.

use unsaid_protocol::RoundPhase;

use super::{Claim, Counted, Judgement, Refusal, Rounds};

impl Rounds {
    /// Whether an update is to be counted. Nothing changes.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies. An id that was counted before is looked at first, so that a client which sends
    /// the same bytes again learns that they are counted, even after the round closed.
    pub fn judge(&self, claim: &Claim) -> Result<Judgement, Refusal> {
        if let Some(known) = self.counted.get(&claim.update) {
            let round = known.round;
            return if (known.client, known.digest) == (claim.client, claim.digest) {
                Ok(Judgement::Duplicate { round })
            } else {
                Err(Refusal::Conflict { round })
            };
        }
        self.check_manifest(claim.manifest)?;
        let (asked, open, round) = (claim.round, self.round, self.round);
        if asked == 0 || asked > open || self.phase() == RoundPhase::Finished && asked == open {
            return Err(Refusal::NotOpen { asked, open });
        }
        if asked < self.oldest_remembered() {
            return Err(Refusal::Forgotten { asked, open });
        }
        let closed = Refusal::Closed { asked, open };
        let expected = match (open - asked) as usize {
            0 => self.model,
            behind => match self.earlier.get(behind - 1) {
                Some(model) if self.phase() != RoundPhase::Finished => *model,
                _ => return Err(closed),
            },
        };
        if claim.model != expected {
            let round = asked;
            return Err(Refusal::Model { round, expected });
        }
        if asked == open && !(self.checked_in.contains(&claim.client) && self.may_be_counted(&claim.client)) {
            return Err(Refusal::NotCheckedIn { round });
        }
        if asked < open && !self.earlier_check_ins.contains(&(asked, claim.client)) {
            return Err(closed);
        }
        let last = self.last_report.get(&self.participant(&claim.client));
        if self.reported.contains(&claim.client) || last.is_some_and(|&last| last >= asked) {
            return Err(Refusal::AlreadyReported { round });
        }
        Ok(Judgement::New)
    }

    /// The rounds that have closed since the one whose model a new update starts from.
    pub const fn staleness(&self, claim: &Claim) -> u32 {
        self.round.saturating_sub(claim.round) as u32 // at most `max_staleness`
    }

    /// Counts an update that [`Rounds::judge`] called new. The caller adds its coordinates to the sum.
    pub fn count(&mut self, claim: &Claim, now_ms: u64) -> Counted {
        let entry = Counted {
            update: claim.update,
            round: self.round,
            client: claim.client,
            digest: claim.digest,
        };
        self.collect_from(now_ms); // a report may come after its span lapsed
        self.reported.insert(claim.client);
        self.bytes_up = self.bytes_up.saturating_add(claim.bytes);
        self.remember(entry);
        entry
    }
}
