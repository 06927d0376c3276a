//! A world around one client, in memory: a relay that answers as a real one does and fails on request, a store that can fail, a
//! clock whose waits take no time, and a listener that keeps what it hears. All write into one log, so that a test can ask what
//! came before what.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    rc::Rc,
    task::Poll,
};

use unsaid::{
    ClientError, Session, SessionEvent,
    backend::BackendChoice,
    events::UploadStatus,
    feed::Feed,
    ports::{Clock, Listener, Pending, Ports, Relay, RelayFault, Store},
    session::Patience,
    task::Task,
};
use unsaid_engine::{EngineError, GpuDevice, Model};
use unsaid_privacy::{Budget, Charge, ClientFloors, Ledger, Rho};
use unsaid_protocol::{
    CheckIn, CheckInReply, ClientId, ContentHash, DataSchema, Manifest, Privacy, Problem, ProblemKind,
    RoundMetrics, RoundPhase, RoundPolicy, RoundState, TaskId, UpdateEncoding, UpdateFrame, UpdateId,
    UpdateReply,
};

/// δ of every budget here.
pub const DELTA: f64 = 1e-5;
/// Floors that every task passes.
pub const NO_FLOORS: ClientFloors = ClientFloors {
    min_noise_multiplier: 0.0,
    max_clip_l2: 1e9,
    min_cohort: 1,
};

/// What happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    CheckIn,
    Model,
    Round,
    /// The ledger was written; the frame that was charged, and the frame that was kept in the same transaction.
    Debit {
        charged: ContentHash,
        kept: Option<ContentHash>,
    },
    Keep(ContentHash),
    Clear,
    Send(ContentHash),
    Wait(u64),
}

#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<Op>>>);

impl Log {
    fn push(&self, op: Op) {
        self.0.borrow_mut().push(op);
    }
}

