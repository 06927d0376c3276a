//! What an update claims, what is kept of one that was counted, and why one is refused.

use sha2::{Digest, Sha256};
use twox_hash::XxHash3_128;
use unsaid_protocol::{ClientId, ContentHash, IdentityId, UpdateHeader, UpdateId};

use crate::exact::Block;

/// Tells one frame from other frames of the same client under the same update id: the XXH3-128 of its head and of what its coordinates add up
/// to, block by block ([`Block`]), or, where clients sign, the SHA-256 that they sign.
///
/// It decides what a client is told that sends an id again, never whether anything is counted: an id counts once, whatever the
/// bytes. Who makes two frames of one digest deceives nobody else, since another client's frame is never compared
/// ([`crate::round::Rounds::judge`]), so where nobody signs, sums will do, which the relay has at hand: two frames that were not
/// made to agree in all three of every block do not. A hash of all bytes takes 16 µs for 800 kB at its fastest, SHA-256 390 with the processor's own
/// instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameDigest([u8; 32]);

impl FrameDigest {
    /// Of a frame that nobody signed, and that is this head and nothing else.
    pub fn of(head: &[u8]) -> Self {
        let mut hasher = FrameHasher::new(false);
        hasher.head(head);
        hasher.digest()
    }

    /// A stored one.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To be stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The digest of a frame that comes in parts.
pub struct FrameHasher(Kind);

enum Kind {
    Unsigned(Box<XxHash3_128>),
    Signed(Sha256),
}

impl FrameHasher {
    /// Of a frame that its client signs, or does not.
    pub fn new(is_signed: bool) -> Self {
        Self(if is_signed {
            Kind::Signed(Sha256::new())
        } else {
            Kind::Unsigned(Box::new(XxHash3_128::new()))
        })
    }

    /// The next bytes of what is before the coordinates.
    pub fn head(&mut self, part: &[u8]) {
        match &mut self.0 {
            Kind::Unsigned(hash) => hash.write(part),
            Kind::Signed(hash) => hash.update(part),
        }
    }

    /// The next bytes of coordinates. Where nobody signed, their [blocks](Self::block) stand for them.
    pub fn coordinates(&mut self, part: &[u8]) {
        if let Kind::Signed(hash) = &mut self.0 {
            hash.update(part);
        }
    }

    /// The next block of coordinates: the last one may be shorter, or have none.
    pub fn block(&mut self, block: &Block) {
        if let Kind::Unsigned(hash) = &mut self.0 {
            hash.write(&block.sum.to_le_bytes());
            hash.write(&block.moment.to_le_bytes());
            hash.write(&block.square.to_le_bytes());
        }
    }

    /// Of all of them.
    pub fn digest(&self) -> FrameDigest {
        match &self.0 {
            Kind::Unsigned(hash) => {
                let mut bytes = [0; 32];
                bytes[..16].copy_from_slice(&hash.finish_128().to_le_bytes());
                FrameDigest(bytes)
            }
            Kind::Signed(hash) => FrameDigest(hash.clone().finalize().into()),
        }
    }
}

/// What is kept of an accepted update. Its coordinates are in the sum, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The update.
    pub update: UpdateId,
    /// The round that counts it.
    pub round: u64,
    /// Who sent it.
    pub client: ClientId,
    /// Of the whole frame.
    pub digest: FrameDigest,
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
    /// Of the whole frame.
    pub digest: FrameDigest,
    /// Length of the frame.
    pub bytes: u64,
    /// The identity that signed it; none in a task that asks for none.
    pub identity: Option<IdentityId>,
}

impl Claim {
    /// The claim of a frame of so many `bytes`.
    pub const fn of(header: &UpdateHeader, digest: FrameDigest, bytes: u64) -> Self {
        Self {
            update: header.update,
            client: header.client,
            manifest: header.manifest,
            model: header.model,
            round: header.round,
            digest,
            bytes,
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
