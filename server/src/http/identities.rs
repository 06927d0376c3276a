//! Identities: how a key is enrolled, and who signed a request. Signatures are verified here, away from the threads of tasks; whether a
//! signer is known is asked there, in the turn that counts ([`crate::identity`]).

use std::{net::IpAddr, sync::Arc};

use axum::{Extension, Json, body::Body, extract::State, http::HeaderMap};
use ed25519_dalek::VerifyingKey;
use unsaid_protocol::{
    CheckIn, ContentHash, Credential, Enrol, Enrolled, Enrolment, IdentityId, ProblemKind, PublicKey,
    RelayIdentity, Signature, SignedUpdate,
    identity::{CHECK_IN_WINDOW_MS, IDENTITY_HEADER, check_in_bytes, enrolment_bytes, update_bytes},
};

use super::{
    body,
    limits::Peer,
    openapi::{OfEnrolment, OfIdentities, Refusals},
    problem::Refused,
};
use crate::{
    relay::{Relay, TaskHandle},
    round::Claim,
    store::{Admission, Application, Census, Registry, StoreError},
};

mod enrolments;
pub mod operator;

pub use self::enrolments::Enrolments;

/// How many identities may be enrolled without an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrolmentLimits {
    /// By one address on a day (UTC), and ten times as many by an IPv6 /48; none for any number. Each relay counts for itself, from
    /// when it started.
    pub per_address_and_day: Option<u32>,
    /// In all, without those that were revoked.
    pub most: u64,
}

impl Default for EnrolmentLimits {
    fn default() -> Self {
        Self {
            per_address_and_day: Some(20),
            most: 1_000_000,
        }
    }
}

impl Relay {
    /// The relay's public key, which all signatures of identities name.
    fn public_key(&self) -> Result<PublicKey, Refused> {
        let key = self.options.key.as_ref();
        key.map(crate::key::RelayKey::public_key).ok_or_else(|| {
            Refused::new(
                ProblemKind::NotFound,
                "this relay has no key, and so it knows no identities",
            )
        })
    }

    /// The time by the clock that all relays of the store go by, Unix milliseconds.
    fn shared_now_ms(&self) -> u64 {
        self.handles()
            .first()
            .map_or(self.clock.now_ms(), |task| self.now_ms_of(task))
    }

    fn now_ms_of(&self, task: &TaskHandle) -> u64 {
        let ahead_ms = task.outlook.snapshot.borrow().ahead_ms;
        self.clock.now_ms().saturating_add_signed(ahead_ms)
    }

    /// How many identities there are; none in a relay without a key, or where the store fails.
    pub(super) async fn census(&self) -> Option<Census> {
        self.options.key.as_ref()?;
        self.with_registry(|registry| registry.census()).await.ok()
    }

    /// Does something with the store's identities, away from the threads that answer.
    async fn with_registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Registry) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refused> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || store.registry().map(work));
        let done = done.await.map_err(|_| Refused::internal())?;
        let none = || Refused::new(ProblemKind::NotFound, "this relay keeps no identities");
        done.ok_or_else(none)?.map_err(|error| {
            tracing::warn!(%error, "identities cannot be read or written");
            Refused::unstored()
        })
    }
}

/// What a client must know before it signs.
#[utoipa::path(get, path = "/identities", tag = "client", responses(
    (status = 200, description = "The relay's key and clock", body = RelayIdentity), Refusals<OfIdentities>,
))]
pub async fn identity(State(relay): State<Arc<Relay>>) -> Result<Json<RelayIdentity>, Refused> {
    Ok(Json(RelayIdentity {
        relay: relay.public_key()?,
        time_ms: relay.shared_now_ms(),
    }))
}