/// One turn of whoever polls.
async fn turn() {
    let mut first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut first) {
            context.waker().wake_by_ref();
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

/// What becomes of one upload.
#[derive(Debug, Clone, Copy)]
pub enum Upload {
    /// It arrives, and so does the answer.
    Arrives,
    /// It does not arrive.
    Lost,
    /// It arrives, but the answer does not.
    AnswerLost,
    /// The relay refuses it unread.
    Refused(ProblemKind, Option<u64>),
    /// It arrives after its round has closed without it.
    TooLate,
    /// It arrives at a relay that has forgotten who checked in.
    ForgottenCheckIn,
}

/// A relay. A round closes with one update.
pub struct MemoryRelay {
    log: Log,
    /// Events go here where there is someone to hear them.
    pub feed: RefCell<Option<Feed>>,
    pub state: RefCell<RelayState>,
}

pub struct RelayState {
    task: TaskId,
    model_spec: Model,
    pub manifest: ContentHash,
    pub round: u64,
    pub last_round: u64,
    pub model: ContentHash,
    pub models: HashMap<ContentHash, Vec<u8>>,
    checked_in: HashSet<ClientId>,
    reported: HashSet<ClientId>,
    accepted: HashMap<UpdateId, (u64, Vec<u8>)>,
    /// Every update that was counted.
    pub counted: Vec<UpdateFrame>,
    /// Every body that left the client, arrived or not.
    pub bodies: Vec<Vec<u8>>,
    /// What becomes of the next uploads; those after them arrive.
    pub uploads: VecDeque<Upload>,
    /// Faults of the next check-ins.
    pub check_in_faults: VecDeque<RelayFault>,
    /// Answers to the next check-ins, whatever the state is.
    pub check_in_replies: VecDeque<CheckInReply>,
    /// Faults of the next model downloads.
    pub model_faults: VecDeque<RelayFault>,
    /// Whether a round closes as soon as it has an update.
    pub closes: bool,
    /// Nothing gets through at all.
    pub down: bool,
}

pub fn refusal(kind: ProblemKind) -> RelayFault {
    RelayFault::Refused {
        problem: Problem::new(kind, "says the relay"),
        retry_after_ms: None,
    }
}

pub fn down() -> RelayFault {
    RelayFault::Unreachable("the cable is cut".into())
}

impl RelayState {
    fn new(task: &Task) -> Self {
        let mut state = Self {
            task: task.manifest.task.clone(),
            model_spec: Model::new(task.model.spec()).unwrap(),
            manifest: task.hash,
            round: 1,
            last_round: u64::MAX,
            model: ContentHash::of(b""),
            models: HashMap::new(),
            checked_in: HashSet::new(),
            reported: HashSet::new(),
            accepted: HashMap::new(),
            counted: Vec::new(),
            bodies: Vec::new(),
            uploads: VecDeque::new(),
            check_in_faults: VecDeque::new(),
            check_in_replies: VecDeque::new(),
            model_faults: VecDeque::new(),
            closes: true,
            down: false,
        };
        state.publish();
        state
    }

    /// The open round's starting model.
    fn publish(&mut self) {
        let parameters = self.model_spec.initial_parameters(self.round);
        self.serve(self.model_spec.to_safetensors(&parameters).unwrap());
    }

    /// Makes `model` the newest one, under its own hash.
    pub fn serve(&mut self, model: Vec<u8>) {
        self.model = ContentHash::of(&model);
        self.models.insert(self.model, model);
    }

    /// Closes the open round and opens the next.
    pub fn advance(&mut self) {
        self.round += 1;
        self.checked_in.clear();
        self.reported.clear();
        self.publish();
    }

    pub fn round_state(&self) -> RoundState {
        RoundState {
            task: self.task.clone(),
            round: self.round,
            phase: if self.round > self.last_round {
                RoundPhase::Finished
            } else {
                RoundPhase::Collecting
            },
            model: self.model,
            manifest: self.manifest,
            checked_in: self.checked_in.len() as u32,
            received: self.reported.len() as u32,
            deadline_ms: None,
        }
    }

    /// The rules of a relay: what was counted is known for ever, then manifest, round, model, check-in, report, size.
    fn receive(&mut self, body: &[u8]) -> Result<UpdateReply, RelayFault> {
        let frame = UpdateFrame::decode(body).map_err(|_| refusal(ProblemKind::Malformed))?;
        if let Some((round, known)) = self.accepted.get(&frame.update) {
            return if known == body {
                Ok(UpdateReply {
                    update: frame.update,
                    round: *round,
                    duplicate: true,
                })
            } else {
                Err(refusal(ProblemKind::UpdateConflict))
            };
        }
        let kind = if frame.manifest != self.manifest {
            ProblemKind::WrongManifest
        } else if frame.round == 0 || frame.round > self.round {
            ProblemKind::WrongRound
        } else if frame.round < self.round {
            ProblemKind::RoundClosed
        } else if frame.model != self.model {
            ProblemKind::WrongModel
        } else if !self.checked_in.contains(&frame.client) {
            ProblemKind::NotCheckedIn
        } else if self.reported.contains(&frame.client) {
            ProblemKind::AlreadyReported
        } else if frame.coordinates.len() != self.model_spec.parameter_count() {
            ProblemKind::Unacceptable
        } else {
            let reply = UpdateReply {
                update: frame.update,
                round: frame.round,
                duplicate: false,
            };
            self.accepted.insert(frame.update, (frame.round, body.to_vec()));
            self.reported.insert(frame.client);
            self.counted.push(frame);
            if self.closes {
                self.advance();
            }
            return Ok(reply);
        };
        Err(refusal(kind))
    }
}

impl MemoryRelay {
    async fn hear(&self, op: Op) {
        self.log.push(op);
        turn().await;
    }

    /// Closes the open round, opens the next, and says so to whoever listens.
    pub fn advance(&self) {
        self.state.borrow_mut().advance();
        self.tell();
    }

    fn tell(&self) {
        if let Some(feed) = &*self.feed.borrow() {
            feed.set(self.state.borrow().round_state());
        }
    }
}

impl Relay for MemoryRelay {
    async fn manifest(&self) -> Result<(Vec<u8>, ContentHash), RelayFault> {
        Err(down()) // a session has its manifest already
    }

    async fn round(&self) -> Result<RoundState, RelayFault> {
        self.hear(Op::Round).await;
        Ok(self.state.borrow().round_state())
    }

    async fn rounds(&self) -> Result<Vec<RoundMetrics>, RelayFault> {
        Ok(Vec::new())
    }

    async fn check_in(&self, message: &CheckIn) -> Result<CheckInReply, RelayFault> {
        self.hear(Op::CheckIn).await;
        let mut state = self.state.borrow_mut();
        if state.down {
            return Err(down());
        }
        if let Some(fault) = state.check_in_faults.pop_front() {
            return Err(fault);
        }
        if let Some(reply) = state.check_in_replies.pop_front() {
            return Ok(reply);
        }
        if message.manifest != state.manifest {
            return Err(refusal(ProblemKind::WrongManifest));
        }
        let (round, model) = (state.round, state.model);
        Ok(if round > state.last_round {
            CheckInReply::Finished {
                round: round - 1,
                model,
            }
        } else if state.reported.contains(&message.client) {
            CheckInReply::Wait {
                round,
                retry_after_ms: 5000,
            }
        } else {
            state.checked_in.insert(message.client);
            CheckInReply::Train {
                round,
                model,
                deadline_ms: 60_000,
            }
        })
    }

    async fn model(&self, hash: ContentHash, _: usize) -> Result<Vec<u8>, RelayFault> {
        self.hear(Op::Model).await;
        let mut state = self.state.borrow_mut();
        if let Some(fault) = state.model_faults.pop_front() {
            return Err(fault);
        }
        state
            .models
            .get(&hash)
            .cloned()
            .ok_or_else(|| refusal(ProblemKind::NotFound))
    }

    async fn send(&self, frame: &[u8]) -> Result<UpdateReply, RelayFault> {
        self.hear(Op::Send(ContentHash::of(frame))).await;
        let answer = {
            let mut state = self.state.borrow_mut();
            state.bodies.push(frame.to_vec());
            let upload = match state.down {
                true => Upload::Lost,
                false => state.uploads.pop_front().unwrap_or(Upload::Arrives),
            };
            match upload {
                Upload::Arrives => state.receive(frame),
                Upload::Lost => Err(down()),
                Upload::AnswerLost => state.receive(frame).and(Err(down())),
                Upload::Refused(kind, retry_after_ms) => Err(RelayFault::Refused {
                    problem: Problem::new(kind, "says the relay"),
                    retry_after_ms,
                }),
                Upload::TooLate => {
                    state.advance();
                    state.receive(frame)
                }
                Upload::ForgottenCheckIn => {
                    state.checked_in.clear();
                    state.receive(frame)
                }
            }
        };
        self.tell();
        answer
    }
}

/// Something that a store may fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    ClientId,
    Examples,
    ReadLedger,
    WriteLedger,
    ReadPending,
    Keep,
    Clear,
}

