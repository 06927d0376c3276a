//! Delivery: the bytes that were paid for are sent until the relay has counted them, refused them, or closed their round.

use unsaid_protocol::{ClientId, ProblemKind, UpdateFrame};

use super::{RoundEnd, Session};
use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    events::{State, UploadStatus},
    ports::{Clock, Pending, Ports, Relay, RelayFault, Store},
};

impl<P: Ports> Session<P> {
    /// Sends the kept bytes until the relay has counted them, refused them, or closed their round.
    pub(super) async fn deliver(
        &self,
        client: ClientId,
        pending: &Pending,
        abort: &Abort,
    ) -> Result<RoundEnd, ClientError> {
        let Pending { round, frame, .. } = pending;
        let (round, bytes) = (*round, frame.len());
        self.say(State::Uploading, Some(round));
        let mut attempt = 0;
        let mut checked_in_again = false;
        let upload = |attempt, status, retry_in_ms, detail| SessionEvent::Upload {
            round,
            attempt,
            bytes,
            status,
            retry_in_ms,
            detail,
        };
        let end = loop {
            attempt += 1;
            self.hear(upload(attempt, UploadStatus::Sending, None, None));
            let fault = match abort.guard(self.ports.relay().send(frame)).await? {
                Ok(reply) => {
                    let status = if reply.duplicate {
                        UploadStatus::Duplicate
                    } else {
                        UploadStatus::Accepted
                    };
                    self.hear(upload(attempt, status, None, None));
                    break Ok(RoundEnd::Counted);
                }
                Err(fault) => fault,
            };
            if let RelayFault::Refused { problem, .. } = &fault {
                match problem.kind() {
                    Some(
                        ProblemKind::RoundClosed | ProblemKind::WrongRound | ProblemKind::AlreadyReported,
                    ) => {
                        let detail = Some(problem.detail.clone());
                        self.hear(upload(attempt, UploadStatus::Late, None, detail));
                        break Ok(RoundEnd::NotCounted);
                    }
                    Some(ProblemKind::NotCheckedIn) if !checked_in_again => {
                        checked_in_again = true;
                        self.check_in(client, abort).await?;
                        continue;
                    }
                    // One that was kept from before the manifest changed, where the client has agreed to the new one since.
                    Some(ProblemKind::WrongManifest) if read_pending(pending)?.manifest != self.task.hash => {
                        let detail = Some(problem.detail.clone());
                        self.hear(upload(attempt, UploadStatus::Late, None, detail));
                        break Ok(RoundEnd::NotCounted);
                    }
                    Some(ProblemKind::WrongManifest) => break Err(ClientError::ManifestChanged),
                    Some(kind) if kind.is_temporary() => {}
                    _ => break Err(ClientError::Refused(problem.clone())),
                }
            }
            let (wait, detail) = self.wait_for(&fault, attempt)?;
            self.hear(upload(attempt, UploadStatus::Retrying, Some(wait), Some(detail)));
            abort.guard(self.ports.clock().sleep(wait)).await?;
        };
        // Counted or refused for good, these bytes are never sent again. The relay's control variate has what it counted, no more.
        let counted = matches!(end, Ok(RoundEnd::Counted));
        self.ports.store().clear_pending(counted).await?;
        end
    }
}

/// The update frame of a kept update, for whoever wants to look inside.
///
/// # Errors
/// [`ClientError::Internal`] where the kept bytes are none.
pub fn read_pending(pending: &Pending) -> Result<UpdateFrame, ClientError> {
    let read = UpdateFrame::read(&pending.frame);
    read.map(|(frame, _)| frame)
        .map_err(|error| ClientError::Internal(error.to_string()))
}
