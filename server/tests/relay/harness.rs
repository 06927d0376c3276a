//! A relay on a free port, a client of it, and a store that fails when told to.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use unsaid_engine::Model;
use unsaid_protocol::{
    CheckInReply, ClientId, ContentHash, CoordinateWidth, Privacy, Problem, ProblemKind, RoundMetrics,
    RoundState, Shard, TaskId, UpdateFrame, UpdateId, UpdateReply,
};
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    lineage::RoundRecord,
    store::{Changes, RedbStore, Registry, Saved, Store, StoreError},
    task_file::Task,
};

/// Eight parameters, no noise, rounds of three.
pub const TASK: &str = include_str!("../tiny.toml");

pub const GRID_STEP: f64 = 1.0 / 1024.0;
pub const PARAMETERS: usize = 8;

pub fn task(overrides: &[&str]) -> Task {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    Task::parse("tiny.toml", TASK, &overrides).unwrap()
}

/// A page, and the demo's data: two shards and held-out examples.
/// A file `token` in a folder, which only its owner may read.
pub fn token_file(folder: &Path, token: &str) -> PathBuf {
    let path = folder.join("token");
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).unwrap();
    std::io::Write::write_all(&mut file, token.as_bytes()).unwrap();
    path
}

pub fn folders() -> (TempDir, RelayOptions) {
    let folder = TempDir::new().unwrap();
    let (page, data) = (folder.path().join("page"), folder.path().join("data"));
    std::fs::create_dir_all(page.join("assets")).unwrap();
    std::fs::create_dir_all(data.join("iid")).unwrap();
    std::fs::write(page.join("index.html"), "<title>page</title>").unwrap();
    std::fs::write(page.join("assets/a1.js"), "1").unwrap();
    let shard = Shard {
        features: 3,
        classes: 2,
        labels: vec![0, 1],
        pixels: vec![9, 0, 0, 0, 9, 9],
    };
    for name in ["iid/000.shard", "iid/001.shard", "test.shard"] {
        std::fs::write(data.join(name), shard.encode()).unwrap();
    }
    let options = RelayOptions {
        page: Some(page),
        data: Some(data),
        ..RelayOptions::default()
    };
    (folder, options)
}

pub struct TestRelay {
    pub relay: Arc<Relay>,
    pub api: Api,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
    _folder: Option<TempDir>,
}

impl TestRelay {
    /// A relay with a fresh store.
    pub async fn start(overrides: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
        let mut relay = Self::over(Arc::new(store), overrides, RelayOptions::default()).await;
        relay._folder = Some(folder);
        relay
    }

    pub async fn in_file(path: &Path, overrides: &[&str]) -> Self {
        Self::over(
            Arc::new(RedbStore::open(path).unwrap()),
            overrides,
            RelayOptions::default(),
        )
        .await
    }

    pub async fn over(store: Arc<dyn Store>, overrides: &[&str], options: RelayOptions) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let relay = Relay::open(vec![task(overrides)], &store, &clock, options).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let told = async move { drop(stopped.await) };
        let server = tokio::spawn(unsaid_relay::serve(listener, relay.clone(), told));
        Self {
            relay,
            api: Api {
                width: width(overrides),
                ..Api::new(&base)
            },
            stop: Some(stop),
            server,
            _folder: None,
        }
    }

    /// Ends it as an operator would, and gives the store back.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.server)
            .await
            .expect("it stops in time")
            .unwrap();
        let relay = self.relay;
        tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    }
}

/// An answer: a reply, or the kind of problem.
pub type Answer<T> = Result<T, ProblemKind>;

/// The calls of a client.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    pub http: reqwest::Client,
    /// That of its frames, where the task fixes it.
    pub width: Option<CoordinateWidth>,
}

/// The width that a task fixes.
pub fn width(overrides: &[&str]) -> Option<CoordinateWidth> {
    let task = task(overrides);
    let central = matches!(task.manifest.privacy, Privacy::Central(_));
    central.then(|| CoordinateWidth::for_bound(task.encoding.bound_squared()))
}

impl Api {
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            http: reqwest::Client::new(),
            width: None,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub async fn state(&self) -> RoundState {
        self.get("/v1/tasks/tiny/round").await.json().await.unwrap()
    }