/// Enrols a key. Asking again changes nothing.
#[utoipa::path(post, path = "/identities", tag = "client",
    request_body(content = Enrol, description = "At most 4,096 bytes, within 10 s"),
    responses((status = 200, description = "The identity is known", body = Enrolled), Refusals<OfEnrolment>),
    extensions(("x-max-bytes" = json!(body::MAX_JSON_BYTES))),
)]
pub async fn enrol(
    State(relay): State<Arc<Relay>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Enrolled>, Refused> {
    let own = relay.public_key()?;
    let ask: Enrol = body::read_json(&headers, body).await?;
    let signed = enrolment_bytes(&own, &ask.public_key, ask.invitation.as_ref());
    verify(&ask.public_key, &signed, &ask.signature)?;
    let application = Application {
        key: ask.public_key,
        invitation: ask.invitation.map(|invitation| invitation.hash()),
        now_ms: relay.shared_now_ms(),
    };
    let identity = IdentityId::of(&ask.public_key);
    let enrolled = |enrolment| Ok(Json(Enrolled { identity, enrolment }));
    let refused = |kind, detail: &str| Err(Refused::new(kind, detail));
    let address = peer.map(|Extension(Peer(address))| address);
    let turn = relay.enrolments.turn().await.ok_or_else(Refused::busy)?;
    let asking = relay.clone();
    let outcome = relay.with_registry(move |registry| {
        let _turn = turn; // as long as the thread is used, whoever has gone meanwhile
        admit(&asking, registry, &application, address)
    });
    match outcome.await? {
        Outcome::Admission(Admission::New(enrolment)) => {
            tracing::info!(%identity, ?enrolment, "an identity was enrolled");
            enrolled(enrolment)
        }
        Outcome::Admission(Admission::Known(enrolment)) => enrolled(enrolment),
        Outcome::Admission(Admission::Revoked) => refused(
            ProblemKind::IdentityRevoked,
            "the operator has revoked this identity; what was counted before stays counted",
        ),
        Outcome::Admission(Admission::NoInvitation) => refused(
            ProblemKind::BadInvitation,
            "this relay has made no such invitation: ask its operator for one",
        ),
        Outcome::Admission(Admission::UsedInvitation) => refused(
            ProblemKind::BadInvitation,
            "another key has used this invitation, which is good for one: ask the operator for another",
        ),
        Outcome::Admission(Admission::Full) => refused(
            ProblemKind::EnrolmentLimited,
            "this relay has enrolled as many without an invitation as it may: ask its operator for an invitation",
        ),
        Outcome::Closed => refused(
            ProblemKind::EnrolmentClosed,
            "no task of this relay takes identities without an invitation: ask its operator for one",
        ),
        Outcome::Limited => refused(
            ProblemKind::EnrolmentLimited,
            "as many were enrolled from this address today as may be: come again after midnight UTC, or with an invitation",
        ),
    }
}

/// What became of an application, and of what was before the store was asked.
enum Outcome {
    Admission(Admission),
    /// Nobody is enrolled without an invitation.
    Closed,
    /// Nobody more from this address today.
    Limited,
}

/// Asks the store, on a thread that may wait for it. Whoever is known is told so before anything is counted or locked.
fn admit(
    relay: &Relay,
    registry: &dyn Registry,
    application: &Application,
    address: Option<IpAddr>,
) -> Result<Outcome, StoreError> {
    let limits = relay.options.enrolment;
    let enrol = |most| registry.enrol(application, most).map(Outcome::Admission);
    if application.invitation.is_some() {
        return enrol(limits.most);
    }
    match enrol(0)? {
        Outcome::Admission(Admission::Full) => {}
        known => return Ok(known),
    }
    let is_open = |task: &Arc<TaskHandle>| {
        let rules = task.config.identity;
        rules.is_some_and(|rules| rules.required == Enrolment::Open)
    };
    if !relay.handles().iter().any(is_open) {
        return Ok(Outcome::Closed);
    }
    let Some((most, address)) = limits.per_address_and_day.zip(address) else {
        return enrol(limits.most);
    };
    let Some(place) = relay.enrolments.take(address, most, application.now_ms) else {
        return Ok(Outcome::Limited);
    };
    let outcome = enrol(limits.most);
    if !matches!(outcome, Ok(Outcome::Admission(Admission::New(_)))) {
        relay.enrolments.give(&place);
    }
    outcome
}

/// Whoever signed a request, before it is known whether that holds.
#[derive(Debug, Clone, Copy)]
pub struct Signer {
    relay: PublicKey,
    credential: Credential,
}

impl Signer {
    /// The signer that a request names; none in a task that asks for none.
    ///
    /// # Errors
    /// [`ProblemKind::BadSignature`] where the header cannot be read.
    pub(super) fn of(relay: &Relay, task: &TaskHandle, headers: &HeaderMap) -> Result<Option<Self>, Refused> {
        let Some(value) = headers
            .get(IDENTITY_HEADER)
            .filter(|_| task.config.identity.is_some())
        else {
            return Ok(None);
        };
        let unreadable = |detail: String| Refused::new(ProblemKind::BadSignature, detail);
        let text = value.to_str().map_err(|error| unreadable(error.to_string()))?;
        let credential = text
            .parse()
            .map_err(|error| unreadable(format!("{IDENTITY_HEADER}: {error}")))?;
        Ok(Some(Self {
            relay: relay.public_key()?,
            credential,
        }))
    }

    /// Names an update's claim as the signer's.
    ///
    /// # Errors
    /// [`ProblemKind::BadSignature`] where it is not the signer's.
    pub(super) fn claim(&self, claim: Claim) -> Result<Claim, Refused> {
        let update = SignedUpdate {
            manifest: claim.manifest,
            round: claim.round,
            client: claim.client,
            frame: ContentHash::from_bytes(*claim.digest.as_bytes()),
        };
        let Credential {
            key,
            signature,
            time_ms,
        } = &self.credential;
        if time_ms.is_some() {
            let detail = "an update is signed without a time";
            return Err(Refused::new(ProblemKind::BadSignature, detail));
        }
        verify(key, &update_bytes(&self.relay, &update), signature)?;
        Ok(claim.under(IdentityId::of(key)))
    }
}

/// Names a check-in as its signer's, and says who that is; none in a task that asks for none, and where the check-in is for other
/// terms than the task's, which is what its sender should learn.
///
/// # Errors
/// [`ProblemKind::IdentityRequired`] and [`ProblemKind::BadSignature`].
pub(super) fn sign_in(
    relay: &Relay,
    task: &TaskHandle,
    headers: &HeaderMap,
    ask: &mut CheckIn,
) -> Result<Option<IdentityId>, Refused> {
    if task.config.identity.is_none() || ask.manifest != task.config.manifest_hash {
        return Ok(None);
    }
    let signer = Signer::of(relay, task, headers)?.ok_or_else(required)?;
    let Credential {
        key,
        signature,
        time_ms,
    } = signer.credential;
    let bad = |detail| Refused::new(ProblemKind::BadSignature, detail);
    let time_ms = time_ms.ok_or_else(|| bad("a check-in is signed with its time"))?;
    verify(&key, &check_in_bytes(&signer.relay, ask, time_ms), &signature)?;
    if relay.now_ms_of(task).abs_diff(time_ms) > CHECK_IN_WINDOW_MS {
        return Err(bad(
            "the check-in was signed more than five minutes ago, or by another clock: ask GET /v1/identities for the time, and sign again",
        ));
    }
    let identity = IdentityId::of(&key);
    ask.client = unsaid_protocol::ClientId::from_bytes(identity.own(ask.client.as_bytes()));
    Ok(Some(identity))
}

/// Nobody signed.
pub(super) fn required() -> Refused {
    crate::round::Refusal::IdentityRequired.into()
}

/// # Errors
/// [`ProblemKind::BadSignature`]. Keys and signatures that some verifiers take and others do not are none (RFC 8032, section 8.4).
fn verify(key: &PublicKey, signed: &[u8], signature: &Signature) -> Result<(), Refused> {
    let bad = |detail| Refused::new(ProblemKind::BadSignature, detail);
    let key =
        VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| bad("this is no public key of Ed25519"))?;
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    key.verify_strict(signed, &signature)
        .map_err(|_| bad("the signature is not one of these bytes by this key, for this relay"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by another program (Node and OpenSSL).
    #[test]
    fn the_signatures_of_the_vector_hold_and_its_bad_ones_do_not() {
        let vector = include_str!("../../../tests/vectors/v1/identity.json");
        let vector: serde_json::Value = serde_json::from_str(vector).unwrap();
        let text = |path: &str| vector.pointer(path).unwrap().as_str().unwrap();
        let (relay, key) = (
            text("/relay").parse().unwrap(),
            text("/public_key").parse().unwrap(),
        );
        let invitation = text("/invitation").parse().unwrap();
        let signed = |path: &str| text(&format!("{path}/signature")).parse().unwrap();
        let with = enrolment_bytes(&relay, &key, Some(&invitation));
        assert_eq!(verify(&key, &with, &signed("/enrolment")), Ok(()));
        let without = enrolment_bytes(&relay, &key, None);
        assert_eq!(verify(&key, &without, &signed("/enrolment_open")), Ok(()));
        assert!(verify(&key, &without, &signed("/enrolment")).is_err());
        let message: CheckIn = serde_json::from_str(text("/check_in/body")).unwrap();
        let time_ms = vector["check_in"]["time_ms"].as_u64().unwrap();
        let check_in = check_in_bytes(&relay, &message, time_ms);
        assert_eq!(verify(&key, &check_in, &signed("/check_in")), Ok(()));
        let frame = text("/update/frame").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let frame: Vec<u8> = frame.chunks(2).map(byte).collect();
        let header = unsaid_protocol::UpdateHeader::read(&mut unsaid_protocol::Reader::new(&frame)).unwrap();
        let mut hasher = crate::round::FrameHasher::new(true);
        frame.chunks(7).for_each(|part| hasher.head(part));
        let signer = |header: &str| Signer {
            relay,
            credential: header.parse().unwrap(),
        };
        let claim = Claim::of(&header, hasher.digest(), frame.len() as u64);
        let claimed = signer(text("/update/header")).claim(claim).unwrap();
        assert_eq!(claimed.identity, Some(text("/identity").parse().unwrap()));
        let mut bad = 0;
        for (_, signature) in vector["bad"]["check_in"].as_object().unwrap() {
            let signature = signature.as_str().unwrap().parse().unwrap();
            assert!(verify(&key, &check_in, &signature).is_err());
            bad += 1;
        }
        for (_, signature) in vector["bad"]["update"].as_object().unwrap() {
            let header = format!("{key}.{}", signature.as_str().unwrap());
            assert!(signer(&header).claim(claim).is_err());
            bad += 1;
        }
        assert_eq!(bad, 10);
        let timed = format!("{}.{time_ms}", text("/update/header"));
        assert!(
            signer(&timed).claim(claim).is_err(),
            "there is one way to write it"
        );
    }

    #[test]
    fn a_key_that_signs_anything_is_none() {
        // The neutral element: with S = 0 it fits every message under the looser equation.
        let mut small = [0; 32];
        small[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let (key, signature) = (PublicKey::from_bytes(small), Signature::from_bytes(signature));
        assert!(verify(&key, b"anything", &signature).is_err());
    }
}
