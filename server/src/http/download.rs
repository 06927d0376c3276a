//! `GET /v1/tasks/{task}/rounds/{round}/model`: a published model to take away, with its lineage inside.
//!
//! Clients fetch a model by the hash of its file, which has tensors and nothing else: two rounds of one model have one file. What is served
//! here is that file with one more entry in its header, `__metadata__`, a map of strings that every reader of safetensors knows. The tensors
//! lie behind the header, and are sent as they are: what is written anew for an answer is a few hundred bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use serde_json::Value;
use unsaid_protocol::{ContentHash, ProblemKind, TaskId};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::{
    openapi::{Binary, OfStore, Refusals},
    problem::Refused,
    tasks::is_known,
};
use crate::{
    lineage::{Lineage, RoundRecord},
    relay::{Relay, TaskHandle},
};

/// The word for the newest published round.
const LATEST: &str = "latest";

/// A round's number, or the word for the newest.
struct Which;

impl PartialSchema for Which {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.pattern(Some("^(latest|0|[1-9][0-9]{0,18})$")).into()
    }
}

impl ToSchema for Which {}

/// Sends the model of a published round as a file for people, with its lineage in it.
#[utoipa::path(get, path = "/tasks/{task}/rounds/{round}/model", tag = "task",
    params(("task" = TaskId, Path, description = "The task's id"), ("round" = inline(Which), Path, description = "A published round, or `latest`"),
        ("if-none-match" = Option<String>, Header, description = "The `etag` of what the client has")),
    responses(
        (status = 200, description = "Safetensors, with `__metadata__`", body = Binary, content_type = "application/octet-stream",
            headers(("etag" = String), ("content-disposition" = String), ("unsaid-content-hash" = ContentHash))),
        (status = 304, description = "As in `if-none-match`"),
        Refusals<OfStore>,
    ),
)]
pub async fn download(
    State(relay): State<Arc<Relay>>,
    Path((task, round)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let task = relay.task(&task)?;
    let record = find(&task, &round).await?;
    let id = &task.config.manifest.task;
    let file = task.models.file(&task.store, id, record.model).await;
    let file = file.map_err(|refused| forgotten(refused, record.round))?;
    let metadata = metadata(&task, &record);
    let [head, tensors] = with_metadata(&file, &metadata).ok_or_else(|| {
        tracing::error!(task = %id, model = %record.model, "a stored model is no safetensors file");
        Refused::internal()
    })?;
    // The tensors are named in the head, by their file's hash.
    let etag = format!("\"{}\"", ContentHash::of(&head));
    let shared = [
        (header::ETAG, etag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (super::CONTENT_HASH, record.model.to_string()),
    ];
    if is_known(&headers, &[&etag]) {
        return Ok((StatusCode::NOT_MODIFIED, shared).into_response());
    }
    let name = format!("attachment; filename=\"{id}-{}.safetensors\"", record.round);
    let of_file = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (header::ACCEPT_RANGES, "none".to_owned()),
    ];
    let body = Body::new(Pieces([head, tensors].into()));
    Ok((shared, of_file, body).into_response())
}

/// The round that a path names.
async fn find(task: &TaskHandle, round: &str) -> Result<RoundRecord, Refused> {
    let none = |detail: &str| Refused::new(ProblemKind::NotFound, detail);
    let number = match round {
        LATEST => None,
        digits => {
            let number = digits.parse::<u64>().ok();
            let number = number.filter(|number| number.to_string() == digits);
            Some(number.ok_or_else(|| none("a round is a number, or `latest`"))?)
        }
    };
    let (store, id) = (task.store.clone(), task.config.manifest.task.clone());
    let below = number.map_or(u64::MAX, |number| number.saturating_add(1));
    let read = tokio::task::spawn_blocking(move || store.rounds_before(&id, below, 1))
        .await
        .map_err(|_| Refused::internal())?;
    let rounds = read.map_err(|error| {
        tracing::warn!(%error, "the rounds cannot be read");
        Refused::unstored()
    })?;
    let mut rounds = rounds.into_iter();
    let found = rounds.find(|record| number.is_none_or(|number| record.round == number));
    found.ok_or_else(|| none("this round has not been published"))
}

/// The store has the round, and not its model any more.
fn forgotten(refused: Refused, round: u64) -> Refused {
    match refused.0.kind() {
        Some(kind @ ProblemKind::NotFound) => {
            Refused::new(kind, format!("the model of round {round} is no longer kept"))
        }
        _ => refused,
    }
}

/// What the file says of itself; nothing of what is not known.
fn metadata(task: &TaskHandle, record: &RoundRecord) -> BTreeMap<&'static str, String> {
    let manifest = &task.config.manifest;
    let RoundRecord { metrics, lineage } = record;
    let Lineage {
        parent,
        manifest: terms,
        spent,
    } = lineage;
    let number = |value: Option<f64>| value.map(|value| value.to_string());
    let hash = |hash: &Option<ContentHash>| hash.map(|hash| hash.to_string());
    // As they are called in JSON.
    let spent = serde_json::to_value(spent).unwrap_or_default();
    let word = |field: &str| spent.get(field).and_then(Value::as_str).map(str::to_owned);
    let figure = |field: &str| number(spent.get(field).and_then(Value::as_f64));
    let known = [
        ("task", Some(manifest.task.to_string())),
        (
            "title", // that of the terms it was made under, and of no later ones
            (*terms == Some(task.config.manifest_hash)).then(|| manifest.title.clone()),
        ),
        ("round", Some(metrics.round.to_string())),
        ("model", Some(metrics.model.to_string())),
        ("parent", hash(parent)),
        (
            "rolled_back_to",
            metrics.rolled_back_to.map(|round| round.to_string()),
        ),
        ("manifest", hash(terms)),
        ("clients", Some(metrics.clients.to_string())),
        ("checked_in", Some(metrics.checked_in.to_string())),
        ("accuracy", number(metrics.accuracy)),
        ("loss", number(metrics.loss)),
        ("privacy_mode", word("mode")),
        ("privacy_unit", word("unit")),
        ("adjacency", word("adjacency")),
        ("delta", figure("delta")),
        ("epsilon", figure("epsilon")),
        ("published_at_ms", Some(metrics.published_at_ms.to_string())),
        ("created", Some(date(metrics.published_at_ms))),
        (
            "relay",
            Some(format!("unsaid-relay {}", env!("CARGO_PKG_VERSION"))),
        ),
    ];
    let known = known.into_iter();
    known.filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A safetensors file with `metadata` in its header, as header and tensors; none where it is no such file.
fn with_metadata(file: &Bytes, metadata: &BTreeMap<&str, String>) -> Option<[Bytes; 2]> {
    let (length, rest) = file.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, tensors) = rest.split_at_checked(length)?;
    let entries = header.strip_prefix(b"{")?;
    let mut head = vec![0; 8];
    head.extend(b"{\"__metadata__\":");
    head.extend(serde_json::to_vec(metadata).ok()?);
    head.push(b',');
    head.extend(entries);
    head.resize(head.len().next_multiple_of(8), b' '); // as in the file that it was made of: tensors are aligned
    let length = head.len() as u64 - 8;
    head[..8].copy_from_slice(&length.to_le_bytes());
    Some([head.into(), file.slice_ref(tensors)])
}

