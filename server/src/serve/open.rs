//! The requests of one connection that are open: from their head until the last byte of the answer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
    /// The answers of which pieces were handed on that are not written yet.
    behind: Mutex<Vec<Behind>>,
    /// The number of the next request.
    next: AtomicU64,
}

/// An answer that the peer has to take more of.
#[derive(Debug)]
struct Behind {
    request: u64,
    pieces: usize,
    /// When the first of them was handed on, or the last before it was written.
    since: Instant,
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
        OpenRequest {
            all: self.clone(),
            number: self.0.next.fetch_add(1, Ordering::Relaxed),
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

    /// Waits until the peer has taken no piece of an answer for a whole `span`. An event stream on which nothing happens has no
    /// piece to take.
    pub fn untaken_for(&self, span: Duration) -> impl Future<Output = ()> + use<> {
        let (requests, mut open) = (self.0.clone(), self.0.open.subscribe());
        async move {
            loop {
                // While none is open, nothing runs out.
                if open.wait_for(|&open| open > 0).await.is_err() {
                    return std::future::pending().await;
                }
                let since = requests.behind().iter().map(|behind| behind.since).min();
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
    fn behind(&self) -> MutexGuard<'_, Vec<Behind>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// A piece of its answer is handed on.
    fn gave(&self) {
        let mut behind = self.all.0.behind();
        match behind.iter_mut().find(|behind| behind.request == self.number) {
            Some(behind) => behind.pieces += 1,
            None => behind.push(Behind {
                request: self.number,
                pieces: 1,
                since: Instant::now(),
            }),
        }
    }

    /// A piece was written, or will never be.
    fn took(&self) {
        let mut behind = self.all.0.behind();
        for one in behind.iter_mut().filter(|behind| behind.request == self.number) {
            one.pieces -= 1;
            one.since = Instant::now();
        }
        behind.retain(|behind| behind.pieces > 0);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.all.0.open.send_modify(|open| *open -= 1);
    }
}

/// The most bytes of an answer that are handed on at once. HTTP/2 takes a whole piece, however slowly the peer takes its
/// bytes: were a model one piece, a peer that takes it slowly would seem to take nothing.
pub const PIECE: usize = 65_536;

/// A piece of an answer, for as long as some of it is to be written. Its request is open until then, too: when an answer's body is at its
/// end, its last bytes may be waiting for the peer.
struct Piece {
    bytes: Bytes,
    open: Arc<OpenRequest>,
}

impl Piece {
    fn new(bytes: Bytes, open: Arc<OpenRequest>) -> Self {
        open.gave();
        Self { bytes, open }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.open.took();
    }
}

/// An answer's body, with its request: an event stream's is open for as long as it flows.
#[derive(Debug)]
pub struct Answering {
    body: Body,
    rest: Bytes,
    open: Arc<OpenRequest>,
}

impl Answering {
    /// The body of the answer to `open`.
    pub fn new(body: Body, open: OpenRequest) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            open: Arc::new(open),
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
        let piece = Piece::new(self.rest.split_to(length), self.open.clone());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SPAN: Duration = Duration::from_millis(60);

    /// The next piece of a body.
    async fn piece(body: &mut Answering) -> Bytes {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn a_request_is_open_and_behind_until_its_last_piece_was_written() {
        let open = OpenRequests::default();
        let mut body = Answering::new(Body::from(vec![7; 2 * PIECE]), open.begin());
        let (one, two) = (piece(&mut body).await, piece(&mut body).await);
        assert_eq!((one.len(), two.len()), (PIECE, PIECE));
        assert!(body.is_end_stream());
        drop(body);
        let before = open.0.behind()[0].since;
        drop(one);
        assert!(
            open.0.behind()[0].since > before,
            "a piece that is written begins the time anew"
        );
        assert_eq!(*open.0.open.borrow(), 1, "two is not written");
        let untaken = tokio::time::timeout(100 * SPAN, open.untaken_for(SPAN));
        untaken.await.expect("two is not taken");
        drop(two);
        assert_eq!(*open.0.open.borrow(), 0);
        assert!(open.0.behind().is_empty());
    }

    #[tokio::test]
    async fn what_has_nothing_to_write_is_not_behind() {
        let open = OpenRequests::default();
        let mut body = Answering::new(Body::from("an event"), open.begin());
        drop(piece(&mut body).await);
        tokio::time::sleep(2 * SPAN).await;
        assert!(open.untaken_for(SPAN).now_or_never().is_none());
        let untaken = tokio::time::timeout(3 * SPAN, open.untaken_for(SPAN));
        assert!(untaken.await.is_err());
    }
}
