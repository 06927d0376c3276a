//! What an update claims, what is kept of one that was counted, and why one is refused.

use unsaid_protocol::{ClientId, ContentHash, IdentityId, UpdateFrame, UpdateId};

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
    /// The identity that signed it; none in a task that asks for none.
    pub identity: Option<IdentityId>,
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
            identity: None,
        }
    }

    /// The same, signed by `identity`: client and update are named as the identity's own.
    #[must_use]
    pub fn under(self, identity: IdentityId) -> Self {
        Self {
            update: UpdateId::from_bytes(identity.own(self.update.as_bytes())),
            client: ClientId::from_bytes(identity.own(self.client.as_bytes())),
            identity: Some(identity),
            ..self
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
    /// Nobody signed the request.
    #[error("this task asks for an identity: enrol a key at /v1/identities, and sign with it")]
    IdentityRequired,
    /// The signer is not enrolled.
    #[error("the identity {identity} is not enrolled at this relay: enrol its key at /v1/identities")]
    IdentityUnknown {
        /// The signer.
        identity: IdentityId,
    },
    /// The signer was revoked.
    #[error(
        "the operator has revoked the identity {identity}: what was counted before stays counted, and nothing more will be"
    )]
    IdentityRevoked {
        /// The signer.
        identity: IdentityId,
    },
    /// The signer was enrolled without an invitation, and the task takes none such.
    #[error(
        "the identity {identity} was enrolled without an invitation, which this task asks for: enrol its key again with one"
    )]
    Uninvited {
        /// The signer.
        identity: IdentityId,
    },
    /// The signer has as many clients in the round, or as many updates, as it may.
    #[error(
        "this identity has its {most} of round {round}: wait for the next round, or close another of its tabs"
    )]
    RoundQuota {
        /// The open round.
        round: u64,
        /// The most updates of one identity in a round.
        most: u32,
    },
    /// The signer has as many updates of this day as it may, with those under way.
    #[error("this identity has its {most} of this day: come again after midnight UTC")]
    DayQuota {
        /// The most updates of one identity on a day.
        most: u32,
    },
    /// One more update would cost the signer more than the relay takes from anyone.
    #[error(
        "one more update would bring this identity to epsilon {would_be}, and the relay takes no more than {limit} from anyone"
    )]
    RelayBudget {
        /// ε after it.
        would_be: String,
        /// The most.
        limit: String,
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