/// `unix_ms` as a date and time (UTC), by RFC 3339.
///
/// Days are counted from 1 March of the year 0, so that a leap day is the last of its year: an era of 400 years has 146,097 days, the five
/// months from March or August on have 153.
fn date(unix_ms: u64) -> String {
    const TO_1970: u64 = 719_468; // days from 1 March 0000
    let (seconds, millis) = (unix_ms / 1_000, unix_ms % 1_000);
    let (days, second) = (seconds / 86_400 + TO_1970, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // March is 0
    let day = day - (153 * month + 2) / 5 + 1;
    let year = 400 * era + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Bytes that are sent one after the other.
struct Pieces(VecDeque<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;
    use unsaid_engine::Model;

    use super::*;

    fn model() -> Model {
        let spec = serde_json::json!({
            "input": [3], "layers": [{"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"
        });
        Model::new(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    /// Read by the `safetensors` crate, which is not what wrote it.
    #[test]
    fn a_file_with_metadata_has_the_tensors_of_the_one_without_bit_for_bit() {
        let parameters: Vec<f32> = (0..8).map(|at| at as f32 / 3.0 - 1.0).collect();
        let file = model().to_safetensors(&parameters).unwrap();
        for title in ["", "a", "Ziffern „1“ \\ \"2\"\n\u{0}", "数字"] {
            let metadata = BTreeMap::from([("title", title.to_owned()), ("round", "3".to_owned())]);
            let [head, tensors] = with_metadata(&file.clone().into(), &metadata).unwrap();
            assert_eq!((head.len() % 8, tensors.len()), (0, 4 * parameters.len()));
            let whole = [head, tensors].concat();
            let (_, header) = SafeTensors::read_metadata(&whole).unwrap();
            let told = header.metadata().as_ref().unwrap();
            assert_eq!(
                (told["title"].as_str(), told["round"].as_str(), told.len()),
                (title, "3", 2)
            );
            let (ours, canonical) = (
                SafeTensors::deserialize(&whole).unwrap(),
                SafeTensors::deserialize(&file).unwrap(),
            );
            assert_eq!(ours.len(), 2);
            for (name, tensor) in canonical.tensors() {
                let same = ours.tensor(&name).unwrap();
                assert_eq!(
                    (same.shape(), same.data()),
                    (tensor.shape(), tensor.data()),
                    "{name}"
                );
            }
            // The relay's and the client's own reader take it as well.
            assert_eq!(model().from_safetensors(&whole).unwrap(), parameters);
        }
    }

    #[test]
    fn what_is_no_file_of_tensors_gets_no_metadata() {
        let file = model().to_safetensors(&[0.0; 8]).unwrap();
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        for length in 0..8 + header {
            let cut = Bytes::copy_from_slice(&file[..length]);
            assert_eq!(with_metadata(&cut, &BTreeMap::new()), None, "{length}");
        }
        let mut other = file.clone();
        other[8] = b'[';
        assert_eq!(with_metadata(&other.into(), &BTreeMap::new()), None);
        let mut endless = file;
        endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(with_metadata(&endless.into(), &BTreeMap::new()), None);
    }

    /// The expected texts are those of `date -u -d @SECONDS`.
    #[test]
    fn a_date_is_told_as_calendars_do() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_001, "2000-03-01T00:00:00.001Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(date(unix_ms), expected);
        }
    }
}
