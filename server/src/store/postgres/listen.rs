//! Tells relays of each other's commits (`LISTEN` and `NOTIFY`).

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use unsaid_protocol::TaskId;

use super::{
    super::{StoreError, Told},
    link::{in_time, said},
};

/// The channel. Its messages are `task version`.
pub(super) const CHANNEL: &str = "unsaid";

/// How long to wait before connecting again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Who wants to be told of which task.
#[derive(Default)]
pub(super) struct Watchers(Mutex<HashMap<String, Vec<Told>>>);

impl Watchers {
    pub(super) fn add(&self, task: &TaskId, told: Told) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.entry(task.as_str().to_owned()).or_default().push(told);
    }

    fn tell(&self, message: &str) {
        let Some((task, version)) = message.split_once(' ') else {
            return;
        };
        let watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for told in watchers.get(task).into_iter().flatten() {
            told(version.parse().unwrap_or(u64::MAX)); // what cannot be read may be anything
        }
    }

    /// Commits may have been missed.
    fn tell_all(&self) {
        let watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.values().flatten().for_each(|told| told(u64::MAX));
    }
}

/// Listens for ever. Where the connection ends, everyone is told at once (the database may be gone), and again when there is
/// another one.
pub(super) async fn listen(config: Config, tls: Option<MakeRustlsConnect>, watchers: Arc<Watchers>) {
    loop {
        let ended = match &tls {
            Some(tls) => match in_time(&config, config.connect(tls.clone())).await {
                Ok((client, connection)) => follow(&config, &client, connection, &watchers).await,
                Err(error) => error,
            },
            None => match in_time(&config, config.connect(NoTls)).await {
                Ok((client, connection)) => follow(&config, &client, connection, &watchers).await,
                Err(error) => error,
            },
        };
        tracing::warn!(error = %ended, "other relays' commits are not heard of; connecting again");
        watchers.tell_all();
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Passes on what the connection says until it ends.
async fn follow<S, T>(
    config: &Config,
    client: &Client,
    mut connection: Connection<S, T>,
    watchers: &Watchers,
) -> StoreError
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let sql = format!("LISTEN {CHANNEL}");
    let mut begun = std::pin::pin!(in_time(config, client.batch_execute(&sql)));
    let mut listening = false;
    loop {
        let message = tokio::select! {
            done = begun.as_mut(), if !listening => {
                if let Err(error) = done {
                    return error;
                }
                listening = true;
                watchers.tell_all(); // of what was committed before
                continue;
            }
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(note))) => watchers.tell(note.payload()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return said(error),
            None => return StoreError("the connection was closed".into()),
        }
    }
}