/// A store. Its ledger is text, as in a browser.
pub struct MemoryStore {
    log: Log,
    client: ClientId,
    pub examples: RefCell<(Vec<f32>, Vec<u32>)>,
    ledger: RefCell<String>,
    pub pending: RefCell<Option<Pending>>,
    pub fails: Cell<Option<Fails>>,
}

impl MemoryStore {
    fn works(&self, at: Fails) -> Result<(), ClientError> {
        match self.fails.get() {
            Some(fails) if fails == at => Err(ClientError::Storage("the disk is full".into())),
            _ => Ok(()),
        }
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::from_json(&self.ledger.borrow()).unwrap()
    }

    pub fn set_ledger(&self, json: impl Into<String>) {
        self.ledger.replace(json.into());
    }

    pub fn set_epsilon(&self, epsilon: f64) {
        let mut ledger = self.ledger();
        ledger.set_budget(Budget::new(epsilon, DELTA).unwrap());
        self.set_ledger(ledger.to_json());
    }

    /// What another tab's update does to the budget that the tabs share.
    pub fn spend_elsewhere(&self, rho: Rho) {
        let mut ledger = self.ledger();
        let charge = Charge {
            task: "elsewhere".into(),
            round: 1,
            update: "e".repeat(32),
            frame_sha256: "e".repeat(64),
            rho,
            at_ms: 0,
        };
        ledger.debit(charge).unwrap();
        self.set_ledger(ledger.to_json());
    }
}

impl Store for MemoryStore {
    async fn client_id(&self) -> Result<ClientId, ClientError> {
        self.works(Fails::ClientId)?;
        Ok(self.client)
    }

    async fn examples(&self) -> Result<(Vec<f32>, Vec<u32>), ClientError> {
        self.works(Fails::Examples)?;
        Ok(self.examples.borrow().clone())
    }

    async fn change_ledger<R>(
        &self,
        pending: Option<&Pending>,
        change: impl FnOnce(&mut Ledger) -> Result<R, ClientError>,
    ) -> Result<R, ClientError> {
        turn().await;
        self.works(Fails::ReadLedger)?;
        let before = Ledger::from_json(&self.ledger.borrow())?;
        let mut after = before.clone();
        let result = change(&mut after)?;
        if after != before || pending.is_some() {
            self.works(Fails::WriteLedger)?;
            if let Some(charge) = after.entries().last().filter(|_| after != before) {
                self.log.push(Op::Debit {
                    charged: charge.frame_sha256.parse().unwrap(),
                    kept: pending.map(|pending| ContentHash::of(&pending.frame)),
                });
            }
            self.set_ledger(after.to_json());
            if let Some(pending) = pending {
                self.pending.replace(Some(pending.clone()));
            }
        }
        Ok(result)
    }

