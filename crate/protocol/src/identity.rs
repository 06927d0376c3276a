//! Client identities: keys that are enrolled at a relay, and what is signed with them (PROTOCOL.md, section 12).
//!
//! This module says which bytes are signed, and how a request carries the signature. Signing and verifying are done elsewhere: by the
//! browser (WebCrypto), and by the relay.

use std::{fmt, str::FromStr};

use serde::Serialize;
use sha2::{Digest, Sha256};
use unsaid_document::{Document, Field, Fields, Value, deserialize_by_read};

use crate::{
    CheckIn, ContentHash, IdError, IdentityId, Invitation, PublicKey, Signature, UpdateFrame,
    ids::{from_digits, to_hex},
};

#[cfg(test)]
mod tests;

/// The header that carries a [`Credential`].
pub const IDENTITY_HEADER: &str = "unsaid-identity";

/// How far a check-in's time may be from the relay's, in milliseconds.
pub const CHECK_IN_WINDOW_MS: u64 = 300_000;

const IDENTITY: &[u8] = b"unsaid/v1/identity\0";
const INVITATION: &[u8] = b"unsaid/v1/invitation\0";
const ENROLMENT: &[u8] = b"unsaid/v1/enrolment\0";
const CHECK_IN: &[u8] = b"unsaid/v1/check-in\0";
const UPDATE: &[u8] = b"unsaid/v1/update\0";
const PARTICIPANT: &[u8] = b"unsaid/v1/participant\0";

/// Who may take part in a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Enrolment {
    /// Any identity that the relay knows; whoever asks is enrolled, within limits.
    Open,
    /// Identities that were enrolled with an invitation.
    Invitation,
}

impl Field for Enrolment {
    const EXPECTED: &'static str = "`open` or `invitation`";
    const NONE: Self = Self::Open;
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "open" => Some(Self::Open),
            "invitation" => Some(Self::Invitation),
            _ => None,
        }
    }
}

impl IdentityId {
    /// The id of a key's owner.
    pub fn of(key: &PublicKey) -> Self {
        Self::from_bytes(digest(&[IDENTITY, key.as_bytes()]))
    }

    /// The name under which a relay counts what this identity calls `name`, a client id or an update id: its first ten bytes are the
    /// identity's own, and the rest of what nobody else gets by any name. So nothing that one identity sends touches what another
    /// sends, whatever ids it has overheard; and the names of one identity lie side by side.
    pub fn own(&self, name: &[u8; 16]) -> [u8; 16] {
        let mut own = [0; 16];
        let rest = digest(&[PARTICIPANT, self.as_bytes(), name]);
        own[..OWNER].copy_from_slice(&self.as_bytes()[..OWNER]);
        own[OWNER..].copy_from_slice(&rest[..16 - OWNER]);
        own
    }

    /// The least name of whichever identity's own this is: the same for all names of one identity.
    pub const fn least_of(own: &[u8; 16]) -> [u8; 16] {
        let mut least = *own;
        let mut at = OWNER;
        while at < least.len() {
            least[at] = 0;
            at += 1;
        }
        least
    }

    /// The least and the greatest that [`Self::own`] can give.
    pub fn owned(&self) -> [[u8; 16]; 2] {
        [0, u8::MAX].map(|filling| {
            let mut end = [filling; 16];
            end[..OWNER].copy_from_slice(&self.as_bytes()[..OWNER]);
            end
        })
    }
}

/// Bytes of an identity's id in its names: two identities share them by chance once in 2⁸⁰.
const OWNER: usize = 10;

impl Invitation {
    /// What a relay keeps of it.
    pub fn hash(&self) -> ContentHash {
        ContentHash::from_bytes(digest(&[INVITATION, self.as_bytes()]))
    }
}

/// What is signed at enrolment.
///
/// | bytes | content |
/// |---|---|
/// | 20 | `unsaid/v1/enrolment`, ASCII, and one byte 0 |
/// | 32 | the relay's public key |
/// | 32 | the identity's public key |
/// | 32 | the invitation's hash; zeros without one |
pub fn enrolment_bytes(relay: &PublicKey, key: &PublicKey, invitation: Option<&Invitation>) -> Vec<u8> {
    let invitation = invitation.map_or([0; 32], |invitation| *invitation.hash().as_bytes());
    [ENROLMENT, relay.as_bytes(), key.as_bytes(), &invitation].concat()
}

