//! The operator's routes, for whoever has the operator's token: `POST /v1/admin/tasks/{task}/pause`, `resume` and `rollback`, and
//! `POST /v1/admin/tasks`, which adds a task.

use std::{
    io::{ErrorKind, Write},
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use subtle::ConstantTimeEq;
use unsaid_document::{Document, Field, Fields, Value};
use unsaid_protocol::{ContentHash, ProblemKind, TaskId};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    body, identities,
    limits::Peer,
    openapi::{OfAdding, OfPause, OfRollback, Refusals},
    problem::Refused,
    status,
};
use crate::{
    actor::{Command, OlderModel, RolledBack},
    live::OpenError,
    relay::{Relay, StartError, TaskHandle},
    task_file::Task,
};

/// The fewest characters of an operator's token: 16 of them, drawn from 64, are 96 bits.
pub const MIN_TOKEN_CHARS: usize = 16;

/// The operator's token, as its SHA-256: what is compared is always as long.
#[derive(Debug, Clone)]
pub struct AdminToken(ContentHash);

impl AdminToken {
    /// A token; none where it is too short to keep anyone out, or has characters that a header cannot carry as they are: only
    /// ASCII from the space to `~` can be asked with.
    pub fn new(token: &str) -> Option<Self> {
        let long = token.chars().count() >= MIN_TOKEN_CHARS;
        let sendable = token.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        (long && sendable).then(|| Self(ContentHash::of(token.as_bytes())))
    }

    /// Whether a request carries it: `authorization: Bearer …`. Compared in constant time.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let value = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let parts = value.and_then(|value| value.split_once(' '));
        let Some((scheme, token)) = parts else {
            return false;
        };
        let found = ContentHash::of(token.trim().as_bytes());
        let same: bool = found.as_bytes().ct_eq(self.0.as_bytes()).into();
        scheme.eq_ignore_ascii_case("bearer") && same
    }
}

/// How often the log says that tokens were refused, at most.
const REFUSALS_EVERY_MS: u64 = 60_000;

/// Tokens that were refused: the log says so at once, and from then on once a minute at most, with how many there were. Who guesses is
/// seen, and cannot fill the disk.
#[derive(Debug, Default)]
pub struct RefusedTokens(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// None where it was never said.
    at_ms: Option<u64>,
    since: u64,
}

impl RefusedTokens {
    /// One was refused; how many since it was last said, where it is to be said now.
    fn count(&self, now_ms: u64) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        // A clock that was put back says it once too often.
        let due = told
            .at_ms
            .is_none_or(|at_ms| now_ms.abs_diff(at_ms) >= REFUSALS_EVERY_MS);
        due.then(|| {
            told.at_ms = Some(now_ms);
            std::mem::take(&mut told.since)
        })
    }
}

/// The answer where the operator's token is missing or wrong. Nothing of what was sent is written down.
pub fn refuse_token(relay: &Relay, peer: Option<Peer>, detail: &str) -> Refused {
    if let Some(refused) = relay.refused_tokens.count(relay.clock.now_ms()) {
        let peer = peer.map(|Peer(address)| address.to_string());
        let last = peer.as_deref().unwrap_or("unknown");
        tracing::warn!(
            refused,
            last,
            "an operator's route was asked without the operator's token"
        );
    }
    Refused::new(ProblemKind::Unauthorized, detail)
}

/// The routes, which are described as they are added; empty where the relay has no operator's token. They take no requests of pages elsewhere (no CORS).
pub fn routes(relay: &Arc<Relay>) -> OpenApiRouter<Arc<Relay>> {
    if relay.options.admin_token.is_none() {
        return OpenApiRouter::new();
    }
    let with_token = middleware::from_fn_with_state(relay.clone(), require_token);
    OpenApiRouter::new()
        .routes(routes!(add))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(rollback))
        .routes(routes!(status::status))
        .merge(identities::operator::routes())
        .route_layer(with_token)
}

async fn require_token(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let token = relay.options.admin_token.as_ref();
    if token.is_some_and(|token| token.is_in(request.headers())) {
        return next.run(request).await;
    }
    let detail = "this route needs the header `authorization: Bearer` with the operator's token";
    let peer = request.extensions().get::<Peer>().copied();
    refuse_token(&relay, peer, detail).into_response()
}

/// Whether a task lets clients in.
#[derive(Debug, Serialize, ToSchema)]
struct Paused {
    paused: bool,
}

/// Lets no more clients in.
#[utoipa::path(post, path = "/v1/admin/tasks/{task}/pause", tag = "operator", security(("operator" = [])), params(("task" = TaskId, Path, description = "The task's id")), responses(
    (status = 200, description = "On disk", body = Paused), Refusals<OfPause>,
))]
async fn pause(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
) -> Result<impl IntoResponse, Refused> {
    set_paused(&relay, &task, true).await
}

