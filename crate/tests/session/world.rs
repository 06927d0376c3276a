//! A world around one client, in memory. Relay, store and clock write into one log, so that a test can ask what came before what.

use std::{cell::RefCell, rc::Rc, task::Poll};

use unsaid::{Session, backend::BackendChoice, feed::Feed, ports::Ports, session::Patience};
use unsaid_engine::{EngineError, GpuDevice};
use unsaid_protocol::{ContentHash, Manifest};

mod clock;
mod listener;
mod relay;
mod store;
mod terms;

pub use self::{
    clock::VirtualClock,
    listener::Recorder,
    relay::{MemoryRelay, Upload, down, refusal},
    store::{Fails, MemoryStore},
    terms::{NO_FLOORS, control, example, manifest, noiseless, task, training},
};

/// δ of every budget here.
pub const DELTA: f64 = 1e-5;

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

impl World {
    pub fn new(manifest: Manifest) -> Rc<Self> {
        let log = Log::default();
        let task = task(&manifest);
        Rc::new(Self {
            manifest,
            relay: MemoryRelay::new(&log, &task),
            store: MemoryStore::new(&log),
            clock: VirtualClock::new(&log),
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
