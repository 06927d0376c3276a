//! The relay over HTTP.

use gloo_net::http::{Headers, Request, RequestBuilder, Response};
use js_sys::{Reflect, Uint8Array};
use unsaid_document::{Document, Value};
use unsaid_protocol::{
    CheckIn, CheckInReply, ContentHash, Problem, RoundMetrics, RoundState, TaskId, UpdateFrame, UpdateReply,
};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, ReadableStreamDefaultReader};

use super::{
    describe,
    seal::{Seal, sign},
};
use crate::ports::{Offered, Relay, RelayFault};

/// The relay at an address, for one task.
#[derive(Debug)]
pub(crate) struct HttpRelay {
    origin: String,
    task: TaskId,
    /// Checks the relay's signature, and makes this browser's.
    pub(super) seal: Seal,
}

/// Aborts its request when it is dropped, so that a session that is stopped leaves nothing running.
struct AbortOnDrop(Option<AbortController>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(controller) = &self.0 {
            controller.abort();
        }
    }
}

fn unreachable(error: gloo_net::Error) -> RelayFault {
    RelayFault::Unreachable(error.to_string())
}

/// A relay's answer, read to its end.
struct Answer {
    headers: Headers,
    body: Vec<u8>,
}

/// The most bytes that a control message or a manifest may have.
const MAX_MESSAGE: usize = 1 << 20;
/// The most bytes that the list of published rounds may have (some 300 a round).
const MAX_ROUNDS: usize = 1 << 24;

/// Sends a request and reads the answer, of at most `max_bytes`; a problem document is a refusal.
async fn exchange(
    request: RequestBuilder,
    body: impl FnOnce(RequestBuilder) -> Result<Request, gloo_net::Error>,
    max_bytes: usize,
) -> Result<Answer, RelayFault> {
    let guard = AbortOnDrop(AbortController::new().ok());
    let signal = guard.0.as_ref().map(AbortController::signal);
    let request = body(request.abort_signal(signal.as_ref())).map_err(unreachable)?;
    let response = request.send().await.map_err(unreachable)?;
    let body = read_body(&response, max_bytes).await?;
    let headers = response.headers();
    if response.ok() {
        return Ok(Answer { headers, body });
    }
    let retry_after = headers
        .get("retry-after")
        .and_then(|seconds| seconds.parse::<u64>().ok());
    Err(match json::<Problem>(&body) {
        Ok(problem) if problem.kind().is_some() => {
            let retry_after_ms = retry_after.map(|seconds| seconds.saturating_mul(1000));
            RelayFault::Refused {
                problem,
                retry_after_ms,
            }
        }
        // A proxy in between, or something that is no relay at all.
        _ => RelayFault::Unreachable(format!(
            "the answer was {} {}",
            response.status(),
            response.status_text()
        )),
    })
}

/// Reads a body piece by piece, and no more of it than `max_bytes`: what the other side says of its length binds nobody.
async fn read_body(response: &Response, max_bytes: usize) -> Result<Vec<u8>, RelayFault> {
    let broken = |error: JsValue| RelayFault::Unreachable(describe(&error));
    let mut bytes = Vec::new();
    let Some(stream) = response.body() else {
        return Ok(bytes);
    };
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    loop {
        let piece = JsFuture::from(reader.read()).await.map_err(broken)?;
        if Reflect::get(&piece, &"done".into()).map_err(broken)?.is_truthy() {
            return Ok(bytes);
        }
        let piece: Uint8Array = Reflect::get(&piece, &"value".into())
            .map_err(broken)?
            .unchecked_into();
        if bytes.len() + piece.length() as usize > max_bytes {
            let _ = reader.cancel();
            return Err(RelayFault::Unreachable(format!(
                "the answer is longer than {max_bytes} bytes"
            )));
        }
        bytes.extend(piece.to_vec());
    }
}

/// A body as JSON.
fn json<T: Document>(body: &[u8]) -> Result<T, RelayFault> {
    let garbled = |error: &dyn std::fmt::Display| {
        RelayFault::Unreachable(format!("the answer is not a relay's: {error}"))
    };
    let text = std::str::from_utf8(body).map_err(|error| garbled(&error))?;
    let document: Value = serde_json::from_str(text).map_err(|error| garbled(&error))?;
    T::read(document).map_err(|error| garbled(&error))
}

impl HttpRelay {
    /// The relay at `origin` (`https://relay.example`, without a slash at the end).
    pub fn new(origin: &str, task: TaskId, seal: Seal) -> Self {
        Self {
            origin: origin.trim_end_matches('/').to_owned(),
            task,
            seal,
        }
    }

    /// Address of something of the task.
    pub fn url(&self, what: &str) -> String {
        format!("{}/v1/tasks/{}/{what}", self.origin, self.task)
    }

    async fn get(&self, what: &str, max_bytes: usize) -> Result<Answer, RelayFault> {
        exchange(Request::get(&self.url(what)), RequestBuilder::build, max_bytes).await
    }
}

impl Relay for HttpRelay {
    async fn manifest(&self) -> Result<Offered, RelayFault> {
        let Answer { headers, body } = self.get("manifest", MAX_MESSAGE).await?;
        let announced = headers
            .get("unsaid-content-hash")
            .and_then(|hash| hash.parse().ok());
        let hash =
            announced.ok_or_else(|| RelayFault::Unreachable("no manifest hash was announced".into()))?;
        Ok(Offered {
            bytes: body,
            hash,
            signature: headers.get("unsaid-signature"),
        })
    }

    async fn round(&self) -> Result<RoundState, RelayFault> {
        json(&self.get("round", MAX_MESSAGE).await?.body)
    }

    async fn rounds(&self) -> Result<Vec<RoundMetrics>, RelayFault> {
        json(&self.get("rounds", MAX_ROUNDS).await?.body)
    }

    async fn check_in(&self, message: &CheckIn) -> Result<CheckInReply, RelayFault> {
        let body =
            serde_json::to_string(message).map_err(|error| RelayFault::Unreachable(error.to_string()))?;
        let request = Request::post(&self.url("check-in")).header("content-type", "application/json");
        let request = sign(&self.seal, request, body.as_bytes()).await?;
        json(
            &exchange(request, |request| request.body(body), MAX_MESSAGE)
                .await?
                .body,
        )
    }

    async fn model(&self, hash: ContentHash, max_bytes: usize) -> Result<Vec<u8>, RelayFault> {
        Ok(self.get(&format!("models/{hash}"), max_bytes).await?.body)
    }

    async fn send(&self, frame: &[u8]) -> Result<UpdateReply, RelayFault> {
        let request = Request::post(&format!("{}{}", self.origin, UpdateFrame::path(&self.task)))
            .header("content-type", "application/vnd.unsaid.update");
        let request = sign(&self.seal, request, frame).await?;
        let frame = Uint8Array::from(frame);
        json(
            &exchange(request, |request| request.body(frame), MAX_MESSAGE)
                .await?
                .body,
        )
    }
}
