//! The requests of one connection that are open: from their head until the last byte of the answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

/// How many requests are open.
#[derive(Debug, Clone, Default)]
pub struct OpenRequests(Arc<watch::Sender<usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenRequest(OpenRequests);

impl OpenRequests {
    /// Opens one.
    pub fn begin(&self) -> OpenRequest {
        self.0.send_modify(|open| *open += 1);
        OpenRequest(self.clone())
    }

    /// Waits until for a whole `span` none was open, and none was opened.
    pub fn none_for(&self, span: Duration) -> impl Future<Output = ()> + use<> {
        let mut open = self.0.subscribe();
        async move {
            // An error says that the connection is gone, and its counter with it.
            while open.wait_for(|&open| open == 0).await.is_ok() {
                if tokio::time::timeout(span, open.changed()).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}

/// The most bytes of an answer that are handed on at once. HTTP/2 takes a whole piece, however slowly the peer takes its
/// bytes: were a model one piece, its request would seem answered long before it is.
const PIECE: usize = 65_536;

/// An answer's body, with its request: an event stream's is open for as long as it flows.
#[derive(Debug)]
pub struct Answering {
    body: Body,
    rest: Bytes,
    _open: OpenRequest,
}

impl Answering {
    /// The body of the answer to `open`.
    pub fn new(body: Body, open: OpenRequest) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            _open: open,
        }
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}
