//! A running relay: its tasks, and what the HTTP side needs of each.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use axum::{body::Bytes, http::HeaderValue};
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use unsaid_protocol::TaskId;

use crate::{
    actor::{Actor, Command, Outlook},
    clock::Clock,
    evaluate::{self, HeldOutError},
    fall::Falls,
    http::{
        admin::{AdminToken, RefusedTokens},
        claims::Claims,
        forwarded::Network,
        identities::{EnrolmentLimits, Enrolments},
        limits::{Limits, RateLimit},
        metrics::Requests,
        models::ModelCache,
        status::Tally,
        uploads::Uploads,
    },
    key::RelayKey,
    live::{OpenError, TaskConfig},
    store::Store,
    task_file::Task,
};

/// Commands that wait for a task beyond the updates being received; one more is told to come back.
const MAILBOX: usize = 4_096;

/// Settings of a relay.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Folder of the page, served at `/`.
    pub page: Option<PathBuf>,
    /// Folder of the demo's data, served at `/data/`; held-out examples are read from here.
    pub data: Option<PathBuf>,
    /// Updates that are received at the same time; more wait their turn.
    pub max_uploads: usize,
    /// Bytes that their coordinates may take together, four for each; more updates wait their turn. Where uploads per address are bounded, one
    /// address has at most a quarter of them, or one update that is larger.
    pub upload_memory: u64,
    /// Of the updates that are received at the same time, how many one address may have; none for any number.
    pub uploads_per_address: Option<usize>,
    /// The longest that an upload may take, waiting included.
    pub upload_timeout: Duration,
    /// The longest that an upload may go without a byte once it has its turn.
    pub upload_silence: Duration,
    /// Time between comments that keep an idle event stream open.
    pub keep_alive: Duration,
    /// The longest that a connection may take to send a request's head, from its start or from the end of the request before.
    pub head_timeout: Duration,
    /// Connections at the same time; more wait their turn. An event stream is a connection too.
    pub max_connections: usize,
    /// Of these, how many one address may have, at least one; none for any number. More are closed at once.
    pub connections_per_address: Option<usize>,
    /// The longest that a peer may take over 64 kB of an answer; then its connection is closed.
    pub answer_timeout: Duration,
    /// Proxies in front: of requests that they pass on, the address counts that they say ([`origin`](crate::http::forwarded::origin)).
    pub proxies: Vec<Network>,
    /// How many requests one address may make; none for any number.
    pub rate_limit: Option<RateLimit>,
    /// The pages elsewhere that may use the relay, by their origins; none for all.
    pub origins: Option<Vec<HeaderValue>>,
    /// The operator's token; none for a relay without operator's routes.
    pub admin_token: Option<AdminToken>,
    /// The folder to which task files of added tasks are written; none where none can be added.
    pub tasks: Option<PathBuf>,
    /// What replaces values of every task file, written as in TOML (`rounds.target_clients=4`): of added ones, too.
    pub overrides: Vec<String>,
    /// The key that manifests are signed with, and that signatures of identities name; none for a relay that signs nothing.
    pub key: Option<RelayKey>,
    /// How many identities may be enrolled without an invitation.
    pub enrolment: EnrolmentLimits,
    /// Certificate and key; none for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            page: None,
            data: None,
            max_uploads: 128,
            upload_memory: 512 << 20,
            uploads_per_address: Some(32),
            upload_timeout: Duration::from_secs(60),
            upload_silence: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            head_timeout: Duration::from_secs(30),
            max_connections: 4_096,
            connections_per_address: Some(2_048),
            answer_timeout: Duration::from_secs(60),
            proxies: Vec::new(),
            rate_limit: None,
            origins: None,
            admin_token: None,
            tasks: None,
            overrides: Vec::new(),
            key: None,
            enrolment: EnrolmentLimits::default(),
            tls: None,
        }
    }
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Two task files have the same id.
    #[error("two task files have the id {0}")]
    TwiceTheSame(TaskId),
    /// A task cannot start.
    #[error("task {task}: {source}")]
    Open {
        /// The task.
        task: TaskId,
        /// Why.
        source: OpenError,
    },
    /// A task cannot be evaluated.
    #[error("task {task}: {source}")]
    HeldOut {
        /// The task.
        task: TaskId,
        /// Why.
        source: HeldOutError,
    },
    /// A task asks for identities, and the relay has no key for them to name.
    #[error(
        "task {0} asks for identities, and for that the relay needs a key: make one (unsaid-relay key new FILE), and give it with --key FILE"
    )]
    NoKey(TaskId),
    /// The relay ends.
    #[error("the relay is stopping: add the task once it has started again")]
    Stopping,
    /// The operating system starts no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// One task, as the HTTP side sees it.
pub struct TaskHandle {
    /// What does not change.
    pub config: Arc<TaskConfig>,
    /// The relay's signature of the manifest, where it signs.
    pub signature: Option<String>,
    /// What readers see.
    pub outlook: Outlook,
    pub(crate) mailbox: mpsc::SyncSender<Command>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) models: ModelCache,
    pub(crate) tally: Tally,
}

