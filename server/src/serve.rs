//! Serving on a listener, within bounds on how many connections there are, and on how long one may say nothing.
//!
//! What a request's body may take is bounded where it is read ([`crate::http::body`]); here it is what comes before a request:
//! connections that are opened and left, handshakes and heads that trickle in, and connections kept between two requests.

use std::{
    future,
    io::ErrorKind,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    http::{app, forwarded, limits::Peer},
    relay::Relay,
    tls,
};

mod open;
mod places;

use self::{
    open::{Answering, OpenRequests},
    places::{Place, Places},
};

/// How long to wait where no connection can be taken, mostly because the process has no file descriptors left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Connections that wait to be taken; the operating system may allow fewer (on Linux `net.core.somaxconn`).
#[cfg(unix)]
const QUEUE: i32 = 4_096;

/// Bytes of a body that an HTTP/2 peer may send before they are read; twice as many on a connection. They are beyond the bound on
/// the memory of uploads.
const STREAM_WINDOW: u32 = 128 << 10;

/// Requests that one HTTP/2 connection may have open at a time. A page needs a few, and its event stream.
const MAX_STREAMS: u32 = 32;

/// The most bytes of a connection that are read at once, and the most of a request's head. A connection keeps its buffer until it ends.
/// Hyper's begins with 8 kB, and reads of 16 to 128 kB are put behind what it held before, so that it grows to 24, 56, 120 and 248 kB: it
/// stays at one of these sizes where that is the most.
const READ_BUFFER: usize = 24 << 10;

/// The same for some connections, the first that come: a relay that has few takes their updates with fewer readings.
const LARGE_READ_BUFFER: usize = 248 << 10;
const LARGE_READ_BUFFERS: usize = 64;

