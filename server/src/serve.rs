//! Serving on a listener, within bounds on how many connections there are, and on how long one may say nothing.
//!
//! What a request's body may take is bounded where it is read ([`crate::http::body`]); here it is what comes before a request:
//! connections that are opened and left, heads that trickle in, and connections kept between two requests.

use std::{io::ErrorKind, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{http::app, relay::Relay};

/// How long to wait where no connection can be taken, mostly because the process has no file descriptors left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Serves `relay` on `listener` until `told`; then takes no more connections, ends event streams, and returns once the requests
/// that are being answered have been. The caller decides how long it waits for that.
pub async fn serve(listener: TcpListener, relay: Arc<Relay>, told: impl Future<Output = ()>) {
    let mut told = pin!(told);
    let service = TowerToHyperService::new(app(relay.clone()));
    let mut http = http1::Builder::new();
    // The time runs from the end of one request, or from the connection's start, until the next head is whole.
    http.timer(TokioTimer::new())
        .header_read_timeout(relay.options.head_timeout);
    let places = Arc::new(Semaphore::new(relay.options.max_connections));
    let connections = GracefulShutdown::new();
    loop {
        let (stream, place) = tokio::select! {
            () = &mut told => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    relay.begin_shutdown();
    connections.shutdown().await;
}

/// The next connection, once there is a place for it. More wait in the operating system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let place = places.clone().acquire_owned().await.ok(); // none only where places are closed, which they never are
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
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