/// Lets clients in again.
#[utoipa::path(post, path = "/v1/admin/tasks/{task}/resume", tag = "operator", security(("operator" = [])), params(("task" = TaskId, Path, description = "The task's id")), responses(
    (status = 200, description = "On disk", body = Paused), Refusals<OfPause>,
))]
async fn resume(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
) -> Result<impl IntoResponse, Refused> {
    set_paused(&relay, &task, false).await
}

async fn set_paused(relay: &Relay, task: &str, paused: bool) -> Result<Json<Paused>, Refused> {
    relay
        .task(task)?
        .ask(|reply| Command::Pause(paused, reply))
        .await?;
    tracing::info!(task, paused, "by the operator");
    Ok(Json(Paused { paused }))
}

/// Which model to go back to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// The round that it came from.
    round: u64,
}

impl Document for Rollback {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let rollback = Self {
            round: fields.required::<Whole>("round").0,
        };
        fields.finish().map(|()| rollback)
    }
}

/// A whole number, as `3` or as `3.0`: to a JSON schema they are the same, and some languages write all numbers the second way.
pub(super) struct Whole(pub(super) u64);

impl Field for Whole {
    const EXPECTED: &'static str = "a whole number";
    const NONE: Self = Self(0);
    fn read(value: &Value) -> Option<Self> {
        let whole = |number: &f64| number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(number);
        let written = value.as_f64().filter(whole).map(|number| number as u64);
        value.as_u64().or(written).map(Self)
    }
}

