//! What a session needs, natively: the relay over HTTP, a store in memory, the system's clock; and dfdx in the engine's place.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;
use unsaid::{
    ClientError, SessionEvent,
    feed::Feed,
    ports::{
        Clock, LedgerChange, Listener, LocalTraining, Offered, Pending, Ports, Relay, RelayFault, Store,
    },
    random::Random,
};
use unsaid_engine::{Device, EngineError, Examples, GpuDevice, Model, Observer, Trained};
use unsaid_privacy::{Budget, Ledger};
use unsaid_protocol::{
    CheckIn, CheckInReply, ClientId, ContentHash, Problem, RoundMetrics, RoundPhase, RoundState, TaskId,
    UpdateFrame, UpdateReply,
};

use crate::Federated;

/// The relay at an address, for one task.
#[derive(Debug, Clone)]
pub struct HttpRelay {
    origin: String,
    task: TaskId,
    http: reqwest::Client,
}

/// Time between two looks at the open round. (A browser hears of it by server-sent events.)
const LOOK_MS: u64 = 20;

fn unreachable(error: &dyn std::fmt::Display) -> RelayFault {
    RelayFault::Unreachable(error.to_string())
}

impl HttpRelay {
    /// The relay at `origin`.
    pub fn new(origin: &str, task: TaskId) -> Self {
        Self {
            origin: origin.to_owned(),
            task,
            http: reqwest::Client::new(),
        }
    }

    fn url(&self, what: &str) -> String {
        format!("{}/v1/tasks/{}/{what}", self.origin, self.task)
    }

    /// Sends a request; a problem document is a refusal.
    async fn ask(request: reqwest::RequestBuilder) -> Result<reqwest::Response, RelayFault> {
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let header = response.headers().get("retry-after");
        let seconds = header.and_then(|seconds| seconds.to_str().ok()?.parse::<u64>().ok());
        let problem: Problem = response.json().await.map_err(|error| unreachable(&error))?;
        Err(RelayFault::Refused {
            problem,
            retry_after_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
        })
    }

    async fn json<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, RelayFault> {
        let response = Self::ask(request).await?;
        response.json().await.map_err(|error| unreachable(&error))
    }