/// A running relay.
pub struct Relay {
    tasks: RwLock<BTreeMap<TaskId, Arc<TaskHandle>>>,
    /// Held while a task starts, and while all are told to stop: two of one id cannot both start, and none starts after the last
    /// was told. Readers of `tasks` do not wait for it.
    starting: Mutex<()>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: RelayOptions,
    pub(crate) uploads: Uploads,
    pub(crate) claims: Claims,
    pub(crate) limits: Option<Limits>,
    pub(crate) enrolments: Enrolments,
    pub(crate) requests: Requests,
    pub(crate) refused_tokens: RefusedTokens,
    pub(crate) started_ms: u64,
    /// The API's description, once somebody has asked for it.
    pub(crate) description: OnceLock<Bytes>,
    stopping: watch::Sender<bool>,
    falls: Falls,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Relay {
    /// Starts `tasks`: each goes on where `store` says it was, or begins.
    ///
    /// # Errors
    /// [`StartError`], naming the task.
    pub fn open(
        tasks: Vec<Task>,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        options: RelayOptions,
    ) -> Result<Arc<Self>, StartError> {
        let falls = Falls::default();
        let mut handles = BTreeMap::new();
        let mut threads = Vec::new();
        for task in tasks {
            let id = task.manifest.task.clone();
            if handles.contains_key(&id) {
                return Err(StartError::TwiceTheSame(id));
            }
            handles.insert(
                id,
                Arc::new(start(task, store, clock, &options, &falls, &mut threads)?),
            );
        }
        Ok(Arc::new(Self {
            tasks: RwLock::new(handles),
            starting: Mutex::new(()),
            store: store.clone(),
            clock: clock.clone(),
            uploads: Uploads::new(
                options.max_uploads,
                options.uploads_per_address,
                options.upload_memory,
            ),
            claims: Claims::new(options.data.as_deref()),
            limits: options.rate_limit.map(Limits::new),
            enrolments: Enrolments::default(),
            requests: Requests::default(),
            refused_tokens: RefusedTokens::default(),
            started_ms: clock.now_ms(),
            description: OnceLock::new(),
            options,
            stopping: watch::Sender::new(false),
            falls,
            threads: Mutex::new(threads),
        }))
    }

    /// Starts one more task. Blocks.
    ///
    /// # Errors
    /// [`StartError`]; the others go on.
    pub fn add(&self, task: Task) -> Result<(), StartError> {
        let id = task.manifest.task.clone();
        let _one_at_a_time = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.stopping.borrow() {
            return Err(StartError::Stopping);
        }
        if self.handle(&id).is_some() {
            return Err(StartError::TwiceTheSame(id));
        }
        let mut threads = Vec::new();
        let handle = start(
            task,
            &self.store,
            &self.clock,
            &self.options,
            &self.falls,
            &mut threads,
        )?;
        // In front: those that were there are joined after them, and each task's own thread before its evaluation.
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .splice(..0, threads);
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        tasks.insert(id, Arc::new(handle));
        Ok(())
    }

    /// A task.
    pub fn handle(&self, id: &TaskId) -> Option<Arc<TaskHandle>> {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.get(id).cloned()
    }

    /// Every task, in the order of their ids.
    pub fn handles(&self) -> Vec<Arc<TaskHandle>> {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.values().cloned().collect()
    }

    /// The task of which a thread panicked, the first one; none so far. The task is not ready any more, and does nothing until the relay is
    /// started again.
    pub fn fallen(&self) -> Option<TaskId> {
        self.falls.first()
    }

    /// Waits until a thread of a task panics.
    pub async fn falls(&self) -> TaskId {
        self.falls.wait().await
    }

    /// Ends event streams, so that a server can wait for its connections.
    pub fn begin_shutdown(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends every task after what it was given. Blocks.
    pub fn stop(&self) {
        self.begin_shutdown();
        let _none_starts = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        for task in self.handles() {
            let _ = task.mailbox.send(Command::Stop); // it may have ended already
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join(); // one that panicked has said so
        }
    }

    /// Turns true when the relay shuts down.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start(
    task: Task,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    options: &RelayOptions,
    falls: &Falls,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<TaskHandle, StartError> {
    let id = task.manifest.task.clone();
    if task.identity.is_some() && options.key.is_none() {
        return Err(StartError::NoKey(id));
    }
    let held_out = match (&task.evaluation, &options.data) {
        (None, _) => Ok(None),
        (Some(shard), None) => Err(HeldOutError::NoFolder(shard.clone())),
        (Some(shard), Some(data)) => evaluate::read_held_out(&data.join(shard), &task.model).map(Some),
    };
    let held_out = held_out.map_err(|source| StartError::HeldOut {
        task: id.clone(),
        source,
    })?;
    let config = Arc::new(TaskConfig::new(task));
    let (mailbox, commands) = mpsc::sync_channel(MAILBOX + options.max_uploads);
    let (jobs, waiting) = mpsc::channel();
    let jobs = held_out.is_some().then_some(jobs);
    let (actor, outlook) =
        Actor::open(config.clone(), store.clone(), clock.clone(), jobs).map_err(|source| {
            StartError::Open {
                task: id.clone(),
                source,
            }
        })?;
    if let Some(examples) = held_out {
        let done = mailbox.clone();
        let done = move |metrics| drop(done.send(Command::Evaluated(metrics)));
        threads.push(evaluate::spawn(
            id.clone(),
            config.model.clone(),
            examples,
            store.clone(),
            waiting,
            done,
            falls.guard(&id, &outlook.healthy),
        )?);
    }
    let told = mailbox.clone();
    // Where the mailbox is full the task has a turn soon, and looks anyway.
    store.watch(
        &id,
        Box::new(move |version| drop(told.try_send(Command::Look(version)))),
    );
    threads.insert(0, actor.spawn(commands, falls.guard(&id, &outlook.healthy))?); // joined first: its end is what ends the evaluation
    let sign = |key: &RelayKey| key.sign_manifest(&config.manifest_json);
    Ok(TaskHandle {
        signature: options.key.as_ref().map(sign),
        config,
        outlook,
        mailbox,
        store: store.clone(),
        models: ModelCache::default(),
        tally: Tally::default(),
    })
}
