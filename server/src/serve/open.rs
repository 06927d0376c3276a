//! The requests of one connection that are open: from their head until the last byte of the answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::watch, time::Instant};

/// Which requests are open.
#[derive(Debug, Clone, Default)]
pub struct OpenRequests(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// How many.
    open: watch::Sender<usize>,
    /// The answers of which a piece was handed on and the next not asked for yet, by their numbers, and since when.
    behind: Mutex<Vec<(u64, Instant)>>,
    /// The number of the next request.
    next: Mutex<u64>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenRequest {
    all: OpenRequests,
    number: u64,
}

impl OpenRequests {
    /// Opens one.
    pub fn begin(&self) -> OpenRequest {
        self.0.open.send_modify(|open| *open += 1);
        let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        OpenRequest {
            all: self.clone(),
            number: *next,
        }
    }

    /// Waits until for a whole `span` none was open, and none was opened.
    pub fn none_for(&self, span: Duration) -> impl Future<Output = ()> + use<> {
        let mut open = self.0.open.subscribe();
        async move {
            // An error says that the connection is gone, and its counter with it.
            while open.wait_for(|&open| open == 0).await.is_ok() {
                if tokio::time::timeout(span, open.changed()).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Waits until the peer has not taken a piece of an answer for a whole `span`. An event stream on which nothing happens
    /// has no piece to take.
    pub fn untaken_for(&self, span: Duration) -> impl Future<Output = ()> + use<> {
        let (requests, mut open) = (self.0.clone(), self.0.open.subscribe());
        async move {
            loop {
                // While none is open, nothing runs out.
                if open.wait_for(|&open| open > 0).await.is_err() {
                    return std::future::pending().await;
                }
                let since = requests.behind().iter().map(|&(_, since)| since).min();
                // What is handed on in the meantime runs out later than this.
                let end = since.unwrap_or_else(Instant::now) + span;
                if since.is_some() && end <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(end).await;
            }
        }
    }
}

impl Requests {
    fn behind(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// A piece of its answer was handed on.
    fn gave(&self) {
        self.all.0.behind().push((self.number, Instant::now()));
    }

    /// What was handed on was taken: more is asked for, or it is over.
    fn taken(&self) {
        self.all.0.behind().retain(|&(number, _)| number != self.number);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.taken();
        self.all.0.open.send_modify(|open| *open -= 1);
    }
}

/// The most bytes of an answer that are handed on at once. HTTP/2 takes a whole piece, however slowly the peer takes its
/// bytes: were a model one piece, its request would seem answered long before it is.
pub const PIECE: usize = 65_536;

/// An answer's body, with its request: an event stream's is open for as long as it flows.
#[derive(Debug)]
pub struct Answering {
    body: Body,
    rest: Bytes,
    open: OpenRequest,
}

impl Answering {
    /// The body of the answer to `open`.
    pub fn new(body: Body, open: OpenRequest) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            open,
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
        self.open.taken();
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
        let piece = self.rest.split_to(length);
        self.open.gave();
        Poll::Ready(Some(Ok(Frame::data(piece))))
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