/// What is signed for a check-in. Integers are little-endian.
///
/// | bytes | content |
/// |---|---|
/// | 19 | `unsaid/v1/check-in`, ASCII, and one byte 0 |
/// | 32 | the relay's public key |
/// | 32 | manifest hash |
/// | 16 | client id |
/// | 8 | time by the relay's clock, Unix milliseconds |
pub fn check_in_bytes(relay: &PublicKey, message: &CheckIn, time_ms: u64) -> Vec<u8> {
    let parts: [&[u8]; 5] = [
        CHECK_IN,
        relay.as_bytes(),
        message.manifest.as_bytes(),
        message.client.as_bytes(),
        &time_ms.to_le_bytes(),
    ];
    parts.concat()
}

/// What is signed for an update whose frame came as `bytes`. Integers are little-endian.
///
/// | bytes | content |
/// |---|---|
/// | 17 | `unsaid/v1/update`, ASCII, and one byte 0 |
/// | 32 | the relay's public key |
/// | 32 | manifest hash |
/// | 8 | round |
/// | 16 | client id |
/// | 32 | SHA-256 of the frame's bytes |
pub fn update_bytes(relay: &PublicKey, update: &SignedUpdate) -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        UPDATE,
        relay.as_bytes(),
        update.manifest.as_bytes(),
        &update.round.to_le_bytes(),
        update.client.as_bytes(),
        update.frame.as_bytes(),
    ];
    parts.concat()
}

/// What an update's signature binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedUpdate {
    /// The manifest that it was made under.
    pub manifest: ContentHash,
    /// The round that it is for.
    pub round: u64,
    /// Who sends it.
    pub client: crate::ClientId,
    /// SHA-256 of the frame's bytes.
    pub frame: ContentHash,
}

impl SignedUpdate {
    /// Of a frame that came as `bytes`.
    pub fn of(frame: &UpdateFrame, bytes: &[u8]) -> Self {
        Self {
            manifest: frame.manifest,
            round: frame.round,
            client: frame.client,
            frame: ContentHash::of(bytes),
        }
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Who signed a request, as the header [`IDENTITY_HEADER`] says it: `<public key>.<signature>` for an update, and
/// `<public key>.<signature>.<Unix milliseconds>` for a check-in. There is one way to write each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential {
    /// The signer's public key.
    pub key: PublicKey,
    /// The signature.
    pub signature: Signature,
    /// When a check-in was signed, by the relay's clock.
    pub time_ms: Option<u64>,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.key, self.signature)?;
        match self.time_ms {
            Some(time_ms) => write!(f, ".{time_ms}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Credential {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('.');
        let mut part = || parts.next().unwrap_or_default();
        let credential = Self {
            key: part().parse()?,
            signature: part().parse()?,
            time_ms: match parts.next() {
                Some(digits) => Some(from_digits(digits)?),
                None => None,
            },
        };
        match parts.next() {
            Some(_) => Err(IdError::Credential),
            None => Ok(credential),
        }
    }
}

deserialize_by_read!(Enrol, Enrolled, RelayIdentity);

/// `GET /v1/identities`: what a client must know before it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelayIdentity {
    /// The relay's public key, which every signature names.
    pub relay: PublicKey,
    /// The time by the relay's clock, Unix milliseconds.
    pub time_ms: u64,
}

impl Document for RelayIdentity {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let identity = Self {
            relay: fields.required("relay"),
            time_ms: fields.required("time_ms"),
        };
        fields.finish_open().map(|()| identity)
    }
}

/// `POST /v1/identities`: a client asks to be known by its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// The identity's public key.
    pub public_key: PublicKey,
    /// An invitation, where the relay asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invitation: Option<Invitation>,
    /// Of [`enrolment_bytes`]: that the key is the sender's.
    pub signature: Signature,
}

impl Document for Enrol {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let enrol = Self {
            public_key: fields.required("public_key"),
            invitation: fields.nullable("invitation"),
            signature: fields.required("signature"),
        };
        fields.finish().map(|()| enrol)
    }
}

/// The relay's answer to an [`Enrol`]: it knows the identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolled {
    /// The identity's id.
    pub identity: IdentityId,
    /// How it was enrolled.
    pub enrolment: Enrolment,
}

impl Document for Enrolled {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let enrolled = Self {
            identity: fields.required("identity"),
            enrolment: fields.required("enrolment"),
        };
        fields.finish_open().map(|()| enrolled)
    }
}

/// Shown as its hash, which is no secret: who reads logs is not invited.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation(hash {})", to_hex(self.hash().as_bytes()))
    }
}
