//! `POST /v1/tasks/{task}/updates`: the way in for what browsers learned.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::HeaderMap,
};
use unsaid_protocol::{DecodeError, ProblemKind, TaskId, UpdateFrame, UpdateReply};

use super::{
    body,
    identities::Signer,
    limits::Peer,
    openapi::{Binary, OfUpdate, Refusals},
    problem::Refused,
};
use crate::{
    actor::Command,
    intake::Intake,
    relay::{Relay, TaskHandle},
};

/// The content type of an update frame.
pub const UPDATE_CONTENT_TYPE: &str = "application/vnd.unsaid.update";

/// Takes one update. The answer comes after it is on disk.
#[utoipa::path(post, path = "/tasks/{task}/updates", tag = "client",
    params(("task" = TaskId, Path, description = "The task's id"), ("unsaid-identity" = Option<String>, Header, description = "Who signed it (section 12)")),
    request_body(content = Binary, content_type = "application/vnd.unsaid.update",
        description = "One update frame, at most 116 + 4 × parameters bytes (4 more with weights), within 60 s, and never silent for 10 s"),
    responses((status = 200, description = "It is on disk, and counted once", body = UpdateReply), Refusals<OfUpdate>),
)]
pub async fn update(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UpdateReply>, Refused> {
    let task = relay.task(&task)?;
    let answer = receive(
        &relay,
        &task,
        peer.map(|Extension(Peer(address))| address),
        &headers,
        body,
    )
    .await;
    task.tally.update(&answer);
    answer.map(Json)
}

async fn receive(
    relay: &Relay,
    task: &TaskHandle,
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    body: Body,
) -> Result<UpdateReply, Refused> {
    let max_bytes = UpdateFrame::max_len(task.config.coordinates());
    body::check_headers(headers, max_bytes, UPDATE_CONTENT_TYPE)?;

    // At most so many uploads, and so many bytes of them, are in memory, from their first byte to their answer, whoever still waits for it.
    let (timeout, silence) = (relay.options.upload_timeout, relay.options.upload_silence);
    let kept_bytes = 4 * task.config.coordinates() as u64;
    let turn = relay.uploads.turn(peer, kept_bytes);
    let turn = tokio::time::timeout(timeout, turn).await;
    let turn = turn.map_err(|_| Refused::busy())?;

    let _one = UnderWay::begin(&task.outlook.under_way);
    let signer = Signer::of(relay, task, headers);
    let mut intake = Intake::new(&task.config, !matches!(signer, Ok(None)));
    body::stream(body, max_bytes, timeout, silence, |part| intake.push(part)).await?;
    let mut submission = intake.finish().map_err(no_frame)?;
    let signer = signer?;
    let update = submission.claim.update; // as its sender knows it, whoever signed it
    if let Some(signer) = signer {
        submission.claim = signer.claim(submission.claim)?;
    }
    let reply = task
        .ask(|reply| Command::Update(submission, Some(turn), reply))
        .await?;
    Ok(UpdateReply { update, ..reply })
}

fn no_frame(error: DecodeError) -> Refused {
    let kind = match error {
        DecodeError::Version { .. } => ProblemKind::Version,
        _ => ProblemKind::Malformed,
    };
    Refused::new(kind, error.to_string())
}

/// One update under way, until it is dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