    pub async fn rounds(&self) -> Vec<RoundMetrics> {
        self.get("/v1/tasks/tiny/rounds").await.json().await.unwrap()
    }

    pub async fn model(&self, hash: ContentHash) -> Vec<u8> {
        self.get(&format!("/v1/tasks/tiny/models/{hash}"))
            .await
            .bytes()
            .await
            .unwrap()
            .to_vec()
    }

    pub async fn try_check_in(
        &self,
        client: u8,
        manifest: ContentHash,
    ) -> reqwest::Result<Answer<CheckInReply>> {
        let body = serde_json::json!({ "client": client_id(client), "manifest": manifest });
        let url = self.url("/v1/tasks/tiny/check-in");
        answer(self.http.post(url).json(&body).send().await?).await
    }

    pub async fn check_in(&self, client: u8) -> Answer<CheckInReply> {
        let manifest = self.state().await.manifest;
        self.try_check_in(client, manifest).await.unwrap()
    }

    pub async fn try_send(&self, frame: Vec<u8>) -> reqwest::Result<Answer<UpdateReply>> {
        answer(self.update_request(frame).send().await?).await
    }

    pub async fn send(&self, frame: &UpdateFrame) -> Answer<UpdateReply> {
        self.try_send(frame.encode_in(self.width)).await.unwrap()
    }

    pub fn update_request(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.http.post(self.url("/v1/tasks/tiny/updates")).body(body);
        request.header("content-type", "application/vnd.unsaid.update")
    }

    /// A frame that the open round takes from `client`, if it checks in.
    pub async fn frame(&self, client: u8) -> UpdateFrame {
        frame(&self.state().await, client)
    }

    /// Check-in and update.
    pub async fn take_part(&self, client: u8) -> UpdateFrame {
        assert!(
            matches!(self.check_in(client).await, Ok(CheckInReply::Train { .. })),
            "client {client}"
        );
        let frame = self.frame(client).await;
        assert_eq!(self.send(&frame).await, Ok(accepted(&frame)), "client {client}");
        frame
    }
}

/// Reads an answer; an error must be a problem document that says the same as its status.
pub async fn answer<T: serde::de::DeserializeOwned>(
    response: reqwest::Response,
) -> reqwest::Result<Answer<T>> {
    let status = response.status().as_u16();
    if status == 200 {
        return response.json().await.map(Ok);
    }
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{status}"
    );
    let retry_after = response.headers().contains_key("retry-after");
    let problem: Problem = response.json().await?;
    let kind = problem.kind().expect("a known kind");
    assert_eq!((problem.status, kind.status()), (status, status), "{problem:?}");
    assert_eq!(retry_after, kind.is_temporary(), "{problem:?}");
    Ok(Err(kind))
}

pub fn client_id(client: u8) -> ClientId {
    ClientId::from_bytes([client; 16])
}

pub fn update_id(round: u64, client: u8) -> UpdateId {
    let mut bytes = [client; 16];
    bytes[..8].copy_from_slice(&round.to_le_bytes());
    UpdateId::from_bytes(bytes)
}

/// Coordinates that tell clients apart, well within the bound.
pub fn coordinates(client: u8) -> Vec<i32> {
    (0..PARAMETERS as i32)
        .map(|at| (i32::from(client) * 7 + at * 3) % 101 - 50)
        .collect()
}

/// A round before anyone came.
pub fn idle_state(manifest: ContentHash) -> RoundState {
    RoundState {
        task: "tiny".parse().unwrap(),
        round: 1,
        phase: unsaid_protocol::RoundPhase::Idle,
        model: ContentHash::of(b""),
        manifest,
        checked_in: 0,
        received: 0,
        deadline_ms: None,
        paused: false,
    }
}

pub fn frame(state: &RoundState, client: u8) -> UpdateFrame {
    UpdateFrame {
        update: update_id(state.round, client),
        client: client_id(client),
        manifest: state.manifest,
        model: state.model,
        round: state.round,
        coordinates: coordinates(client),
    }
}

pub fn accepted(frame: &UpdateFrame) -> UpdateReply {
    UpdateReply {
        update: frame.update,
        round: frame.round,
        duplicate: false,
    }
}

pub fn duplicate(frame: &UpdateFrame) -> UpdateReply {
    UpdateReply {
        duplicate: true,
        ..accepted(frame)
    }
}

