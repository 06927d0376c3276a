//! Control messages: the JSON that a client and a relay exchange, and the events that a relay sends.

use serde::Serialize;
use unsaid_document::{Document, Field, Fields, Value, deserialize_by_read};

use crate::{ClientId, ContentHash, TaskId, UpdateId};

deserialize_by_read!(CheckIn, CheckInReply, UpdateReply, RoundState, RoundMetrics);

/// `POST /v1/tasks/{task}/check-in`: a client asks to take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckIn {
    /// Who asks.
    pub client: ClientId,
    /// The manifest that the client read and agreed to.
    pub manifest: ContentHash,
}

impl Document for CheckIn {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let check_in = Self {
            client: fields.required("client"),
            manifest: fields.required("manifest"),
        };
        fields.finish().map(|()| check_in)
    }
}

/// The relay's answer to a check-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Nothing to do now (the client has reported to this round already, the round takes no more clients or has not drawn this one, or
    /// the task is paused): wait for the next `round` event, or ask again after `retry_after_ms`.
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

impl Document for CheckInReply {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let status = f.tag("status")?;
        let round = f.required("round");
        let reply = match status.as_str() {
            "train" => Self::Train {
                round,
                model: f.required("model"),
                deadline_ms: f.required("deadline_ms"),
            },
            "wait" => Self::Wait {
                round,
                retry_after_ms: f.required("retry_after_ms"),
            },
            "finished" => Self::Finished {
                round,
                model: f.required("model"),
            },
            other => return Err(format!("unknown status `{other}`")),
        };
        fields.finish_open().map(|()| reply)
    }
}

/// The relay's answer to an accepted update: it is on disk, and will be counted exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateReply {
    /// The update that was accepted.
    pub update: UpdateId,
    /// The round that counts it.
    pub round: u64,
    /// True where these bytes had been accepted before; nothing was counted again.
    pub duplicate: bool,
}

impl Document for UpdateReply {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let reply = Self {
            update: fields.required("update"),
            round: fields.required("round"),
            duplicate: fields.required("duplicate"),
        };
        fields.finish_open().map(|()| reply)
    }
}

/// Where a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

impl Field for RoundPhase {
    const EXPECTED: &'static str = "`idle`, `collecting` or `finished`";
    const NONE: Self = Self::Idle;
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "idle" => Some(Self::Idle),
            "collecting" => Some(Self::Collecting),
            "finished" => Some(Self::Finished),
            _ => None,
        }
    }
}

/// `GET /v1/tasks/{task}/round`, and the payload of the `round` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Whether the operator lets no more clients in for now. The open round goes on with those that are in.
    #[serde(skip_serializing_if = "is_false")]
    pub paused: bool,
}

// serde asks for a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Document for RoundState {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let state = Self {
            task: f.required("task"),
            round: f.required("round"),
            phase: f.required("phase"),
            model: f.required("model"),
            manifest: f.required("manifest"),
            checked_in: f.required("checked_in"),
            received: f.required("received"),
            deadline_ms: f.nullable("deadline_ms"),
            paused: f.optional("paused").unwrap_or_default(),
        };
        fields.finish_open().map(|()| state)
    }
}

/// What one published round was: an entry of `GET /v1/tasks/{task}/rounds`, and the payload of the `published` and
/// `evaluated` events.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Where the operator went back to an older model instead of making a new one: the round that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
    /// What the task's rounds cost so far; only where the relay adds the noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<RoundPrivacy>,
}

/// What a task's rounds cost a participant of each of them so far, where the relay adds the noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoundPrivacy {
    /// ε of all rounds up to this one, at the manifest's δ and adjacency. Nothing is taken off for who was not there. None where a round
    /// counted updates under other terms before, without this noise: `rho` is that of the rounds that have it.
    pub epsilon: Option<f64>,
    /// What they cost in zero-concentrated differential privacy, which adds up: always under add/remove. Replace-one costs four times as
    /// much.
    pub rho: f64,
    /// The clip norm of the next round, in the model's own units.
    pub next_clip_l2: f64,
}

impl Document for RoundPrivacy {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let privacy = Self {
            epsilon: fields.nullable("epsilon"),
            rho: fields.required("rho"),
            next_clip_l2: fields.required("next_clip_l2"),
        };
        fields.finish_open().map(|()| privacy)
    }
}

