//! What an update claims, what is kept of one that was counted, and why one is refused.

use unsaid_protocol::{ClientId, ContentHash, UpdateFrame, UpdateId};

/// What is kept of an accepted update. Its coordinates are in the sum, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The update.
    pub update: UpdateId,
    /// The round that counts it.
    pub round: u64,
    /// Who sent it.
    pub client: ClientId,
    /// SHA-256 of the whole frame.
    pub digest: ContentHash,
}

/// An update frame without its coordinates: all that decides whether it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The update.
    pub update: UpdateId,
    /// Who sends it.
    pub client: ClientId,
    /// The manifest that it was made under.
    pub manifest: ContentHash,
    /// The model that it starts from.
    pub model: ContentHash,
    /// The round that it is for.
    pub round: u64,
    /// SHA-256 of the whole frame.
    pub digest: ContentHash,
    /// Length of the frame.
    pub bytes: u64,
}

impl Claim {
    /// The claim of a frame that came as these bytes.
    pub fn of(frame: &UpdateFrame, bytes: &[u8]) -> Self {
        Self {
            update: frame.update,
            client: frame.client,
            manifest: frame.manifest,
            model: frame.model,
            round: frame.round,
            digest: ContentHash::of(bytes),
            bytes: bytes.len() as u64,
        }
    }
}

/// Why the state of a task refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another manifest is in force.
    #[error("the manifest in force is {in_force}: fetch it again")]
    Manifest {
        /// The one in force.
        in_force: ContentHash,
    },
    /// The round has not opened, or never will.
    #[error("round {asked} is not open; the open round is {open}")]
    NotOpen {
        /// The round asked for.
        asked: u64,
        /// The open round.
        open: u64,
    },
    /// The round has closed.
    #[error(
        "round {asked} has closed, this update was not counted; the open round is {open}: check in again"
    )]
    Closed {
        /// The round asked for.
        asked: u64,
        /// The open round.
        open: u64,
    },
    /// The round closed so long ago that the ids of its updates are forgotten: this one may have been counted.
    #[error(
        "round {asked} closed so long ago that it is no longer known whether this update was counted; \
         the open round is {open}: check in again"
    )]
    Forgotten {
        /// The round asked for.
        asked: u64,
        /// The open round.
        open: u64,
    },
    /// The update starts from another model.
    #[error("round {round} starts from the model {expected}")]
    Model {
        /// The open round.
        round: u64,
        /// Its model.
        expected: ContentHash,
    },
    /// The client did not check in.
    #[error("this client did not check in to round {round}")]
    NotCheckedIn {
        /// The open round.
        round: u64,
    },
    /// The client reported already, under another update id.
    #[error("this client has reported to round {round} under another update id")]
    AlreadyReported {
        /// The open round.
        round: u64,
    },
    /// The id is that of another update.
    #[error("this update id was accepted in round {round} with other bytes")]
    Conflict {
        /// The round that counts the first one.
        round: u64,
    },
    /// The vector has another length than the model.
    #[error("the update has {found} coordinates, the model {expected}")]
    Coordinates {
        /// Coordinates found.
        found: usize,
        /// Coordinates that the model has.
        expected: usize,
    },
    /// The vector is longer than a clipped one can be. Only checked where the task adds no noise.
    #[error("the update's squared norm is {found} grid steps², above the bound of {bound}")]
    Norm {
        /// The squared norm.
        found: u128,
        /// The most that a clipped, rounded update can have.
        bound: u64,
    },
    /// The weight is none that the task allows.
    #[error("the update's weight is {found}, but must be from 1 to {most}")]
    Weight {
        /// The weight found.
        found: i32,
        /// The most that one client weighs.
        most: u32,
    },
    /// What can only be done while the task is paused.
    #[error("the task is not paused: pause it first")]
    NotPaused,
    /// The round let in as many clients as it can.
    #[error("round {round} has let in as many clients as it can")]
    Full {
        /// The open round.
        round: u64,
    },
}
