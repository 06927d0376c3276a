//! Errors as a relay reports them: problem documents (RFC 9457) with stable types.

use serde::Serialize;
use unsaid_document::{Document, Fields, Value, deserialize_by_read};

/// Every kind of refusal that a relay has. The URN of a kind never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// 404: no such path, task, model or round.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 400: the request's body or path is not what the route reads (JSON or binary).
    Malformed,
    /// 400: the frame is of another protocol version.
    Version,
    /// 413: the body is larger than the route takes.
    TooLarge,
    /// 415: the body is of another content type.
    ContentType,
    /// 409: the update was made under another manifest: fetch the manifest again.
    WrongManifest,
    /// 409: the update starts from another model than the round it names.
    WrongModel,
    /// 409: the round is not open yet, or never was.
    WrongRound,
    /// 410: the round has closed; the update was not counted. Check in again.
    RoundClosed,
    /// 409: this update id was accepted before with other bytes.
    UpdateConflict,
    /// 409: this client has already reported to this round under another update id.
    AlreadyReported,
    /// 403: this client did not check in to the round.
    NotCheckedIn,
    /// 422: the number of coordinates is not the model's, or (without noise) the norm is above the clip norm.
    Unacceptable,
    /// 401: this route is the operator's, and the request does not carry the operator's token.
    Unauthorized,
    /// 409: this can only be done while the task is paused.
    NotPaused,
    /// 409: the relay has a task of this id.
    TaskExists,
    /// 401: this task asks for an identity, and the request carries none: enrol a key, and sign with it.
    IdentityRequired,
    /// 403: the relay does not know the key that signed the request: enrol it.
    IdentityUnknown,
    /// 403: the operator has revoked the identity.
    IdentityRevoked,
    /// 403: the signature is not that of the request, or was made too long ago.
    BadSignature,
    /// 403: the invitation is none of this relay's, or was used.
    BadInvitation,
    /// 403: nobody is enrolled here without an invitation.
    EnrolmentClosed,
    /// 429: as many were enrolled as may be, for this day and address or in all.
    EnrolmentLimited,
    /// 403: this identity takes part as often as it may, in this round or on this day.
    QuotaSpent,
    /// 403: one more update of this identity would cost more than the relay takes from anyone.
    RelayBudgetSpent,
    /// 429: too many requests.
    TooManyRequests,
    /// 503: the relay cannot store anything now. Nothing was counted; send the same bytes again after `Retry-After`.
    Unavailable,
    /// 500: a fault of the relay. Nothing was counted.
    Internal,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 29] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Malformed,
        Self::Version,
        Self::TooLarge,
        Self::ContentType,
        Self::WrongManifest,
        Self::WrongModel,
        Self::WrongRound,
        Self::RoundClosed,
        Self::UpdateConflict,
        Self::AlreadyReported,
        Self::NotCheckedIn,
        Self::Unacceptable,
        Self::Unauthorized,
        Self::NotPaused,
        Self::TaskExists,
        Self::IdentityRequired,
        Self::IdentityUnknown,
        Self::IdentityRevoked,
        Self::BadSignature,
        Self::BadInvitation,
        Self::EnrolmentClosed,
        Self::EnrolmentLimited,
        Self::QuotaSpent,
        Self::RelayBudgetSpent,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The stable type, and the HTTP status.
    const fn row(self) -> (&'static str, u16) {
        match self {
            Self::NotFound => ("urn:unsaid:error:not-found", 404),
            Self::MethodNotAllowed => ("urn:unsaid:error:method-not-allowed", 405),
            Self::Malformed => ("urn:unsaid:error:malformed", 400),
            Self::Version => ("urn:unsaid:error:version", 400),
            Self::TooLarge => ("urn:unsaid:error:too-large", 413),
            Self::ContentType => ("urn:unsaid:error:content-type", 415),
            Self::WrongManifest => ("urn:unsaid:error:wrong-manifest", 409),
            Self::WrongModel => ("urn:unsaid:error:wrong-model", 409),
            Self::WrongRound => ("urn:unsaid:error:wrong-round", 409),
            Self::RoundClosed => ("urn:unsaid:error:round-closed", 410),
            Self::UpdateConflict => ("urn:unsaid:error:update-conflict", 409),
            Self::AlreadyReported => ("urn:unsaid:error:already-reported", 409),
            Self::NotCheckedIn => ("urn:unsaid:error:not-checked-in", 403),
            Self::Unacceptable => ("urn:unsaid:error:unacceptable", 422),
            Self::Unauthorized => ("urn:unsaid:error:unauthorized", 401),
            Self::NotPaused => ("urn:unsaid:error:not-paused", 409),
            Self::TaskExists => ("urn:unsaid:error:task-exists", 409),
            Self::IdentityRequired => ("urn:unsaid:error:identity-required", 401),
            Self::IdentityUnknown => ("urn:unsaid:error:identity-unknown", 403),
            Self::IdentityRevoked => ("urn:unsaid:error:identity-revoked", 403),
            Self::BadSignature => ("urn:unsaid:error:bad-signature", 403),
            Self::BadInvitation => ("urn:unsaid:error:bad-invitation", 403),
            Self::EnrolmentClosed => ("urn:unsaid:error:enrolment-closed", 403),
            Self::EnrolmentLimited => ("urn:unsaid:error:enrolment-limited", 429),
            Self::QuotaSpent => ("urn:unsaid:error:quota-spent", 403),
            Self::RelayBudgetSpent => ("urn:unsaid:error:relay-budget-spent", 403),
            Self::TooManyRequests => ("urn:unsaid:error:too-many-requests", 429),
            Self::Unavailable => ("urn:unsaid:error:unavailable", 503),
            Self::Internal => ("urn:unsaid:error:internal", 500),
        }
    }

    /// The stable type: `urn:unsaid:error:…`.
    pub const fn urn(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that it is sent with.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// The title, the same for every problem of the kind. Apart from the rest: a client has no use for it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::MethodNotAllowed => "method not allowed",
            Self::Malformed => "the request cannot be read",
            Self::Version => "another protocol version",
            Self::TooLarge => "the body is too large",
            Self::ContentType => "another content type",
            Self::WrongManifest => "made under another manifest",
            Self::WrongModel => "made from another model",
            Self::WrongRound => "no such open round",
            Self::RoundClosed => "the round has closed",
            Self::UpdateConflict => "this update id has other bytes",
            Self::AlreadyReported => "this client has reported to this round",
            Self::NotCheckedIn => "this client did not check in",
            Self::Unacceptable => "the update does not fit the task",
            Self::Unauthorized => "the operator's token is needed",
            Self::NotPaused => "the task is not paused",
            Self::TaskExists => "there is a task of this id",
            Self::IdentityRequired => "an identity is needed",
            Self::IdentityUnknown => "this identity is not enrolled",
            Self::IdentityRevoked => "this identity was revoked",
            Self::BadSignature => "the signature does not hold",
            Self::BadInvitation => "the invitation is not good",
            Self::EnrolmentClosed => "an invitation is needed",
            Self::EnrolmentLimited => "too many were enrolled",
            Self::QuotaSpent => "this identity has had its share",
            Self::RelayBudgetSpent => "the relay's privacy budget is spent",
            Self::TooManyRequests => "too many requests",
            Self::Unavailable => "try again later",
            Self::Internal => "a fault of the relay",
        }
    }

    /// The kind that a type names; none for one that this version does not know.
    pub fn from_urn(urn: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.urn() == urn)
    }

    /// Whether sending the same request again can help.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::TooManyRequests | Self::Unavailable | Self::Internal)
    }
}

/// A problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// [`ProblemKind::urn`].
    #[serde(rename = "type")]
    pub urn: String,
    /// [`ProblemKind::title`].
    pub title: String,
    /// [`ProblemKind::status`].
    pub status: u16,
    /// What was wrong with this request, and what to do.
    pub detail: String,
}

deserialize_by_read!(Problem);

impl Document for Problem {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let problem = Self {
            urn: fields.required("type"),
            title: fields.required("title"),
            status: fields.required("status"),
            detail: fields.required("detail"),
        };
        fields.finish_open().map(|()| problem)
    }
}

impl Problem {
    /// A problem of `kind`; `detail` says what was wrong with this request.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            urn: kind.urn().into(),
            title: kind.title().into(),
            status: kind.status(),
            detail: detail.into(),
        }
    }

    /// The kind; none for one that this version does not know.
    pub fn kind(&self) -> Option<ProblemKind> {
        ProblemKind::from_urn(&self.urn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_urns_are_one_to_one() {
        for kind in ProblemKind::ALL {
            assert_eq!(Problem::new(kind, "x").kind(), Some(kind));
        }
        assert_eq!(ProblemKind::from_urn("urn:unsaid:error:later"), None);
    }
}