impl Document for RoundMetrics {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let metrics = Self {
            round: f.required("round"),
            model: f.required("model"),
            clients: f.required("clients"),
            checked_in: f.required("checked_in"),
            bytes_up: f.required("bytes_up"),
            model_bytes: f.required("model_bytes"),
            duration_ms: f.required("duration_ms"),
            published_at_ms: f.required("published_at_ms"),
            accuracy: f.nullable("accuracy"),
            loss: f.nullable("loss"),
            rolled_back_to: f.optional("rolled_back_to"),
            privacy: f.optional_document("privacy")?,
        };
        fields.finish_open().map(|()| metrics)
    }
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
    /// What is wrong with a payload that is not what the name promises.
    pub fn read(name: &str, data: &str) -> Result<Option<Self>, String> {
        if !["round", "published", "evaluated"].contains(&name) {
            return Ok(None);
        }
        let data: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        Ok(Some(match name {
            "round" => Self::Round(RoundState::read(data)?),
            "published" => Self::Published(RoundMetrics::read(data)?),
            _ => Self::Evaluated(RoundMetrics::read(data)?),
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
            paused: false,
        }
    }

    #[test]
    fn events_survive_a_round_trip_and_unknown_ones_are_passed_over() {
        let event = Event::Round(state());
        assert_eq!(Event::read(event.name(), &event.data()).unwrap(), Some(event));
        assert_eq!(Event::read("something-later", "{}").unwrap(), None);
        assert!(Event::read("round", "{}").is_err());
    }

    /// What is read is what was written; without any one of its fields it is refused, unless that may be null; and a field that
    /// is not known is passed over or refused, as `open` says.
    fn holds<T: Document + Serialize + PartialEq + std::fmt::Debug>(message: T, open: bool) {
        let written = serde_json::to_value(&message).unwrap();
        for (name, value) in written.as_object().unwrap() {
            let mut without = written.clone();
            without.as_object_mut().unwrap().remove(name);
            let optional = ["deadline_ms", "accuracy", "loss"].contains(&name.as_str()) && value.is_null();
            assert_eq!(T::read(without).is_ok(), optional, "{name}");
            let mut other = written.clone();
            other[name] = serde_json::json!([true]);
            assert!(T::read(other).is_err(), "{name}");
        }
        let mut more = written.clone();
        more["something_later"] = 1.into();
        assert_eq!(T::read(more).is_ok(), open);
        assert_eq!(T::read(written), Ok(message));
    }

    #[test]
    fn every_message_is_read_as_it_was_written_and_refused_without_its_fields() {
        let model = ContentHash::of(b"model");
        let client = ClientId::from_bytes([1; 16]);
        let manifest = ContentHash::of(b"manifest");
        holds(CheckIn { client, manifest }, false);
        holds(
            CheckInReply::Train {
                round: 1,
                model,
                deadline_ms: 5,
            },
            true,
        );
        holds(
            CheckInReply::Wait {
                round: 1,
                retry_after_ms: 5,
            },
            true,
        );
        holds(CheckInReply::Finished { round: 1, model }, true);
        let update = UpdateId::from_bytes([2; 16]);
        holds(
            UpdateReply {
                update,
                round: 7,
                duplicate: true,
            },
            true,
        );
        for phase in [RoundPhase::Idle, RoundPhase::Collecting, RoundPhase::Finished] {
            holds(
                RoundState {
                    phase,
                    deadline_ms: None,
                    ..state()
                },
                true,
            );
        }
        let metrics = RoundMetrics {
            round: 1,
            model,
            clients: 2,
            checked_in: 3,
            bytes_up: 4,
            model_bytes: 5,
            duration_ms: 6,
            published_at_ms: u64::MAX,
            accuracy: None,
            loss: None,
            rolled_back_to: None,
            privacy: None,
        };
        holds(metrics.clone(), true);
        let measured = RoundMetrics {
            accuracy: Some(0.5),
            loss: Some(f64::MIN_POSITIVE),
            rolled_back_to: Some(3),
            privacy: Some(RoundPrivacy {
                epsilon: Some(1.5),
                rho: 0.05,
                next_clip_l2: 0.25,
            }),
            ..metrics
        };
        assert_eq!(
            RoundMetrics::read(serde_json::to_value(&measured).unwrap()),
            Ok(measured)
        );
        let paused = RoundState {
            paused: true,
            ..state()
        };
        assert_eq!(
            RoundState::read(serde_json::to_value(&paused).unwrap()),
            Ok(paused)
        );
        holds(
            crate::Problem::new(crate::ProblemKind::Unavailable, "the disk is full"),
            true,
        );
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
