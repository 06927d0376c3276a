//! Asking a relay that may not answer: how often, and how long to wait in between.

use unsaid_protocol::ProblemKind;

use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    events::RelayStatus,
    ports::{Clock, Listener, Ports, RelayFault},
};

/// How a client behaves towards a relay that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one request, the first included.
    pub attempts: u32,
    /// The first wait; each further one is twice as long, up to 15 s, give or take a quarter.
    pub first_wait_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_wait_ms: 500,
        }
    }
}

/// The longest wait that a client chooses by itself.
pub(super) const LONGEST_WAIT_MS: u64 = 15_000;
/// The longest wait that a relay can ask for: a wrong `Retry-After` must not park a client for good, and a browser's timer that is
/// set for more than 2³¹ ms fires at once.
const LONGEST_RETRY_AFTER_MS: u64 = 600_000;
/// Asks the relay, again and again while that can help.
///
/// # Errors
/// [`ClientError::RelayUnreachable`] after the last try, [`ClientError::Refused`] and [`ClientError::ManifestChanged`] at once.
pub(crate) async fn ask<'a, P: Ports, T, F>(
    ports: &'a P,
    patience: Patience,
    abort: &Abort,
    request: impl Fn(&'a P) -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, RelayFault>> + 'a,
{
    let relay = |status, detail, retry_in_ms| SessionEvent::Relay {
        status,
        detail,
        retry_in_ms,
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let fault = match abort.guard(request(ports)).await? {
            Ok(answer) => {
                if attempt > 1 {
                    ports
                        .listener()
                        .hear(relay(RelayStatus::Back, "the relay answers again".into(), None));
                }
                return Ok(answer);
            }
            Err(fault) => fault,
        };
        if let RelayFault::Refused { problem, .. } = &fault {
            match problem.kind() {
                Some(ProblemKind::WrongManifest) => return Err(ClientError::ManifestChanged),
                Some(kind) if kind.is_temporary() => {}
                _ => return Err(ClientError::Refused(problem.clone())),
            }
        }
        let (wait, detail) = wait_for(ports.clock(), patience, &fault, attempt)?;
        ports
            .listener()
            .hear(relay(RelayStatus::Unreachable, detail, Some(wait)));
        abort.guard(ports.clock().sleep(wait)).await?;
    }
}

/// How long to wait after a temporary fault, and what it was; an error where patience has run out.
pub(super) fn wait_for(
    clock: &impl Clock,
    patience: Patience,
    fault: &RelayFault,
    attempt: u32,
) -> Result<(u64, String), ClientError> {
    let (detail, told) = match fault {
        RelayFault::Unreachable(detail) => (detail.clone(), None),
        RelayFault::Refused {
            problem,
            retry_after_ms,
        } => (problem.detail.clone(), *retry_after_ms),
    };
    if attempt >= patience.attempts {
        return Err(ClientError::RelayUnreachable(detail));
    }
    let backoff = patience
        .first_wait_ms
        .saturating_mul(1 << (attempt - 1).min(20))
        .min(LONGEST_WAIT_MS);
    // The clock's low digits spread clients that failed at the same moment; nothing secret depends on them.
    let spread = backoff / 4;
    let jitter = (clock.now_ms() * 1000.0) as u64 % (2 * spread + 1);
    let told = told.unwrap_or(0).min(LONGEST_RETRY_AFTER_MS);
    Ok((told.max(backoff - spread + jitter), detail))
}