/// Serves `relay` on `listener` until `told`; then takes no more connections, ends event streams, and returns once the requests
/// that are being answered have been. The caller decides how long it waits for that.
pub async fn serve(listener: TcpListener, relay: Arc<Relay>, told: impl Future<Output = ()>) {
    let mut told = pin!(told);
    widen(&listener);
    let app = app(relay.clone());
    let places = Places::new(
        relay.options.max_connections,
        relay.options.connections_per_address,
        &relay.options.proxies,
    );
    let large_buffers = Arc::new(Semaphore::new(LARGE_READ_BUFFERS));
    let (stop, stopping) = watch::channel(false);
    loop {
        let ((stream, peer), place) = tokio::select! {
            () = &mut told => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (relay, app, stopping) = (relay.clone(), app.clone(), stopping.clone());
        let large_buffer = large_buffers.clone().try_acquire_owned().ok();
        tokio::spawn(async move {
            let connection = Connection {
                relay,
                app,
                peer,
                stopping,
                large_buffer,
            };
            if let Err(error) = connection.serve(stream).await {
                tracing::trace!(%error, "a connection ended");
            }
            drop(place);
        });
    }
    drop((listener, stopping));
    relay.begin_shutdown();
    stop.send_replace(true);
    stop.closed().await; // once the last connection has dropped its receiver
}

/// Lets [`QUEUE`] connections wait to be taken, where the standard library asks for 128: of more that come at once, the operating system
/// drops the first packet, and each tries again a second later.
fn widen(listener: &TcpListener) {
    #[cfg(unix)]
    if let Err(error) = rustix::net::listen(listener, QUEUE) {
        tracing::warn!(%error, "the queue of connections stays short");
    }
    #[cfg(not(unix))]
    let _ = listener;
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

struct Connection {
    relay: Arc<Relay>,
    app: Router,
    peer: SocketAddr,
    stopping: watch::Receiver<bool>,
    /// Held by those that may have one, until they end.
    large_buffer: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn serve(self, stream: TcpStream) -> Ended {
        let Some(config) = self.relay.options.tls.clone() else {
            return self.http_1(stream).await;
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = tokio::time::timeout(self.relay.options.head_timeout, handshake).await??;
        match stream.get_ref().1.alpn_protocol() {
            Some(tls::HTTP_2) => self.http_2(stream).await,
            _ => self.http_1(stream).await,
        }
    }

    async fn http_1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Ended {
        let mut http = http1::Builder::new();
        // The time runs from the end of one request, or from the connection's start, until the next head is whole.
        http.timer(TokioTimer::new())
            .max_buf_size(match self.large_buffer {
                Some(_) => LARGE_READ_BUFFER,
                None => READ_BUFFER,
            })
            .max_header_size(READ_BUFFER)
            .header_read_timeout(self.relay.options.head_timeout);
        let open = OpenRequests::default();
        let untaken = self.untaken(&open);
        let service = self.service(open);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        self.drive(Box::pin(connection), untaken, future::pending()).await
    }

    async fn http_2(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Ended {
        self.large_buffer = None; // its own are of another kind
        let mut http = http2::Builder::new(TokioExecutor::new());
        // A peer that is gone is noticed by a ping that comes back no more.
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(open::PIECE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(2 * STREAM_WINDOW)
            .keep_alive_interval(self.relay.options.head_timeout)
            .keep_alive_timeout(self.relay.options.head_timeout);
        let open = OpenRequests::default();
        // Neither the preface nor the time between two requests has a bound in hyper.
        let silence = open.none_for(self.relay.options.head_timeout);
        let untaken = self.untaken(&open);
        let connection = http.serve_connection(TokioIo::new(stream), self.service(open));
        self.drive(Box::pin(connection), untaken, silence).await
    }

    /// Waits until an answer is not taken for too long. A proxy that was named carries many clients' answers, and judges them itself.
    fn untaken(&self, open: &OpenRequests) -> impl Future<Output = ()> + use<> {
        let options = &self.relay.options;
        let is_proxy = options.proxies.iter().any(|proxy| proxy.contains(self.peer.ip()));
        let untaken = (!is_proxy).then(|| open.untaken_for(options.answer_timeout));
        async {
            match untaken {
                Some(untaken) => untaken.await,
                None => future::pending().await,
            }
        }
    }

    /// The relay's router, told whom each request comes from. A request is open until its answer's last byte was taken.
    fn service(
        &self,
        open: OpenRequests,
    ) -> impl Service<
        Request<Incoming>,
        Response = axum::response::Response,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    >
    + Send
    + 'static
    + use<> {
        let app = TowerToHyperService::new(self.app.clone());
        let (relay, peer) = (self.relay.clone(), self.peer.ip());
        service_fn(move |mut request: Request<Incoming>| {
            let from = forwarded::origin(peer, request.headers(), &relay.options.proxies);
            request.extensions_mut().insert(Peer(from));
            let (answer, one) = (app.call(request), open.begin());
            async move { Ok(answer.await?.map(|body| Body::new(Answering::new(body, one)))) }
        })
    }

    /// Answers requests until the connection ends, or an answer is `untaken` for too long. It takes no more once the relay
    /// stops, or after `silence`; then what is under way has as long again. The connection lies apart: passed on, it would take its place
    /// once in every future that it goes through.
    async fn drive<C>(
        self,
        connection: Pin<Box<C>>,
        untaken: impl Future<Output = ()>,
        silence: impl Future<Output = ()>,
    ) -> Ended
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        tokio::select! {
            ended = self.answer(connection, silence) => ended,
            () = untaken => Err("an answer was not taken".into()),
        }
    }

    async fn answer<C>(mut self, mut connection: Pin<Box<C>>, silence: impl Future<Output = ()>) -> Ended
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut silence = pin!(silence);
        let stopping = async { drop(self.stopping.wait_for(|&stopping| stopping).await) };
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = stopping => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => return Ok(ended?),
                    () = silence.as_mut() => {}
                }
            }
            () = silence.as_mut() => connection.as_mut().graceful_shutdown(),
        }
        Ok(tokio::time::timeout(self.relay.options.head_timeout, connection).await??)
    }
}

/// The next connection, once there is a place for it. More wait in the operating system's queue; one from an address that has
/// as many as it may is closed at once.
async fn accept(listener: &TcpListener, places: &Arc<Places>) -> ((TcpStream, SocketAddr), Place) {
    loop {
        let one = places.free().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = places.take(one, peer.ip()) {
                    return ((stream, peer), place);
                }
            }
            Err(error) if is_of_one_connection(error.kind()) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken; trying again");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Whether an error at accepting says nothing about the next connection.
const fn is_of_one_connection(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}