/// Up to 2⁵³ a 64-bit float tells every whole number from the next.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Goes back to the model of an earlier round, in a round of its own.
#[utoipa::path(post, path = "/v1/admin/tasks/{task}/rollback", tag = "operator", security(("operator" = [])), params(("task" = TaskId, Path, description = "The task's id")),
    request_body(content = Rollback, description = "At most 4,096 bytes, within 10 s"),
    responses((status = 200, description = "On disk", body = RolledBack), Refusals<OfRollback>),
    extensions(("x-max-bytes" = json!(body::MAX_JSON_BYTES))),
)]
async fn rollback(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RolledBack>, Refused> {
    let task = relay.task(&task)?;
    let ask: Rollback = body::read_json(&headers, body).await?;
    let older = older_model(&task, ask.round).await?;
    task.ask(|reply| Command::RollBack(older, reply)).await.map(Json)
}

/// Reads the model of `round`, away from the threads that answer.
async fn older_model(task: &TaskHandle, round: u64) -> Result<OlderModel, Refused> {
    let (store, config) = (task.store.clone(), task.config.clone());
    let work = move || {
        let id = &config.manifest.task;
        let unstored = |error| {
            tracing::warn!(%error, "a model cannot be read");
            Refused::unstored()
        };
        let rounds = store.rounds_before(id, round.saturating_add(1), 1);
        let rounds = rounds.map_err(unstored)?;
        let metrics = rounds.into_iter().find(|metrics| metrics.round == round);
        let none = |what| Refused::new(ProblemKind::NotFound, format!("round {round} {what}"));
        let model = metrics.ok_or_else(|| none("has not been published"))?.model;
        let bytes = store.model(id, &model).map_err(unstored)?;
        let bytes = bytes.ok_or_else(|| none("had a model that is no longer kept"))?;
        let (parameters, control) = config.read(&bytes).map_err(|error| {
            tracing::error!(%error, "a stored model cannot be read");
            Refused::internal()
        })?;
        Ok(OlderModel {
            round,
            model,
            bytes,
            parameters,
            control,
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refused::internal())?
}

/// The most bytes of a task file that is added.
const MAX_TASK_BYTES: usize = 65_536;

/// The longest that it may take to arrive.
const TASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A task that was added.
#[derive(Debug, Serialize, ToSchema)]
struct Added {
    task: TaskId,
    manifest: ContentHash,
}

/// Reads a task file, keeps it where the next start finds it, and starts the task.
#[utoipa::path(post, path = "/v1/admin/tasks", tag = "operator", security(("operator" = [])),
    request_body(content = String, content_type = "application/toml", description = "A task file of at most 65,536 bytes, within 10 s"),
    responses((status = 200, description = "It runs, and will after a restart", body = Added), Refusals<OfAdding>),
    extensions(("x-max-bytes" = json!(MAX_TASK_BYTES))),
)]
async fn add(
    State(relay): State<Arc<Relay>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Added>, Refused> {
    let folder = relay.options.tasks.clone().ok_or_else(|| {
        let detail = "this relay has no folder for task files (--tasks)";
        Refused::new(ProblemKind::NotFound, detail)
    })?;
    body::check_headers(&headers, MAX_TASK_BYTES, "application/toml")?;
    let bytes = body::read(body, MAX_TASK_BYTES, TASK_TIMEOUT).await?;
    let malformed = |detail: String| Refused::new(ProblemKind::Malformed, detail);
    let text = String::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    let task =
        Task::parse("task", &text, &relay.options.overrides).map_err(|error| malformed(error.to_string()))?;
    let added = Added {
        task: task.manifest.task.clone(),
        manifest: ContentHash::of(&task.manifest.to_json()),
    };
    let id = added.task.clone();
    let work = move || {
        let _one_at_a_time = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        // On the disk first, under a name that a start does not read: a task that runs is kept unless the disk fails at a
        // rename, and a file that cannot be started never keeps the relay from its next start.
        let file = File::begin(&folder, id.as_str(), &text).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let detail = format!("there is a file {id}.toml already, and it says something else");
                Refused::new(ProblemKind::TaskExists, detail)
            }
            _ => {
                tracing::error!(task = %id, %error, "the file of a task cannot be written");
                Refused::unstored()
            }
        })?;
        relay.add(task).map_err(|error| match error {
            StartError::TwiceTheSame(id) => {
                Refused::new(ProblemKind::TaskExists, format!("there is a task {id}"))
            }
            StartError::Open {
                source: OpenError::Store(error),
                ..
            } => {
                tracing::error!(task = %id, %error, "a task cannot be added");
                Refused::unstored()
            }
            StartError::Thread(error) => {
                tracing::error!(task = %id, %error, "a task cannot be added: no thread starts");
                Refused::busy()
            }
            StartError::Stopping => Refused::busy(),
            error => malformed(error.to_string()),
        })?;
        file.keep().map_err(|error| {
            tracing::error!(task = %id, %error, "the task runs, but its file cannot be kept: it will not start again by itself");
            Refused::internal()
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refused::internal())??;
    tracing::info!(task = %added.task, manifest = %added.manifest, "added by the operator");
    Ok(Json(added))
}

/// Held while a task is added: two of one id would write the same file.
static ADDING: Mutex<()> = Mutex::new(());

/// A task file that is written and not kept yet. Dropped, it is gone.
#[derive(Debug)]
struct File {
    folder: PathBuf,
    begun: PathBuf,
    whole: PathBuf,
}

impl File {
    /// Writes the file under another name, down to the disk.
    ///
    /// # Errors
    /// The operating system's, and [`ErrorKind::AlreadyExists`] where there is such a file that says something else.
    fn begin(folder: &FilePath, id: &str, text: &str) -> std::io::Result<Self> {
        let file = Self {
            folder: folder.to_owned(),
            begun: folder.join(format!(".{id}.part")),
            whole: folder.join(format!("{id}.toml")),
        };
        match std::fs::read(&file.whole) {
            Ok(found) if found != text.as_bytes() => return Err(ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut begun = std::fs::File::create(&file.begun)?;
        begun.write_all(text.as_bytes())?;
        begun.sync_all()?;
        Ok(file)
    }

    /// Gives it its name, which lasts once the folder is on the disk, too.
    fn keep(self) -> std::io::Result<()> {
        std::fs::rename(&self.begun, &self.whole)?;
        std::fs::File::open(&self.folder)?.sync_all()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.begun); // it has its name, or is given up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_taken() {
        let token = AdminToken::new("0123456789abcdef").unwrap();
        for (value, expected) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("Bearer", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(token.is_in(&headers), expected, "{value}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert!(AdminToken::new("too short").is_none());
        for unsendable in ["0123456789abcdéf", "01234567\t89abcdef", "0123456789abcde\u{7f}"] {
            assert!(AdminToken::new(unsendable).is_none(), "{unsendable:?}");
        }
    }

    #[test]
    fn refused_tokens_are_said_at_once_and_then_once_a_minute() {
        let refused = RefusedTokens::default();
        let said: Vec<Option<u64>> = [5, 6, 60_004, 60_005, 60_006, 0, 130_000]
            .map(|now_ms| refused.count(now_ms))
            .into();
        assert_eq!(said, [Some(1), None, None, Some(3), None, Some(2), Some(1)]);
    }

    #[test]
    fn a_file_is_kept_whole_or_not_at_all() {
        let folder = tempfile::TempDir::new().unwrap();
        let files = || -> Vec<String> {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect()
        };
        let begun = File::begin(folder.path(), "tiny", "one").unwrap();
        assert_eq!(files(), [".tiny.part"], "what a start does not read");
        drop(begun);
        assert!(files().is_empty(), "what is given up leaves nothing");
        File::begin(folder.path(), "tiny", "one").unwrap().keep().unwrap();
        assert_eq!(files(), ["tiny.toml"]);
        File::begin(folder.path(), "tiny", "one").unwrap().keep().unwrap();
        let refused = File::begin(folder.path(), "tiny", "another").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        let whole = std::fs::read_to_string(folder.path().join("tiny.toml")).unwrap();
        assert_eq!((whole.as_str(), files().len()), ("one", 1));
    }
}
