//! Wire types of Unsaid: what a client and a relay say to each other, and nothing else.
//!
//! Control messages are JSON ([`messages`], [`manifest`], [`problem`]); bulk is binary ([`update`], [`shard`]).
//! `PROTOCOL.md` at the root of the repository is the normative description; the byte tables there and the tests here
//! must agree.
//!
//! Every decoder in this crate takes untrusted bytes: it returns a typed error, never panics, and never allocates more
//! than the length of its input warrants.

#![forbid(unsafe_code)]

pub mod codec;
pub mod identity;
pub mod ids;
pub mod manifest;
pub mod messages;
pub mod problem;
pub mod shard;
pub mod update;

pub use codec::{DecodeError, Reader};
pub use identity::{Credential, Enrol, Enrolled, Enrolment, RelayIdentity, SignedUpdate};
pub use ids::{
    ClientId, ContentHash, IdError, IdentityId, Invitation, PublicKey, Signature, TaskId, UpdateId,
};
pub use manifest::{
    AdaptiveClipping, CentralAdjacency, CentralPrivacy, DataSchema, Manifest, ManifestError, Privacy,
    RoundPolicy, TreeTerms, UpdateEncoding,
};
pub use messages::{
    CheckIn, CheckInReply, Event, RoundMetrics, RoundPhase, RoundPrivacy, RoundState, UpdateReply,
};
pub use problem::{Problem, ProblemKind};
pub use shard::Shard;
pub use update::{CoordinateWidth, UpdateFrame, UpdateHeader};

/// The protocol version that this crate speaks. A relay and a client whose versions differ refuse each other.
pub const VERSION: u16 = 1;
