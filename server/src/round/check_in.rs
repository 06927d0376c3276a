//! Who is let in to a round, and when the others are to ask again.

use unsaid_protocol::{CheckIn, CheckInReply, ClientId, ContentHash, IdentityId, RoundPhase};

use super::{MAX_CHECK_INS, Refusal, Rounds};

/// The longest that a waiting client is told to wait before it asks again. The `round` event comes sooner.
const LONGEST_WAIT_MS: u64 = 5_000;
const SHORTEST_WAIT_MS: u64 = 250;
const WAIT_SPREAD_MS: u64 = 1_000;

/// The longest that a client is told to wait that was not invited, or not drawn.
const LONGEST_PACE_MS: u64 = 600_000;
impl Rounds {
    /// A client asks to take part. Asking again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] or [`Refusal::Full`].
    pub fn check_in(&mut self, ask: &CheckIn, now_ms: u64) -> Result<CheckInReply, Refusal> {
        self.check_manifest(ask.manifest)?;
        let round = self.round;
        if self.phase() == RoundPhase::Finished {
            return Ok(CheckInReply::Finished {
                round: round - 1,
                model: self.model,
            });
        }
        if self.reported.contains(&ask.client) {
            let left = self
                .span
                .map_or(0, |span| span.deadline_ms.saturating_sub(now_ms));
            return Ok(CheckInReply::Wait {
                round,
                retry_after_ms: self.wait(ask.client, left),
            });
        }
        let is_in = self.checked_in.contains(&ask.client);
        if self.paused && !is_in || !self.may_be_counted(&ask.client) {
            return Ok(CheckInReply::Wait {
                round,
                retry_after_ms: self.wait(ask.client, LONGEST_WAIT_MS),
            });
        }
        if let Some(chance) = self.rules.chance
            && !is_in
        {
            let drawn_as = self.drawn_as(&ask.client);
            let Some(draw) = self.draw_key.as_ref().map(|key| key.draw(&drawn_as)) else {
                return Ok(CheckInReply::Wait {
                    round,
                    retry_after_ms: self.wait(ask.client, LONGEST_WAIT_MS),
                });
            };
            if !draw.is_let_in(chance) {
                // Whoever asks starts the span, or one that drew nobody would never end.
                let left_ms = self.collect_from(now_ms).deadline_ms.saturating_sub(now_ms);
                let retry_after_ms = self.until_next_draw(draw, left_ms);
                return Ok(CheckInReply::Wait {
                    round,
                    retry_after_ms: retry_after_ms.clamp(SHORTEST_WAIT_MS, LONGEST_PACE_MS),
                });
            }
        }
        if !is_in && self.checked_in.len() >= MAX_CHECK_INS {
            return Err(Refusal::Full { round });
        }
        if let Some(invited) = self.rules.invited
            && !is_in
            && self.checked_in().saturating_sub(self.excused) >= invited
        {
            let retry_after_ms = self.pace(ask.client, invited, now_ms);
            return Ok(CheckInReply::Wait {
                round,
                retry_after_ms,
            });
        }
        self.turned_away.remove(&ask.client);
        self.checked_in.insert(ask.client);
        self.overdue.remove(&ask.client);
        let span = self.collect_from(now_ms);
        Ok(CheckInReply::Train {
            round,
            model: self.model,
            deadline_ms: span.deadline_ms.saturating_sub(now_ms),
        })
    }

    /// Whether `manifest` is the one in force.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] where it is not.
    pub fn check_manifest(&self, manifest: ContentHash) -> Result<(), Refusal> {
        let in_force = self.rules.manifest;
        if manifest == in_force {
            Ok(())
        } else {
            Err(Refusal::Manifest { in_force })
        }
    }

    /// Whether as many rounds have closed since the last one that counts this participant as have to.
    pub(super) fn may_be_counted(&self, client: &ClientId) -> bool {
        let separation = u64::from(self.rules.min_separation);
        let last = self.last_report.get(&self.participant(client));
        let last = last.filter(|_| separation > 1);
        last.is_none_or(|last| *last >= self.round || last.saturating_add(separation) <= self.round)
    }

    /// Whose rounds have to be apart: the client, or where identities take part, all clients of its identity, by its least name.
    pub(super) fn participant(&self, client: &ClientId) -> ClientId {
        if self.rules.by_identity && self.rules.min_separation > 1 {
            ClientId::from_bytes(IdentityId::least_of(client.as_bytes()))
        } else {
            *client
        }
    }

    /// How long a client is to wait for something that comes in `left_ms`, or nobody knows when: until then and up to a second more, or where
    /// that is long, half to all of the longest wait. An event may have woken a crowd, and each has another place in the next time.
    const fn wait(&self, client: ClientId, left_ms: u64) -> u64 {
        let (least, window) = if left_ms >= LONGEST_WAIT_MS {
            (LONGEST_WAIT_MS / 2, LONGEST_WAIT_MS / 2)
        } else {
            (left_ms, WAIT_SPREAD_MS)
        };
        let wait_ms = least + part(place(client, self.round), window);
        if wait_ms < SHORTEST_WAIT_MS {
            SHORTEST_WAIT_MS
        } else if wait_ms > LONGEST_WAIT_MS {
            LONGEST_WAIT_MS
        } else {
            wait_ms
        }
    }

    /// How long a client that was not invited is to wait: until the span has ended, and then a part, by its id, of the time in which
    /// as many rounds can invite all that wait. So about as many come to each round as it invites.
    fn pace(&mut self, client: ClientId, invited: u32, now_ms: u64) -> u64 {
        if self.turned_away.len() < MAX_CHECK_INS {
            self.turned_away.insert(client);
        }
        let left = self
            .span
            .map_or(0, |span| span.deadline_ms.saturating_sub(now_ms));
        let rounds = (self.turned_away.len() as u64).div_ceil(invited.max(1).into());
        let window = self.rules.policy.deadline_ms.saturating_mul(rounds);
        left.saturating_add(part(place(client, self.round), window))
            .clamp(SHORTEST_WAIT_MS, LONGEST_PACE_MS)
    }
}

/// The part of `window` at `place`.
pub(super) const fn part(place: u64, window: u64) -> u64 {
    ((place as u128 * window as u128) >> 64) as u64 // below the window
}

/// Where a client stands among those that wait for a round, evenly spread over all of `u64`: its id, which it chose at random, and
/// the round, mixed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014), so that nobody is the last one every time.
const fn place(client: ClientId, round: u64) -> u64 {
    let (low, high) = (client.as_bytes().first_chunk(), client.as_bytes().last_chunk());
    let id = match (low, high) {
        (Some(low), Some(high)) => u64::from_le_bytes(*low) ^ u64::from_le_bytes(*high),
        _ => 0,
    };
    let mut mixed = (id ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
