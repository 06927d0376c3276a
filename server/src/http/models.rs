//! `GET /v1/tasks/{task}/models/{hash}`: models, which never change under their name.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use tokio::sync::OnceCell;
use unsaid_protocol::{ContentHash, ProblemKind, TaskId};

use super::{
    openapi::{Binary, OfStore, Refusals},
    problem::Refused,
    tasks::is_known,
};
use crate::{relay::Relay, store::Store};

/// Models that are kept ready to send, of each task: the newest, and those of clients that are a little late.
const CACHED: usize = 4;

/// A model as it is sent.
#[derive(Debug)]
struct Served {
    plain: Bytes,
    gzip: Bytes,
}

/// Newest first. A cell is empty while its model is being read.
type Entries = VecDeque<(ContentHash, Arc<OnceCell<Arc<Served>>>)>;

/// The newest models, read and compressed once however many clients ask at the same time.
#[derive(Debug, Default)]
pub struct ModelCache {
    entries: Mutex<Entries>,
}

impl ModelCache {
    /// The bytes of a model's file. One that is not here is read, and takes no other's place: who takes models away, one after the other,
    /// must not slow down who trains.
    ///
    /// # Errors
    /// A problem, where there is no such model or it cannot be read.
    pub(super) async fn file(
        &self,
        store: &Arc<dyn Store>,
        task: &TaskId,
        hash: ContentHash,
    ) -> Result<Bytes, Refused> {
        let known = self
            .entries()
            .iter()
            .find(|(known, _)| *known == hash)
            .and_then(|(_, cell)| cell.get().cloned());
        if let Some(served) = known {
            return Ok(served.plain.clone());
        }
        let (store, task) = (store.clone(), task.clone());
        tokio::task::spawn_blocking(move || plain(&*store, &task, hash))
            .await
            .map_err(|_| Refused::internal())?
    }

    async fn get(
        &self,
        store: &Arc<dyn Store>,
        task: &TaskId,
        hash: ContentHash,
    ) -> Result<Arc<Served>, Refused> {
        let cell = self.cell(hash);
        let served = cell
            .get_or_try_init(|| read(store.clone(), task.clone(), hash))
            .await
            .cloned();
        if served.is_err() {
            self.entries().retain(|(known, _)| *known != hash); // names of nothing must not push out models
        }
        served
    }

    fn cell(&self, hash: ContentHash) -> Arc<OnceCell<Arc<Served>>> {
        let mut entries = self.entries();
        let known = entries
            .iter()
            .position(|(known, _)| *known == hash)
            .and_then(|at| entries.remove(at));
        let entry = known.unwrap_or_else(|| (hash, Arc::default()));
        let cell = entry.1.clone();
        entries.push_front(entry);
        entries.truncate(CACHED);
        cell
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a model's file. Blocks.
fn plain(store: &dyn Store, task: &TaskId, hash: ContentHash) -> Result<Bytes, Refused> {
    let plain = store.model(task, &hash).map_err(|error| {
        tracing::warn!(%error, "a model cannot be read");
        Refused::unstored()
    })?;
    let none = || Refused::new(ProblemKind::NotFound, "this task has no such model");
    plain.map(Bytes::from).ok_or_else(none)
}

async fn read(store: Arc<dyn Store>, task: TaskId, hash: ContentHash) -> Result<Arc<Served>, Refused> {
    let work = move || {
        let plain = plain(&*store, &task, hash)?;
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len()), Compression::default());
        let gzip = encoder
            .write_all(&plain)
            .and_then(|()| encoder.finish())
            .map_err(|_| Refused::internal())?;
        Ok(Arc::new(Served {
            plain,
            gzip: gzip.into(),
        }))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refused::internal())?
}

/// Sends a model, compressed where the client takes that.
#[utoipa::path(get, path = "/tasks/{task}/models/{hash}", tag = "task",
    params(("task" = TaskId, Path, description = "The task's id"), ("hash" = ContentHash, Path, description = "The model's name"),
        ("if-none-match" = Option<String>, Header, description = "The `etag` of what the client has")),
    responses(
        (status = 200, description = "Safetensors, compressed where `accept-encoding` names gzip", body = Binary,
            content_type = "application/octet-stream", headers(("etag" = String))),
        (status = 304, description = "As in `if-none-match`"),
        Refusals<OfStore>,
    ),
)]
pub async fn model(
    State(relay): State<Arc<Relay>>,
    Path((task, hash)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let task = relay.task(&task)?;
    let hash: ContentHash = hash
        .parse()
        .map_err(|error| Refused::new(ProblemKind::NotFound, format!("no model has this name: {error}")))?;
    let served = task
        .models
        .get(&task.store, &task.config.manifest.task, hash)
        .await?;
    let (plain_tag, gzip_tag) = (format!("\"{hash}\""), format!("\"{hash}-gzip\""));
    let compressed = takes_gzip(&headers);
    let shared = [
        (
            header::ETAG,
            if compressed {
                gzip_tag.clone()
            } else {
                plain_tag.clone()
            },
        ),
        (
            header::CACHE_CONTROL,
            "public, max-age=31536000, immutable".to_owned(),
        ),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    if is_known(&headers, &[&plain_tag, &gzip_tag]) {
        return Ok((StatusCode::NOT_MODIFIED, shared).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok(if compressed {
        (
            shared,
            kind,
            [(header::CONTENT_ENCODING, "gzip")],
            served.gzip.clone(),
        )
            .into_response()
    } else {
        (shared, kind, served.plain.clone()).into_response()
    })
}

/// Whether `Accept-Encoding` names gzip with a weight above 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .and_then(|weight| weight.parse::<f32>().ok());
        named && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
