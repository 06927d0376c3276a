//! Every error of the relay becomes a problem document here (RFC 9457).

use std::sync::atomic::{AtomicU32, Ordering};

use axum::{
    Json,
    extract::OriginalUri,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use unsaid_protocol::{Problem, ProblemKind, TaskId};

use crate::{actor::Failure, round::Refusal};

/// Seconds after which a client may send a request again that could not be stored: the fewest, and how many different ones there are. What
/// refuses one client refuses a crowd, which is not to come back all at once.
const RETRY_AFTER_SECONDS: u64 = 2;
const RETRY_AFTER_SPREAD: u64 = 4;

/// The next of a sequence in `0..spread` of which any stretch is nearly evenly spread: multiples of the golden ratio, modulo 1.
pub(crate) fn spread(spread: u64) -> u64 {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let number = TOLD.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9);
    (u64::from(number) * spread) >> 32
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An answer that is a problem document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Problem);

impl Refused {
    /// A problem of `kind`.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Problem::new(kind, detail))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> axum::response::Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = self.0.kind();
        let temporary = kind.is_some_and(ProblemKind::is_temporary);
        let mut response = (status, Json(self.0)).into_response();
        // RFC 9110, section 11.6.1: what 401 asks for. No browser asks its user for either.
        if status == StatusCode::UNAUTHORIZED {
            let scheme = match kind {
                Some(ProblemKind::IdentityRequired) => "Unsaid-Identity",
                _ => "Bearer",
            };
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if temporary {
            response.headers_mut().insert(
                header::RETRY_AFTER,
                (RETRY_AFTER_SECONDS + spread(RETRY_AFTER_SPREAD)).into(),
            );
        }
        response
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::Manifest { .. } => ProblemKind::WrongManifest,
            Refusal::NotOpen { .. } => ProblemKind::WrongRound,
            Refusal::Closed { .. } | Refusal::Forgotten { .. } => ProblemKind::RoundClosed,
            Refusal::Model { .. } => ProblemKind::WrongModel,
            Refusal::NotCheckedIn { .. } => ProblemKind::NotCheckedIn,
            Refusal::AlreadyReported { .. } => ProblemKind::AlreadyReported,
            Refusal::Conflict { .. } => ProblemKind::UpdateConflict,
            Refusal::Coordinates { .. } | Refusal::Norm { .. } | Refusal::Weight { .. } => {
                ProblemKind::Unacceptable
            }
            Refusal::IdentityRequired => ProblemKind::IdentityRequired,
            Refusal::IdentityUnknown { .. } => ProblemKind::IdentityUnknown,
            Refusal::IdentityRevoked { .. } => ProblemKind::IdentityRevoked,
            Refusal::Uninvited { .. } => ProblemKind::EnrolmentClosed,
            Refusal::RoundQuota { .. } | Refusal::DayQuota { .. } => ProblemKind::QuotaSpent,
            Refusal::RelayBudget { .. } => ProblemKind::RelayBudgetSpent,
            Refusal::NotPaused => ProblemKind::NotPaused,
            Refusal::Full { .. } => ProblemKind::TooManyRequests,
        };
        Self::new(kind, refusal.to_string())
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Store => Self::unstored(),
        }
    }
}

impl Refused {
    /// The store failed.
    pub fn unstored() -> Self {
        Self::new(
            ProblemKind::Unavailable,
            "the relay cannot store anything now; nothing was counted: send the same bytes again",
        )
    }

    /// More is waiting than the relay holds.
    pub fn busy() -> Self {
        Self::new(
            ProblemKind::Unavailable,
            "the relay has too much to do; nothing was counted: send the same bytes again",
        )
    }

    /// A thread of a task has panicked, and the relay is about to end.
    pub fn fallen(task: &TaskId) -> Self {
        Self::new(
            ProblemKind::Unavailable,
            format!("the task {task} ended by a fault of the relay, which has to be started again"),
        )
    }

    /// A part of the relay is gone.
    pub fn internal() -> Self {
        Self::new(
            ProblemKind::Internal,
            "the relay has a fault; nothing was counted",
        )
    }
}

/// The answer for a path that leads nowhere.
pub async fn not_found(OriginalUri(uri): OriginalUri) -> Refused {
    Refused::new(
        ProblemKind::NotFound,
        format!("there is nothing at {}", uri.path()),
    )
}

/// Turns errors that the framework made (an unknown method, a bad path, a missing file) into problem documents.
pub async fn document_every_error(response: axum::response::Response) -> axum::response::Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON) {
        return response;
    }
    let (kind, detail) = match status {
        StatusCode::NOT_FOUND => (ProblemKind::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (
            ProblemKind::MethodNotAllowed,
            "this path does not take this method",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (ProblemKind::TooLarge, "the body is larger than this path takes"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            ProblemKind::ContentType,
            "this path does not take this content type",
        ),
        StatusCode::TOO_MANY_REQUESTS => (ProblemKind::TooManyRequests, "too many requests"),
        status if status.is_server_error() => (ProblemKind::Internal, "the relay has a fault"),
        _ => (ProblemKind::Malformed, "the request cannot be read"),
    };
    let (mut parts, _) = response.into_parts();
    let (documented, body) = Refused::new(kind, detail).into_response().into_parts();
    parts.status = documented.status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(documented.headers);
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_crowd_that_is_refused_comes_back_at_different_times() {
        let mut told = BTreeMap::<u64, u32>::new();
        for _ in 0..100 {
            let response = Refused::busy().into_response();
            let seconds = response.headers()[header::RETRY_AFTER]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            *told.entry(seconds).or_default() += 1;
        }
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5]);
        // Of a hundred a quarter each, give or take what other tests ask for meanwhile.
        assert!(told.values().all(|many| (15..=35).contains(many)), "{told:?}");
    }

    #[test]
    fn what_401_asks_for_is_said() {
        let asked = |kind| {
            let response = Refused::new(kind, "who are you?").into_response();
            let scheme = response.headers().get(header::WWW_AUTHENTICATE).cloned();
            scheme.map(|scheme| scheme.to_str().unwrap().to_owned())
        };
        assert_eq!(asked(ProblemKind::Unauthorized).as_deref(), Some("Bearer"));
        assert_eq!(
            asked(ProblemKind::IdentityRequired).as_deref(),
            Some("Unsaid-Identity")
        );
        assert_eq!(asked(ProblemKind::QuotaSpent), None);
    }

    #[test]
    fn what_is_not_temporary_names_no_time() {
        let response = Refused::new(ProblemKind::NotFound, "nothing").into_response();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
