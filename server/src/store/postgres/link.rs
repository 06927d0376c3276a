//! Connections to the database, for callers that block.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Handle, Runtime},
    task::AbortHandle,
};
use tokio_postgres::{
    Client, Config, Connection, NoTls, Socket,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::super::StoreError;

/// The longest that a connection to one host may take to be made. As long again for TLS and the session's beginning.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that the database may take for one piece of work. Longer than each of the database's own limits below, so that
/// it is the database that says what took so long, unless it says nothing any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// The longest that it may take for what moves few bytes, however large the model: to begin a turn, or to enrol. Longer than the
/// 10 s that it waits for a lock, and short enough that clients are told to come again before their own patience ends.
pub(super) const SOON: Duration = Duration::from_secs(15);

/// How long nobody reads outside of turns after a connection could not be made: each try may take [`CONNECT_TIMEOUT`].
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What every session begins with. A relay whose machine is gone loses its hold on a task after 11 s, one that takes nothing from its
/// socket any more after 10 s, and one that says nothing in its turn after 20 s. An acknowledgement needs the commit on the disk.
const SESSION: &str = "
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '20s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '10s';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The address is none.
    #[error("the database's address cannot be read: {0}")]
    Address(#[from] tokio_postgres::Error),
    /// The address asks for a way of encryption that there is under another name.
    #[error(
        "the address says sslmode=verify-ca or verify-full: the certificate and its name are always checked where the connection is \
         encrypted, so say sslmode=require, or nothing"
    )]
    SslMode,
    /// An authority was given, and the address says that nothing is encrypted.
    #[error(
        "the address says sslmode=disable, and an authority was given to check a certificate against: leave out one of them"
    )]
    Plain,
    /// The certificates to trust cannot be read.
    #[error("the certificates that the database's is checked against cannot be read: {0}")]
    Certificates(String),
    /// The operating system starts no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// It cannot be reached, or does not do what it is asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The way to one database.
pub(super) struct Link {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// Drives the connections; none only while this is dropped.
    runtime: Option<Runtime>,
    idle: Mutex<Vec<Arc<Client>>>,
    /// When a connection could not be made, or got no answer, unless one was made since.
    failed: Mutex<Option<Instant>>,
}

impl Link {
    /// Reads the address and what TLS needs. Nothing is connected yet.
    pub(super) fn new(address: &str, authority: Option<&Path>) -> Result<Self, DatabaseError> {
        let mut config: Config = match address.parse() {
            Err(_) if address.contains("sslmode=verify-") => return Err(DatabaseError::SslMode),
            parsed => parsed?,
        };
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("unsaid-relay");
        }
        if config.get_hosts().len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite); // of replicas, the one that can be written to
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Disable if authority.is_some() => return Err(DatabaseError::Plain),
            SslMode::Disable => None,
            SslMode::Prefer if authority.is_none() && is_here(&config) => None,
            _ => {
                config.ssl_mode(SslMode::Require);
                Some(MakeRustlsConnect::new(trust(authority)?))
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("database")
            .enable_all()
            .build()?;
        Ok(Self {
            config,
            tls,
            runtime: Some(runtime),
            idle: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    /// Waits for `work`, from any thread.
    pub(super) fn wait<T: Send>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.wait_at_most(PATIENCE, work)
    }

    /// As [`Link::wait`], for less long.
    pub(super) fn wait_at_most<T: Send>(
        &self,
        most: Duration,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let Some(runtime) = &self.runtime else {
            return Err(StoreError("the relay is stopping".into()));
        };
        let bounded = async {
            let done = tokio::time::timeout(most, work).await;
            done.unwrap_or_else(|_| {
                self.forget();
                Err(StoreError("the database does not answer".into()))
            })
        };
        if Handle::try_current().is_err() {
            return runtime.block_on(bounded);
        }
        // A thread that drives another runtime may not block on this one.
        let lent = thread::scope(|scope| scope.spawn(|| runtime.block_on(bounded)).join());
        lent.unwrap_or_else(|_| Err(StoreError("a thread of the database's panicked".into())))
    }

    /// A connection that nobody else uses.
    pub(super) fn take(&self) -> Result<Arc<Client>, StoreError> {
        match self.idle() {
            Some(client) => Ok(client),
            None => self.wait(self.connect()),
        }
    }

    /// As [`Link::take`], but where a connection could not be made a moment ago this one is not waited for, either.
    pub(super) async fn take_if_reachable(&self) -> Result<Arc<Client>, StoreError> {
        if let Some(client) = self.idle() {
            return Ok(client);
        }
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some_and(|at| at.elapsed() < TRY_AGAIN_AFTER) {
            return Err(StoreError(
                "the database could not be reached a moment ago".into(),
            ));
        }
        self.connect().await
    }

    fn idle(&self) -> Option<Arc<Client>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|client| !client.is_closed())
    }

    /// Gives a connection back, outside of any transaction.
    pub(super) fn give(&self, client: Arc<Client>) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(client);
    }

    /// Closes the connections that nobody uses: where one got no answer, each of the others would be waited for, too.
    fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    async fn connect(&self) -> Result<Arc<Client>, StoreError> {
        let connected = in_time(&self.config, async {
            let client = match &self.tls {
                Some(tls) => drive(self.config.connect(tls.clone()).await?),
                None => drive(self.config.connect(NoTls).await?),
            };
            client.batch_execute(SESSION).await?;
            Ok(client)
        });
        let connected = connected.await;
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = connected.is_err().then(Instant::now);
        connected.map(Arc::new)
    }

    /// Starts `work`, which goes on until it ends, is aborted, or this is dropped.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let runtime = self.runtime.as_ref()?;
        Some(runtime.spawn(work).abort_handle())
    }

    /// What a listener needs to connect by itself.
    pub(super) fn address(&self) -> (Config, Option<MakeRustlsConnect>) {
        (self.config.clone(), self.tls.clone())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // waiting for it is not allowed on a thread that drives another
        }
    }
}

/// Waits for what begins a session with one of the hosts of `config`, for a bounded time.
pub(super) async fn in_time<T>(
    config: &Config,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
    let most = CONNECT_TIMEOUT.saturating_mul(hosts.saturating_add(1));
    let silent = |_| StoreError("the database does not answer".into());
    tokio::time::timeout(most, work)
        .await
        .map_err(silent)?
        .map_err(said)
}

/// Drives a connection on the current runtime for as long as its client is there.
fn drive<S>((client, connection): (Client, Connection<Socket, S>)) -> Client
where
    Connection<Socket, S>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    tokio::spawn(async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the database ended");
        }
    });
    client
}

/// Whether the database is on this machine, so that nobody in between could read along.
fn is_here(config: &Config) -> bool {
    let loopback = |host: &Host| match host {
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(loopback) && config.get_hostaddrs().iter().all(|it| it.is_loopback())
}

/// Whom to trust: the authority of a file (PEM), or those that the operating system trusts.
fn trust(authority: Option<&Path>) -> Result<ClientConfig, DatabaseError> {
    let unreadable = |error: String| DatabaseError::Certificates(error);
    let mut roots = RootCertStore::empty();
    match authority {
        Some(file) => {
            let named = |error: &dyn std::fmt::Display| unreadable(format!("{}: {error}", file.display()));
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| named(&error))? {
                let certificate = certificate.map_err(|error| named(&error))?;
                roots.add(certificate).map_err(|error| named(&error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(unreadable("there is none".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What the database said. Without its causes a [`tokio_postgres::Error`] says little.
pub(super) fn said(error: tokio_postgres::Error) -> StoreError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    StoreError(text)
}
