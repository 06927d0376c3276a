//! `POST /v1/tasks/{task}/updates`: the way in for what browsers learned.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::HeaderMap,
};
use unsaid_protocol::{DecodeError, ProblemKind, UpdateFrame, UpdateReply};

use super::{body, problem::Refused};
use crate::{
    actor::{Command, Submission},
    live::TaskConfig,
    relay::Relay,
};

/// The content type of an update frame.
pub const UPDATE_CONTENT_TYPE: &str = "application/vnd.unsaid.update";

/// Takes one update. The answer comes after it is on disk.
pub async fn update(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UpdateReply>, Refused> {
    let task = relay.task(&task)?;
    let max_bytes = UpdateFrame::max_len(task.config.coordinates());
    body::check_headers(&headers, max_bytes, UPDATE_CONTENT_TYPE)?;

    // At most so many uploads are in memory, from their first byte to their answer.
    let timeout = relay.options.upload_timeout;
    let turn = tokio::time::timeout(timeout, relay.uploads.clone().acquire_owned()).await;
    let _turn = turn
        .map_err(|_| Refused::busy())?
        .map_err(|_| Refused::internal())?;

    let bytes = body::read(body, max_bytes, timeout).await?;
    let config = task.config.clone();
    let examined = tokio::task::spawn_blocking(move || examine(&config, &bytes));
    let submission = examined.await.map_err(|_| Refused::internal())??;
    task.ask(|reply| Command::Update(submission, reply))
        .await
        .map(Json)
}

fn examine(config: &TaskConfig, bytes: &[u8]) -> Result<Submission, Refused> {
    config.examine(bytes).map_err(|error| {
        let kind = match error {
            DecodeError::Version { .. } => ProblemKind::Version,
            _ => ProblemKind::Malformed,
        };
        Refused::new(kind, error.to_string())
    })
}