    async fn pending(&self) -> Result<Option<Pending>, ClientError> {
        self.works(Fails::ReadPending)?;
        Ok(self.pending.borrow().clone())
    }

    async fn keep_pending(&self, pending: &Pending) -> Result<(), ClientError> {
        turn().await;
        self.works(Fails::Keep)?;
        self.log.push(Op::Keep(ContentHash::of(&pending.frame)));
        self.pending.replace(Some(pending.clone()));
        Ok(())
    }

    async fn clear_pending(&self) -> Result<(), ClientError> {
        self.works(Fails::Clear)?;
        self.log.push(Op::Clear);
        self.pending.replace(None);
        Ok(())
    }
}

/// A clock whose waits take no time. What was planned for a moment happens when a wait passes it.
pub struct VirtualClock {
    log: Log,
    now: Cell<f64>,
    plans: RefCell<Vec<Plan>>,
}

struct Plan {
    at_ms: f64,
    what: Box<dyn FnOnce()>,
}

impl VirtualClock {
    /// Does `what` once `in_ms` have passed.
    pub fn plan(&self, in_ms: u64, what: impl FnOnce() + 'static) {
        self.plans.borrow_mut().push(Plan {
            at_ms: self.now.get() + in_ms as f64,
            what: Box::new(what),
        });
    }

    /// The time, without the step that reading it as a session takes.
    pub fn now(&self) -> f64 {
        self.now.get()
    }

    fn due(&self, until: f64) -> Option<Plan> {
        let mut plans = self.plans.borrow_mut();
        let due = plans.iter().enumerate().filter(|(_, plan)| plan.at_ms <= until);
        let earliest = due.min_by(|(_, a), (_, b)| a.at_ms.total_cmp(&b.at_ms))?.0;
        Some(plans.swap_remove(earliest))
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> f64 {
        self.now.set(self.now.get() + 0.0371); // a little passes between two looks at a clock
        self.now.get()
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.now.get() as u64
    }

    async fn sleep(&self, ms: u64) {
        self.log.push(Op::Wait(ms));
        let until = self.now.get() + ms as f64;
        loop {
            turn().await;
            let Some(plan) = self.due(until) else { break };
            self.now.set(plan.at_ms.max(self.now.get()));
            (plan.what)();
        }
        self.now.set(until.max(self.now.get()));
    }

    async fn give_way(&self) {
        turn().await;
    }
}

/// Someone who writes everything down, and may do something about it.
#[derive(Default)]
pub struct Recorder {
    events: RefCell<Vec<SessionEvent>>,
    hook: RefCell<Option<Hook>>,
}

type Hook = Box<dyn FnMut(&SessionEvent)>;

impl Recorder {
    pub fn events(&self) -> Vec<SessionEvent> {
        self.events.borrow().clone()
    }

    pub fn on(&self, hook: impl FnMut(&SessionEvent) + 'static) {
        self.hook.replace(Some(Box::new(hook)));
    }

    pub fn uploads(&self) -> Vec<UploadStatus> {
        let uploads = self.events().into_iter().filter_map(|event| match event {
            SessionEvent::Upload { status, .. } => Some(status),
            _ => None,
        });
        uploads.collect()
    }
}

impl Listener for Recorder {
    fn hear(&self, event: SessionEvent) {
        if let Some(hook) = &mut *self.hook.borrow_mut() {
            hook(&event);
        }
        self.events.borrow_mut().push(event);
    }
}

/// Everything around a client.
pub struct World {
    log: Log,
    manifest: Manifest,
    pub relay: MemoryRelay,
    pub store: MemoryStore,
    pub clock: VirtualClock,
    pub listener: Recorder,
}

/// The ports of a [`World`].
#[derive(Clone)]
pub struct MemoryPorts(pub Rc<World>);

impl Ports for MemoryPorts {
    type Relay = MemoryRelay;
    type Store = MemoryStore;
    type Clock = VirtualClock;
    type Listener = Recorder;

    fn relay(&self) -> &MemoryRelay {
        &self.0.relay
    }

    fn store(&self) -> &MemoryStore {
        &self.0.store
    }

    fn clock(&self) -> &VirtualClock {
        &self.0.clock
    }

