//! Reading request bodies within bounds.

use std::time::Duration;

use axum::{body::Body, http::HeaderMap, http::header};
use futures_util::StreamExt;
use unsaid_document::Document;
use unsaid_protocol::ProblemKind;

use super::problem::Refused;

/// The most bytes of a JSON request.
pub const MAX_JSON_BYTES: usize = 4_096;

/// The longest that a JSON request may take to arrive.
const JSON_TIMEOUT: Duration = Duration::from_secs(10);

/// Refuses a request whose body is announced to be longer than `max_bytes`, or to be of another type.
///
/// # Errors
/// [`ProblemKind::TooLarge`], then [`ProblemKind::ContentType`].
pub fn check_headers(headers: &HeaderMap, max_bytes: usize, content_type: &str) -> Result<(), Refused> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    let found = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("none");
    let essence = found.split(';').next().unwrap_or(found).trim();
    if !essence.eq_ignore_ascii_case(content_type) {
        return Err(Refused::new(
            ProblemKind::ContentType,
            format!("the body is {essence}, but must be {content_type}"),
        ));
    }
    Ok(())
}

/// Hands on a body of at most `max_bytes`, part by part as it arrives, in at most `timeout`, each part within `silence` of the one before.
///
/// # Errors
/// [`ProblemKind::TooLarge`], [`ProblemKind::Malformed`] where the body breaks off, or [`ProblemKind::Unavailable`] where
/// it took too long.
pub async fn stream(
    body: Body,
    max_bytes: usize,
    timeout: Duration,
    silence: Duration,
    mut take: impl FnMut(&[u8]),
) -> Result<(), Refused> {
    let slow = || {
        Refused::new(
            ProblemKind::Unavailable,
            "the body took too long to arrive; nothing was counted",
        )
    };
    let receive = async {
        let mut left = max_bytes;
        let mut parts = body.into_data_stream();
        loop {
            let next = tokio::time::timeout(silence, parts.next()).await;
            let Some(part) = next.map_err(|_| slow())? else {
                return Ok(());
            };
            let part = part.map_err(|_| Refused::new(ProblemKind::Malformed, "the body breaks off"))?;
            left = left.checked_sub(part.len()).ok_or_else(|| too_large(max_bytes))?;
            take(&part);
        }
    };
    tokio::time::timeout(timeout, receive)
        .await
        .unwrap_or_else(|_| Err(slow()))
}

/// Reads a body as [`stream`] does, into memory.
///
/// # Errors
/// As [`stream`].
pub async fn read(body: Body, max_bytes: usize, timeout: Duration) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let take = |part: &[u8]| bytes.extend_from_slice(part);
    stream(body, max_bytes, timeout, timeout, take).await?;
    Ok(bytes)
}

/// Reads a JSON body.
///
/// # Errors
/// As [`check_headers`] and [`read`], and [`ProblemKind::Malformed`] where it is not what the route reads, or has a field twice.
pub async fn read_json<T: Document>(headers: &HeaderMap, body: Body) -> Result<T, Refused> {
    check_headers(headers, MAX_JSON_BYTES, "application/json")?;
    let bytes = read(body, MAX_JSON_BYTES, JSON_TIMEOUT).await?;
    unsaid_document::parse(&bytes)
        .and_then(T::read)
        .map_err(|error| Refused::new(ProblemKind::Malformed, error))
}

fn too_large(max_bytes: usize) -> Refused {
    Refused::new(
        ProblemKind::TooLarge,
        format!("the body is longer than {max_bytes} bytes"),
    )
}