/// The model that comes out when exactly these clients are counted once each.
pub fn expected_model(before: &[u8], clients: &[u8]) -> ContentHash {
    moved_model(before, |at| {
        let sum: i64 = clients
            .iter()
            .map(|&client| i64::from(coordinates(client)[at]))
            .sum();
        sum as f64 * GRID_STEP / clients.len() as f64
    })
}

/// The model that comes out of the medians of these clients' coordinates.
pub fn expected_median(before: &[u8], clients: &[u8]) -> ContentHash {
    moved_model(before, |at| {
        let mut values: Vec<i32> = clients.iter().map(|&client| coordinates(client)[at]).collect();
        values.sort_unstable();
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        f64::from(low + high) / 2.0 * GRID_STEP
    })
}

pub fn moved_model(before: &[u8], step: impl Fn(usize) -> f64) -> ContentHash {
    let model: Model = task(&[]).model;
    let parameters = model.from_safetensors(before).unwrap();
    let next: Vec<f32> = (0..PARAMETERS)
        .map(|at| (f64::from(parameters[at]) + step(at)) as f32)
        .collect();
    ContentHash::of(&model.to_safetensors(&next).unwrap())
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

/// When a [`FaultyStore`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    None,
    /// A commit fails, and nothing is written.
    BeforeCommit,
    /// As [`Fault::BeforeCommit`], but only of a commit that publishes a round.
    BeforePublication,
    /// A commit is written, and then reported as failed.
    AfterCommit,
    /// As [`Fault::AfterCommit`], but only of a commit with the figures of a round.
    AfterFigures,
    /// The published rounds cannot be read.
    UnreadableRounds,
    /// Loading a task waits until there is another fault, or none.
    HeldLoading,
    /// Nothing works.
    Everything,
}

pub struct FaultyStore {
    inner: RedbStore,
    fault: AtomicU8,
    struck: AtomicU32,
    _folder: TempDir,
}

impl FaultyStore {
    pub fn new() -> Arc<Self> {
        let folder = TempDir::new().unwrap();
        let inner = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
        Arc::new(Self {
            inner,
            fault: AtomicU8::new(0),
            struck: AtomicU32::new(0),
            _folder: folder,
        })
    }

    pub fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// How often a fault struck that does not strike everything.
    pub fn struck(&self) -> u32 {
        self.struck.load(Ordering::SeqCst)
    }

    fn strike(&self, when: &str) -> StoreError {
        self.struck.fetch_add(1, Ordering::SeqCst);
        StoreError(format!("injected {when}"))
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::SeqCst) == fault as u8
    }

    fn reading<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.is(Fault::Everything) {
            Err(StoreError("injected".into()))
        } else {
            read()
        }
    }
}

impl Store for FaultyStore {
    fn load(&self, task: &TaskId) -> Result<Option<Saved>, StoreError> {
        if self.is(Fault::HeldLoading) {
            self.struck.fetch_add(1, Ordering::SeqCst);
            while self.is(Fault::HeldLoading) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.reading(|| self.inner.load(task))
    }

    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError> {
        if self.is(Fault::BeforeCommit) || self.is(Fault::Everything) {
            return Err(StoreError("injected before".into()));
        }
        if self.is(Fault::BeforePublication) && !changes.rounds.is_empty() {
            return Err(self.strike("before"));
        }
        self.inner.commit(task, changes)?;
        let figures = changes.rounds.iter().any(|metrics| metrics.accuracy.is_some());
        if self.is(Fault::AfterCommit) || self.is(Fault::AfterFigures) && figures {
            return Err(self.strike("after"));
        }
        Ok(())
    }

    fn model(&self, task: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|| self.inner.model(task, model))
    }

    fn has_journal(&self, task: &TaskId) -> bool {
        self.inner.has_journal(task)
    }

    fn registry(&self) -> Option<&dyn Registry> {
        self.inner.registry()
    }

    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        if self.is(Fault::UnreadableRounds) {
            return Err(self.strike("at reading"));
        }
        self.reading(|| self.inner.rounds(task))
    }

    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        if self.is(Fault::UnreadableRounds) {
            return Err(self.strike("at reading"));
        }
        self.reading(|| self.inner.rounds_before(task, before, most))
    }
}
