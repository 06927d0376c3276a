//! What a session tells its page. Serialised in camelCase, tagged by `type`; `pkg/src` has the same shapes in TypeScript.

use serde::Serialize;
use unsaid_protocol::{RoundMetrics, RoundState};

/// Something that happened in a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum SessionEvent {
    /// The session does something else from now on.
    State {
        /// What.
        state: State,
        /// In which round.
        #[serde(skip_serializing_if = "Option::is_none")]
        round: Option<u64>,
    },
    /// Where training runs, and why.
    Backend {
        /// `cpu` or `webgpu`.
        backend: &'static str,
        /// Why.
        reason: String,
        /// What the GPU calls itself, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        adapter: Option<String>,
        /// Measured milliseconds per step on the CPU.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu_ms_per_step: Option<f64>,
        /// Measured milliseconds per step on the GPU.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_ms_per_step: Option<f64>,
        /// Whether they were measured on an earlier visit.
        cached: bool,
        /// Whether WebGPU was lost and training goes on on the CPU.
        fallback: bool,
    },
    /// Steps of local training are done (reported a few times a second, not for each).
    Step {
        /// The round.
        round: u64,
        /// The epoch, from 1.
        epoch: u32,
        /// Epochs in all.
        epochs: u32,
        /// Steps done in this epoch.
        step: u32,
        /// Steps of an epoch.
        steps: u32,
    },
    /// An epoch of local training is done.
    Epoch {
        /// The round.
        round: u64,
        /// The epoch, from 1.
        epoch: u32,
        /// Epochs in all.
        epochs: u32,
        /// Mean loss of its steps.
        loss: f32,
        /// How long it took.
        seconds: f64,
    },
    /// An update was made; it is about to leave the device.
    Update(UpdateReport),
    /// The upload of an update.
    Upload {
        /// The round.
        round: u64,
        /// Which try, from 1.
        attempt: u32,
        /// Bytes of the frame.
        bytes: usize,
        /// How it went.
        status: UploadStatus,
        /// When it is tried again.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A round was published, or its figures became known.
    Round {
        /// The round.
        metrics: Metrics,
    },
    /// The open round's counts changed.
    RoundState {
        /// The round.
        round: u64,
        /// `idle`, `collecting` or `finished`.
        phase: unsaid_protocol::RoundPhase,
        /// Clients that checked in.
        checked_in: u32,
        /// Updates accepted.
        received: u32,
        /// Milliseconds to the deadline.
        deadline_ms: Option<u64>,
    },
    /// This client's part of a round is done.
    Contribution {
        /// The round.
        round: u64,
        /// From check-in to acceptance.
        seconds: f64,
        /// Bytes sent to the relay.
        bytes_up: u64,
        /// Bytes of the model received from the relay, 0 where it was here already.
        bytes_down: u64,
        /// ε that the ledger holds; none in a task without noise.
        epsilon_spent: Option<f64>,
    },
    /// The privacy budget changed.
    Budget(BudgetView),
    /// The relay stopped or began to answer.
    Relay {
        /// `unreachable` or `back`.
        status: RelayStatus,
        /// Why.
        detail: String,
        /// When it is tried again.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Opening the storage.
    Opening,
    /// Another tab of this browser takes part; this one waits for its place.
    WaitingForOtherTab,
    /// Ready to take part.
    Ready,
    /// Asking the relay for work.
    CheckingIn,
    /// Fetching the model.
    Downloading,
    /// Training on the local data.
    Training,
    /// Clipping, adding noise, debiting the ledger.
    Protecting,
    /// Sending the update.
    Uploading,
    /// Waiting for the round to close.
    Waiting,
    /// No longer taking part.
    Stopped,
}

/// How an upload went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UploadStatus {
    /// On its way.
    Sending,
    /// Counted.
    Accepted,
    /// Had been counted before; nothing was counted twice.
    Duplicate,
    /// The relay did not take it now; the identical bytes will be sent again.
    Retrying,
    /// The round had closed; the update was not counted. Its privacy cost stays debited.
    Late,
}

/// Whether the relay answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RelayStatus {
    /// It does not.
    Unreachable,
    /// It does again.
    Back,
}

/// What left the device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UpdateReport {
    /// The round.
    pub round: u64,
    /// Hash of the manifest agreed to.
    pub manifest: String,
    /// Hash of the model that training started from.
    pub model: String,
    /// The update's id.
    pub update_id: String,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Coordinates in it.
    pub coordinates: usize,
    /// Bytes of a coordinate.
    pub width_bytes: usize,
    /// L2 norm of the change before clipping. Never sent.
    pub norm_before_clip: f64,
    /// Whether it was clipped. Never sent.
    pub clipped: bool,
    /// σ of the noise in grid steps; 0 without noise.
    pub sigma_steps: f64,
    /// The first bytes of the frame, in hexadecimal.
    pub head_hex: String,
    /// The coordinates before and after noise, in the model's units. "Before" is never sent.
    pub histogram: HistogramView,
}

/// Counts of coordinates by size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistogramView {
    /// Edges of the bins, one more than bins.
    pub edges: Vec<f64>,
    /// Before noise.
    pub before: Vec<u32>,
    /// After noise.
    pub after: Vec<u32>,
}

/// The privacy budget as a person reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BudgetView {
    /// The limit.
    pub epsilon: f64,
    /// The δ at which every ε here holds.
    pub delta: f64,
    /// ε spent so far, in all tasks of this origin.
    pub spent: f64,
    /// The limit less what is spent, at least 0.
    pub left: f64,
    /// Updates paid for.
    pub rounds: u64,
    /// What ε protects: `update`, everything in an update, where every update paid for had noise of its own; `example`, any single
    /// example, where some had noise on sums of gradients.
    pub unit: &'static str,
    /// ε after one more round of this task; none in a task without noise, or before the manifest is read.
    pub if_one_more: Option<f64>,
}

/// [`RoundMetrics`] in camelCase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are those of `RoundMetrics`
pub struct Metrics {
    pub round: u64,
    pub model: String,
    pub clients: u32,
    pub checked_in: u32,
    pub bytes_up: u64,
    pub model_bytes: u64,
    pub duration_ms: u64,
    pub published_at_ms: u64,
    pub accuracy: Option<f64>,
    pub loss: Option<f64>,
    pub epsilon: Option<f64>,
}

impl From<RoundMetrics> for Metrics {
    fn from(m: RoundMetrics) -> Self {
        Self {
            round: m.round,
            model: m.model.to_string(),
            clients: m.clients,
            checked_in: m.checked_in,
            bytes_up: m.bytes_up,
            model_bytes: m.model_bytes,
            duration_ms: m.duration_ms,
            published_at_ms: m.published_at_ms,
            accuracy: m.accuracy,
            loss: m.loss,
            epsilon: m.privacy.and_then(|privacy| privacy.epsilon),
        }
    }
}

impl From<&RoundState> for SessionEvent {
    fn from(state: &RoundState) -> Self {
        Self::RoundState {
            round: state.round,
            phase: state.phase,
            checked_in: state.checked_in,
            received: state.received,
            deadline_ms: state.deadline_ms,
        }
    }
}