    /// Tells `feed` of the open round until the last one is over.
    pub async fn feed(self, feed: Feed) {
        loop {
            if let Ok(state) = self.round().await {
                let last = state.phase == RoundPhase::Finished;
                feed.set(state);
                if last {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// The published rounds, once there are `rounds` of them after the first model.
    ///
    /// # Errors
    /// Those of the requests.
    pub async fn published(&self, rounds: u32) -> Result<Vec<RoundMetrics>, String> {
        loop {
            let published = self.rounds().await.map_err(|fault| format!("{fault:?}"))?;
            if published.len() > rounds as usize {
                return Ok(published);
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// The parameters of a published model.
    ///
    /// # Errors
    /// Those of the request, and of a file that is not this model's.
    pub async fn parameters(&self, hash: ContentHash, model: &Model) -> Result<Vec<f32>, String> {
        let max_bytes = 4 * model.parameter_count() + (1 << 20);
        let file = Relay::model(self, hash, max_bytes).await;
        let file = file.map_err(|fault| format!("{fault:?}"))?;
        model.from_safetensors(&file).map_err(|error| error.to_string())
    }
}

impl Relay for HttpRelay {
    async fn manifest(&self) -> Result<Offered, RelayFault> {
        let response = Self::ask(self.http.get(self.url("manifest"))).await?;
        let header = response.headers().get("unsaid-content-hash");
        let hash = header.and_then(|hash| hash.to_str().ok()?.parse().ok());
        let hash = hash.ok_or_else(|| unreachable(&"no manifest hash was announced"))?;
        let signature = response.headers().get("unsaid-signature");
        let signature = signature.and_then(|signature| Some(signature.to_str().ok()?.to_owned()));
        let body = response.bytes().await.map_err(|error| unreachable(&error))?;
        Ok(Offered {
            bytes: body.to_vec(),
            hash,
            signature,
        })
    }

    async fn round(&self) -> Result<RoundState, RelayFault> {
        Self::json(self.http.get(self.url("round"))).await
    }

    async fn rounds(&self) -> Result<Vec<RoundMetrics>, RelayFault> {
        Self::json(self.http.get(self.url("rounds"))).await
    }

    async fn check_in(&self, message: &CheckIn) -> Result<CheckInReply, RelayFault> {
        Self::json(self.http.post(self.url("check-in")).json(message)).await
    }

    async fn model(&self, hash: ContentHash, max_bytes: usize) -> Result<Vec<u8>, RelayFault> {
        let response = Self::ask(self.http.get(self.url(&format!("models/{hash}")))).await?;
        let body = response.bytes().await.map_err(|error| unreachable(&error))?;
        if body.len() > max_bytes {
            return Err(unreachable(&"the model is longer than the task's"));
        }
        Ok(body.to_vec())
    }

    async fn send(&self, frame: &[u8]) -> Result<UpdateReply, RelayFault> {
        let url = format!("{}{}", self.origin, UpdateFrame::path(&self.task));
        let request = self.http.post(url).body(frame.to_vec());
        Self::json(request.header("content-type", "application/vnd.unsaid.update")).await
    }
}

/// A store in memory: it forgets with the process, as no store of a person may.
#[derive(Debug)]
pub struct MemoryStore {
    client: Cell<ClientId>,
    examples: Examples,
    ledger: RefCell<Ledger>,
    pending: RefCell<Option<Pending>>,
    control: RefCell<Vec<f32>>,
}

impl Store for MemoryStore {
    async fn client_id(&self, _: Option<&TaskId>) -> Result<ClientId, ClientError> {
        Ok(self.client.get())
    }

    async fn examples(&self) -> Result<(Vec<f32>, Vec<u32>), ClientError> {
        Ok((self.examples.x().to_vec(), self.examples.y().to_vec()))
    }

    async fn change_ledger(
        &self,
        pending: Option<&Pending>,
        change: &mut LedgerChange<'_>,
    ) -> Result<(), ClientError> {
        let mut after = self.ledger.borrow().clone();
        change(&mut after)?;
        self.ledger.replace(after);
        if let Some(pending) = pending {
            self.pending.replace(Some(pending.clone()));
        }
        Ok(())
    }

    async fn pending(&self) -> Result<Option<Pending>, ClientError> {
        Ok(self.pending.borrow().clone())
    }

    async fn keep_pending(&self, pending: &Pending) -> Result<(), ClientError> {
        self.pending.replace(Some(pending.clone()));
        Ok(())
    }

    async fn control(&self) -> Result<Vec<f32>, ClientError> {
        Ok(self.control.borrow().clone())
    }

    async fn clear_pending(&self, counted: bool) -> Result<(), ClientError> {
        let kept = self.pending.take().map(|pending| pending.control);
        if let Some(control) = kept.filter(|control| counted && !control.is_empty()) {
            self.control.replace(control);
        }
        Ok(())
    }

    async fn erase(&self) -> Result<(), ClientError> {
        let budget = self.ledger.borrow().budget();
        self.ledger.replace(Ledger::new(budget));
        self.pending.replace(None);
        self.control.take();
        self.client.set(ClientId::from_bytes(Random::default().bytes()?));
        Ok(())
    }
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemTimes(Instant);

impl Clock for SystemTimes {
    fn now_ms(&self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1000.0
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn give_way(&self) {
        tokio::task::yield_now().await;
    }
}

/// Nobody listens.
#[derive(Debug)]
pub struct Silence;

impl Listener for Silence {
    fn hear(&self, _: SessionEvent) {}
}

/// The ports of a native client whose model is a dfdx module.
#[derive(Debug)]
pub struct NativePorts {
    relay: HttpRelay,
    store: MemoryStore,
    clock: SystemTimes,
    listener: Silence,
    net: RefCell<Federated>,
}

impl NativePorts {
    /// Client number `client` with its examples and its copy of the module.
    ///
    /// # Errors
    /// None: the budget below is a possible one.
    pub fn new(
        relay: HttpRelay,
        examples: Examples,
        net: Federated,
        client: usize,
    ) -> Result<Self, ClientError> {
        let mut id = [0; 16];
        id[0] = 1 + client as u8;
        // A demonstration: see the noise multiplier of the task.
        let budget = Budget::new(1e9, 1e-5).map_err(|error| ClientError::BadOptions(error.to_string()))?;
        let store = MemoryStore {
            client: Cell::new(ClientId::from_bytes(id)),
            examples,
            ledger: RefCell::new(Ledger::new(budget)),
            pending: RefCell::new(None),
            control: RefCell::default(),
        };
        Ok(Self {
            relay,
            store,
            clock: SystemTimes(Instant::now()),
            listener: Silence,
            net: RefCell::new(net),
        })
    }
}

impl Ports for NativePorts {
    type Relay = HttpRelay;
    type Store = MemoryStore;
    type Clock = SystemTimes;
    type Listener = Silence;

    fn relay(&self) -> &HttpRelay {
        &self.relay
    }

    fn store(&self) -> &MemoryStore {
        &self.store
    }

    fn clock(&self) -> &SystemTimes {
        &self.clock
    }

    fn listener(&self) -> &Silence {
        &self.listener
    }

    async fn gpu(&self) -> Result<GpuDevice, EngineError> {
        Err(EngineError::NoGpu("dfdx trains on the CPU".into()))
    }

    // One session trains one model at a time, so nobody else asks for the module while it trains.
    #[allow(clippy::await_holding_refcell_ref)]
    async fn train(
        &self,
        job: LocalTraining<'_>,
        _: &Device,
        observer: &mut impl Observer,
    ) -> Result<Trained, EngineError> {
        let mut net = self.net.borrow_mut();
        let LocalTraining {
            task,
            start,
            examples,
            correction,
            seed,
        } = job;
        net.train(start, examples, &task.training, seed, correction, observer)
            .await
    }
}
