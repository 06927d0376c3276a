//! The relay over HTTP.

use gloo_net::http::{Request, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use unsaid_protocol::{
    CheckIn, CheckInReply, ContentHash, Problem, RoundMetrics, RoundState, TaskId, UpdateFrame, UpdateReply,
};
use web_sys::AbortController;

use crate::ports::{Relay, RelayFault};

/// The relay at an address, for one task.
#[derive(Debug, Clone)]
pub(crate) struct HttpRelay {
    origin: String,
    task: TaskId,
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

/// The answer, where it is one; a problem document as a refusal.
async fn fetch(
    request: RequestBuilder,
    body: impl FnOnce(RequestBuilder) -> Result<Request, gloo_net::Error>,
) -> Result<Response, RelayFault> {
    let guard = AbortOnDrop(AbortController::new().ok());
    let signal = guard.0.as_ref().map(AbortController::signal);
    let request = body(request.abort_signal(signal.as_ref())).map_err(unreachable)?;
    let response = request.send().await.map_err(unreachable)?;
    if !response.ok() {
        return Err(refusal(&response).await);
    }
    // The body is still to come; the request must live for it. Bodies are bounded by what the relay serves.
    std::mem::forget(guard);
    Ok(response)
}

async fn refusal(response: &Response) -> RelayFault {
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|seconds| seconds.parse::<u64>().ok());
    match read::<Problem>(response).await {
        Ok(problem) if problem.kind().is_some() => RelayFault::Refused {
            problem,
            retry_after_ms: retry_after.map(|seconds| seconds.saturating_mul(1000)),
        },
        // A proxy in between, or something that is no relay at all.
        _ => RelayFault::Unreachable(format!(
            "the answer was {} {}",
            response.status(),
            response.status_text()
        )),
    }
}

/// The body as JSON. Through [`serde_json::Value`], like every document of the client: one parser for all types keeps the wasm
/// small.
async fn read<T: DeserializeOwned>(response: &Response) -> Result<T, RelayFault> {
    let garbled =
        |error: serde_json::Error| RelayFault::Unreachable(format!("the answer is not a relay's: {error}"));
    let text = response.text().await.map_err(unreachable)?;
    let document: serde_json::Value = serde_json::from_str(&text).map_err(garbled)?;
    T::deserialize(&document).map_err(garbled)
}

impl HttpRelay {
    /// The relay at `origin` (`https://relay.example`, without a slash at the end).
    pub fn new(origin: &str, task: TaskId) -> Self {
        Self {
            origin: origin.trim_end_matches('/').to_owned(),
            task,
        }
    }

    /// Address of something of the task.
    pub fn url(&self, what: &str) -> String {
        format!("{}/v1/tasks/{}/{what}", self.origin, self.task)
    }

    async fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T, RelayFault> {
        read(&fetch(Request::get(&self.url(what)), RequestBuilder::build).await?).await
    }
}

impl Relay for HttpRelay {
    async fn manifest(&self) -> Result<(Vec<u8>, ContentHash), RelayFault> {
        let response = fetch(Request::get(&self.url("manifest")), RequestBuilder::build).await?;
        let announced = response
            .headers()
            .get("unsaid-content-hash")
            .and_then(|hash| hash.parse().ok());
        let announced =
            announced.ok_or_else(|| RelayFault::Unreachable("no manifest hash was announced".into()))?;
        Ok((response.binary().await.map_err(unreachable)?, announced))
    }

    async fn round(&self) -> Result<RoundState, RelayFault> {
        self.get("round").await
    }

    async fn rounds(&self) -> Result<Vec<RoundMetrics>, RelayFault> {
        self.get("rounds").await
    }

    async fn check_in(&self, message: &CheckIn) -> Result<CheckInReply, RelayFault> {
        let body =
            serde_json::to_string(message).map_err(|error| RelayFault::Unreachable(error.to_string()))?;
        let request = Request::post(&self.url("check-in")).header("content-type", "application/json");
        read(&fetch(request, |request| request.body(body)).await?).await
    }

    async fn model(&self, hash: ContentHash) -> Result<Vec<u8>, RelayFault> {
        let request = Request::get(&self.url(&format!("models/{hash}")));
        fetch(request, RequestBuilder::build)
            .await?
            .binary()
            .await
            .map_err(unreachable)
    }

    async fn send(&self, frame: &[u8]) -> Result<UpdateReply, RelayFault> {
        let request = Request::post(&format!("{}{}", self.origin, UpdateFrame::path(&self.task)))
            .header("content-type", "application/vnd.unsaid.update");
        read(&fetch(request, |request| request.body(js_sys::Uint8Array::from(frame))).await?).await
    }
}
