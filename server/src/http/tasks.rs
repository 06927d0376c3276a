//! Control messages of a task.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use unsaid_protocol::{CheckIn, CheckInReply, ContentHash, Manifest, ProblemKind, RoundState, TaskId};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{ObjectBuilder, Schema, Type},
};

use super::{
    CONTENT_HASH, SIGNATURE, body, identities,
    openapi::{Nothing, OfCheckIn, OfReadiness, OfStore, OfTask, Refusals},
    problem::Refused,
};
use crate::{
    actor::{Command, Failure},
    lineage::RoundRecord,
    relay::{Relay, TaskHandle},
};

impl Relay {
    /// The task that a path names.
    pub(crate) fn task(&self, id: &str) -> Result<Arc<TaskHandle>, Refused> {
        let found = id.parse::<TaskId>().ok().and_then(|id| self.handle(&id));
        found.ok_or_else(|| Refused::new(ProblemKind::NotFound, "this relay has no such task"))
    }
}

impl TaskHandle {
    /// Gives the task's thread a command and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Command,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        match self.mailbox.try_send(command(reply)) {
            Ok(()) => answer
                .await
                .map_err(|_| Refused::internal())?
                .map_err(Refused::from),
            Err(std::sync::mpsc::TrySendError::Full(_)) => Err(Refused::busy()),
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => Err(Refused::internal()),
        }
    }
}

/// A line of `GET /v1/tasks`.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskSummary {
    task: TaskId,
    title: String,
    description: String,
    manifest: ContentHash,
    parameters: u32,
}

/// `GET /v1/tasks`: what this relay runs.
#[utoipa::path(get, path = "/tasks", tag = "task", responses((status = 200, description = "Every task", body = Vec<TaskSummary>), Refusals<Nothing>))]
pub async fn list(State(relay): State<Arc<Relay>>) -> Json<Vec<TaskSummary>> {
    let summary = |task: Arc<TaskHandle>| {
        let manifest = &task.config.manifest;
        TaskSummary {
            task: manifest.task.clone(),
            title: manifest.title.clone(),
            description: manifest.description.clone(),
            manifest: task.config.manifest_hash,
            parameters: manifest.parameters,
        }
    };
    Json(relay.handles().into_iter().map(summary).collect())
}

/// `GET /v1/tasks/{task}/manifest`: the very bytes that the hash names.
#[utoipa::path(get, path = "/tasks/{task}/manifest", tag = "task",
    params(("task" = TaskId, Path, description = "The task's id"),
    ("if-none-match" = Option<String>, Header, description = "The `etag` of what the client has")), responses(
    (status = 200, description = "The terms of the task, under the name in `unsaid-content-hash`, signed where the relay has a key",
        body = Manifest,
        headers(("unsaid-content-hash" = ContentHash), ("unsaid-signature" = Option<String>), ("etag" = String))),
    (status = 304, description = "As in `if-none-match`"),
    Refusals<OfTask>,
))]
pub async fn manifest(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let task = relay.task(&task)?;
    let (config, signature) = (&task.config, task.signature.clone());
    let signature = AppendHeaders(signature.map(|signature| (SIGNATURE, signature)));
    let hash = config.manifest_hash.to_string();
    let etag = format!("\"{hash}\"");
    let shared = [
        (header::ETAG, etag.clone()),
        (CONTENT_HASH, hash),
        (header::CACHE_CONTROL, "no-cache".into()),
    ];
    if is_known(&headers, &[&etag]) {
        return Ok((StatusCode::NOT_MODIFIED, shared, signature).into_response());
    }
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((shared, signature, kind, config.manifest_json.clone()).into_response())
}

/// Whether `If-None-Match` names one of `etags`.
pub(crate) fn is_known(headers: &HeaderMap, etags: &[&str]) -> bool {
    let lists = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut tags = lists
        .flat_map(|list| list.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == "*" || etags.contains(&tag))
}

/// `GET /v1/tasks/{task}/round`: where the open round stands.
#[utoipa::path(get, path = "/tasks/{task}/round", tag = "task", params(("task" = TaskId, Path, description = "The task's id")), responses(
    (status = 200, description = "The open round", body = RoundState), Refusals<OfTask>,
))]
pub async fn round(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
) -> Result<impl IntoResponse, Refused> {
    let state: RoundState = relay
        .task(&task)?
        .outlook
        .snapshot
        .borrow()
        .state(relay.clock.now_ms());
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(state)))
}

