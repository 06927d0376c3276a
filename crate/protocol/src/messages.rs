//! Control messages: the JSON that a client and a relay exchange, and the events that a relay sends.

use serde::{Deserialize, Serialize};

use crate::{ClientId, ContentHash, TaskId, UpdateId};

/// `POST /v1/tasks/{task}/check-in`: a client asks to take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckIn {
    /// Who asks.
    pub client: ClientId,
    /// The manifest that the client read and agreed to.
    pub manifest: ContentHash,
}

/// The relay's answer to a check-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckInReply {
    /// Train on this model and report to this round.
    Train {
        /// The round to report to.
        round: u64,
        /// The model to start from.
        model: ContentHash,
        /// Milliseconds left until the round's deadline.
        deadline_ms: u64,
    },
    /// Nothing to do now (the client has reported to this round already, or the task has ended its last round): wait for the
    /// next `round` event, or ask again after `retry_after_ms`.
    Wait {
        /// The round that is open.
        round: u64,
        /// Milliseconds after which to ask again if no event came.
        retry_after_ms: u64,
    },
    /// The task has published its last round.
    Finished {
        /// The last round published.
        round: u64,
        /// The final model.
        model: ContentHash,
    },
}

/// The relay's answer to an accepted update: it is on disk, and will be counted exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReply {
    /// The update that was accepted.
    pub update: UpdateId,
    /// The round that counts it.
    pub round: u64,
    /// True where these bytes had been accepted before; nothing was counted again.
    pub duplicate: bool,
}

/// Where a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RoundPhase {
    /// Open: no client has checked in yet; the deadline is not running.
    Idle,
    /// Clients are training and reporting.
    Collecting,
    /// The task has published its last round.
    Finished,
}

/// `GET /v1/tasks/{task}/round`, and the payload of the `round` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundState {
    /// The task.
    pub task: TaskId,
    /// The round that is open; the first is 1.
    pub round: u64,
    /// Where it stands.
    pub phase: RoundPhase,
    /// The model that the round starts from (the newest published).
    pub model: ContentHash,
    /// The manifest in force.
    pub manifest: ContentHash,
    /// Clients that checked in.
    pub checked_in: u32,
    /// Updates accepted.
    pub received: u32,
    /// Milliseconds left until the deadline; none while idle or finished.
    pub deadline_ms: Option<u64>,
}

/// What one published round was: an entry of `GET /v1/tasks/{task}/rounds`, and the payload of the `published` and
/// `evaluated` events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundMetrics {
    /// The round. Round 0 is the initial model.
    pub round: u64,
    /// The model that came out of it.
    pub model: ContentHash,
    /// Updates in the aggregate.
    pub clients: u32,
    /// Clients that checked in.
    pub checked_in: u32,
    /// Bytes of accepted update frames.
    pub bytes_up: u64,
    /// Bytes of one model download, uncompressed.
    pub model_bytes: u64,
    /// Milliseconds from the first check-in to publication.
    pub duration_ms: u64,
    /// Unix time of publication in milliseconds.
    pub published_at_ms: u64,
    /// Share of the held-out examples that the model gets right; none before the evaluation, or without a held-out set.
    pub accuracy: Option<f64>,
    /// Mean loss on the held-out examples.
    pub loss: Option<f64>,
}

/// What the relay sends on `GET /v1/tasks/{task}/events` (server-sent events). The event's name is the variant's, its data
/// the payload as JSON. On connecting, a client is sent the current `round` and the latest `evaluated` (or `published`).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// `round`: a round opened, or its counts changed.
    Round(RoundState),
    /// `published`: a round closed and its model can be downloaded.
    Published(RoundMetrics),
    /// `evaluated`: the held-out figures of a published round are known.
    Evaluated(RoundMetrics),
}

impl Event {
    /// The event's name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Round(_) => "round",
            Self::Published(_) => "published",
            Self::Evaluated(_) => "evaluated",
        }
    }

    /// The payload on the wire.
    pub fn data(&self) -> String {
        let json = match self {
            Self::Round(state) => serde_json::to_string(state),
            Self::Published(metrics) | Self::Evaluated(metrics) => serde_json::to_string(metrics),
        };
        #[allow(clippy::expect_used)]
        // INVARIANT: the payloads hold strings, integers and finite-or-null numbers
        json.expect("an event is always valid JSON")
    }

    /// Reads an event; none where the name is one that this version does not know (a later relay may send more).
    ///
    /// # Errors
    /// The JSON error where the payload is not what the name promises.
    pub fn read(name: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        if !["round", "published", "evaluated"].contains(&name) {
            return Ok(None);
        }
        let data: serde_json::Value = serde_json::from_str(data)?;
        Ok(Some(match name {
            "round" => Self::Round(RoundState::deserialize(&data)?),
            "published" => Self::Published(RoundMetrics::deserialize(&data)?),
            _ => Self::Evaluated(RoundMetrics::deserialize(&data)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> RoundState {
        RoundState {
            task: "digits".parse().unwrap(),
            round: 3,
            phase: RoundPhase::Collecting,
            model: ContentHash::of(b"model"),
            manifest: ContentHash::of(b"manifest"),
            checked_in: 2,
            received: 1,
            deadline_ms: Some(1500),
        }
    }

    #[test]
    fn events_survive_a_round_trip_and_unknown_ones_are_passed_over() {
        let event = Event::Round(state());
        assert_eq!(Event::read(event.name(), &event.data()).unwrap(), Some(event));
        assert_eq!(Event::read("something-later", "{}").unwrap(), None);
        assert!(Event::read("round", "{}").is_err());
    }

    #[test]
    fn replies_are_tagged_by_status() {
        let json = serde_json::to_value(CheckInReply::Wait {
            round: 2,
            retry_after_ms: 500,
        })
        .unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "status": "wait", "round": 2, "retry_after_ms": 500 })
        );
    }
}
