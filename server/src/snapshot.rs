//! What readers see of a task: its state as of the last commit, and numbered events since.

use unsaid_protocol::{ContentHash, Event, RoundMetrics, RoundPhase, RoundState, TaskId};

use crate::{
    lineage::RoundRecord,
    live::{Live, OpenError, TaskConfig},
    round::Span,
};

/// An event and its number.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Counts up by one.
    pub seq: u64,
    /// The event.
    pub event: Event,
}

/// A task's state as of some commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The number of the last event that it includes.
    pub seq: u64,
    /// The newest published round.
    pub newest: RoundMetrics,
    /// The newest round with figures.
    pub evaluated: Option<RoundMetrics>,
    /// How far the clock that the round goes by is ahead of this machine's, in milliseconds.
    pub ahead_ms: i64,
    /// The most that an identity's updates cost, as ε, of those that this relay has counted.
    pub dearest: Option<f64>,
    task: TaskId,
    manifest: ContentHash,
    round: u64,
    phase: RoundPhase,
    model: ContentHash,
    checked_in: u32,
    received: u32,
    span: Option<Span>,
    paused: bool,
}

impl Snapshot {
    /// The state at the start, after `history`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] where the history is empty: a task's first commit writes round 0.
    pub fn new(config: &TaskConfig, live: &Live, history: &[RoundRecord]) -> Result<Self, OpenError> {
        let evaluated = history
            .iter()
            .rev()
            .find(|metrics| metrics.accuracy.is_some())
            .map(|record| record.metrics.clone());
        let newest = history.last().map(|record| record.metrics.clone());
        let newest = newest.ok_or_else(|| OpenError::Damaged("round 0 is missing".into()))?;
        let base = Self {
            seq: 0,
            newest,
            evaluated,
            ahead_ms: 0,
            dearest: None,
            task: config.manifest.task.clone(),
            manifest: config.manifest_hash,
            round: 0,
            phase: RoundPhase::Idle,
            model: live.rounds.model(),
            checked_in: 0,
            received: 0,
            span: None,
            paused: false,
        };
        Ok(base.after(live, &[]))
    }

    /// The state after a commit that made `news`.
    pub fn after(&self, live: &Live, news: &[Event]) -> Self {
        let mut next = self.clone();
        next.dearest = live.dearest().or(self.dearest);
        for event in news {
            match event {
                Event::Published(metrics) => next.newest = metrics.clone(),
                Event::Evaluated(metrics) => {
                    if next.newest.round <= metrics.round {
                        next.newest = metrics.clone();
                    }
                    if next
                        .evaluated
                        .as_ref()
                        .is_none_or(|known| known.round <= metrics.round)
                    {
                        next.evaluated = Some(metrics.clone());
                    }
                }
                _ => {}
            }
        }
        let rounds = &live.rounds;
        next.phase = rounds.phase();
        // A finished task has no open round: what it shows is its last.
        next.round = if next.phase == RoundPhase::Finished {
            rounds.round() - 1
        } else {
            rounds.round()
        };
        next.model = rounds.model();
        (next.checked_in, next.received, next.span) = (rounds.checked_in(), rounds.received(), rounds.span());
        next.paused = rounds.paused();
        next
    }

    /// Whether the state of the round differs from `other`'s.
    pub fn differs(&self, other: &Self) -> bool {
        let round = |it: &Self| {
            let counts = (it.checked_in, it.received, it.span);
            (it.round, it.phase, it.model, it.paused, counts)
        };
        round(self) != round(other)
    }

    /// The state of the round at `now_ms` by this machine's clock.
    pub fn state(&self, now_ms: u64) -> RoundState {
        let now_ms = now_ms.saturating_add_signed(self.ahead_ms);
        RoundState {
            task: self.task.clone(),
            round: self.round,
            phase: self.phase,
            model: self.model,
            manifest: self.manifest,
            checked_in: self.checked_in,
            received: self.received,
            deadline_ms: self.span.map(|span| span.deadline_ms.saturating_sub(now_ms)),
            paused: self.paused,
        }
    }

    /// What a reader is sent on connecting.
    pub fn greeting(&self, now_ms: u64) -> Vec<Event> {
        let mut events = vec![Event::Round(self.state(now_ms))];
        events.extend(self.evaluated.clone().map(Event::Evaluated));
        if self.newest.accuracy.is_none() {
            events.push(Event::Published(self.newest.clone()));
        }
        events
    }
}