/// The most rounds of one answer, and how many there are where nobody says.
const MAX_ROUNDS: u16 = 1_000;

/// A round's number has 64 bits, for which descriptions of APIs have no word: `int64` ends at half of it.
fn round_number() -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    number.minimum(Some(0_usize)).maximum(Some(usize::MAX)).into()
}

/// Which rounds.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only rounds with a number below this one
    #[param(schema_with = round_number)]
    before: Option<u64>,
    /// So many at most, the newest of them; 1,000 where it is not said
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u16>,
}

/// `GET /v1/tasks/{task}/rounds`: what was published. A task's rounds are kept for good, so one answer has a bounded number of them.
#[utoipa::path(get, path = "/tasks/{task}/rounds", tag = "task",
    params(("task" = TaskId, Path, description = "The task's id"), Page),
    responses(
        (status = 200, description = "The newest published rounds, oldest first", body = Vec<RoundRecord>), Refusals<OfStore>,
    ),
)]
pub async fn rounds(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<impl IntoResponse, Refused> {
    let task = relay.task(&task)?;
    let malformed = |detail: String| Refused::new(ProblemKind::Malformed, detail);
    let Query(page) = page.map_err(|rejection| malformed(rejection.body_text()))?;
    let most = page.limit.unwrap_or(MAX_ROUNDS);
    if !(1..=MAX_ROUNDS).contains(&most) {
        return Err(malformed(format!("limit is 1 to {MAX_ROUNDS}, and not {most}")));
    }
    let (store, id) = (task.store.clone(), task.config.manifest.task.clone());
    let before = page.before.unwrap_or(u64::MAX);
    let read = tokio::task::spawn_blocking(move || store.rounds_before(&id, before, most))
        .await
        .map_err(|_| Refused::internal())?;
    let rounds: Vec<RoundRecord> = read.map_err(|error| {
        tracing::warn!(%error, "the rounds cannot be read");
        Refused::unstored()
    })?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(rounds)))
}

/// `POST /v1/tasks/{task}/check-in`: a client asks to take part.
#[utoipa::path(post, path = "/tasks/{task}/check-in", tag = "client",
    params(("task" = TaskId, Path, description = "The task's id"), ("unsaid-identity" = Option<String>, Header, description = "Who signed it (section 12)")),
    request_body(content = CheckIn, description = "At most 4,096 bytes, within 10 s"),
    responses((status = 200, description = "What to do", body = CheckInReply), Refusals<OfCheckIn>),
    extensions(("x-max-bytes" = json!(body::MAX_JSON_BYTES))),
)]
pub async fn check_in(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CheckInReply>, Refused> {
    let task = relay.task(&task)?;
    let mut ask: CheckIn = body::read_json(&headers, body).await?;
    let answer = match identities::sign_in(&relay, &task, &headers, &mut ask) {
        Ok(who) => task.ask(|reply| Command::CheckIn(ask, who, reply)).await,
        Err(refused) => Err(refused),
    };
    task.tally.check_in(&answer);
    answer.map(Json)
}

/// `GET /healthz`: the process answers.
#[utoipa::path(get, path = "/healthz", tag = "relay", responses(
    (status = 200, description = "`ok`", body = String, content_type = "text/plain"), Refusals<Nothing>,
))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: every task runs, and can store what it is sent.
#[utoipa::path(get, path = "/readyz", tag = "relay", responses(
    (status = 200, description = "`ready`", body = String, content_type = "text/plain"), Refusals<OfReadiness>,
))]
pub async fn readyz(State(relay): State<Arc<Relay>>) -> Result<&'static str, Refused> {
    let handles = relay.handles();
    let well = |task: &Arc<TaskHandle>| task.outlook.healthy.load(Ordering::Relaxed);
    match relay.fallen() {
        Some(task) => Err(Refused::fallen(&task)),
        None if handles.iter().all(well) => Ok("ready\n"),
        None => Err(Refused::unstored()),
    }
}