    fn listener(&self) -> &Recorder {
        &self.0.listener
    }

    async fn gpu(&self) -> Result<GpuDevice, EngineError> {
        Err(EngineError::NoGpu("there is none in this world".into()))
    }
}

/// Terms of a small task with noise: 67 parameters.
pub fn manifest() -> Manifest {
    Manifest {
        protocol: unsaid_protocol::VERSION,
        task: "flowers".parse().unwrap(),
        title: "Flowers".into(),
        description: String::new(),
        model: serde_json::json!({
            "input": [4],
            "layers": [{"type": "dense", "units": 8}, {"type": "relu"}, {"type": "dense", "units": 3}],
            "loss": "softmax-cross-entropy",
        }),
        parameters: 67,
        training: training(0.1),
        data: DataSchema::Classification {
            features: 4,
            classes: 3,
        },
        update: UpdateEncoding {
            clip_l2: 1.0,
            grid_step: 1.0 / 1024.0,
        },
        privacy: Privacy::Local {
            noise_multiplier: 4.0,
        },
        rounds: RoundPolicy {
            min_clients: 2,
            target_clients: 4,
            deadline_ms: 60_000,
        },
    }
}

/// Two epochs in steps of eight examples.
pub fn training(learning_rate: f64) -> serde_json::Value {
    serde_json::json!({
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"type": "sgd", "learning_rate": learning_rate},
    })
}

/// The same terms without noise.
pub fn noiseless() -> Manifest {
    Manifest {
        privacy: Privacy::None,
        ..manifest()
    }
}

pub fn task(manifest: &Manifest) -> Task {
    let json = manifest.to_json();
    Task::new(&json, ContentHash::of(&json), &NO_FLOORS).unwrap()
}

/// Examples whose numbers are like no others.
fn examples() -> (Vec<f32>, Vec<u32>) {
    let feature = |i: u32| (i as f32 * 0.739_085_1).sin();
    (
        (0..24 * 4).map(feature).collect(),
        (0..24).map(|i| i % 3).collect(),
    )
}

impl World {
    pub fn new(manifest: Manifest) -> Rc<Self> {
        let log = Log::default();
        let task = task(&manifest);
        Rc::new(Self {
            manifest,
            relay: MemoryRelay {
                log: log.clone(),
                feed: RefCell::new(None),
                state: RefCell::new(RelayState::new(&task)),
            },
            store: MemoryStore {
                log: log.clone(),
                client: ClientId::from_bytes(*b"a client's id 16"),
                examples: RefCell::new(examples()),
                ledger: RefCell::new(Ledger::new(Budget::new(1000.0, DELTA).unwrap()).to_json()),
                pending: RefCell::new(None),
                fails: Cell::new(None),
            },
            clock: VirtualClock {
                log: log.clone(),
                now: Cell::new(0.0),
                plans: RefCell::default(),
            },
            listener: Recorder::default(),
            log,
        })
    }

    /// A session as a page that was just loaded makes it, with its own feed from the relay.
    pub fn session(self: &Rc<Self>) -> Session<MemoryPorts> {
        self.session_on(BackendChoice::Cpu)
    }

    pub fn session_on(self: &Rc<Self>, choice: BackendChoice) -> Session<MemoryPorts> {
        let feed = Feed::default();
        self.relay.feed.replace(Some(feed.clone()));
        Session::new(
            MemoryPorts(Rc::clone(self)),
            task(&self.manifest),
            feed,
            choice,
            Patience::default(),
        )
    }

    /// What happened so far.
    pub fn ops(&self) -> Vec<Op> {
        self.log.0.borrow().clone()
    }

    /// The hashes of the bodies that left, in order.
    pub fn sent(&self) -> Vec<ContentHash> {
        let state = self.relay.state.borrow();
        state.bodies.iter().map(|body| ContentHash::of(body)).collect()
    }

    /// Updates that the relay counted.
    pub fn counted(&self) -> usize {
        self.relay.state.borrow().counted.len()
    }

    /// Updates that the client paid for.
    pub fn paid(&self) -> u64 {
        self.store.ledger().count()
    }

    /// Milliseconds of each wait.
    pub fn waits(&self) -> Vec<u64> {
        let waits = self.ops().into_iter().filter_map(|op| match op {
            Op::Wait(ms) => Some(ms),
            _ => None,
        });
        waits.collect()
    }

    pub fn upload(&self, uploads: impl IntoIterator<Item = Upload>) {
        self.relay.state.borrow_mut().uploads.extend(uploads);
    }
}
