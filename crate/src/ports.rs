//! What a session needs from around it. The browser provides these through `browser/`; native tests provide others, so that the
//! very session code that runs in a page can be driven without one.

use std::future::Future;

use unsaid_engine::{Device, EngineError, Examples, GpuDevice, Observer, Trained, Training};
use unsaid_privacy::Ledger;
use unsaid_protocol::{
    CheckIn, CheckInReply, ClientId, ContentHash, Problem, RoundMetrics, RoundState, TaskId, UpdateReply,
};

use crate::{ClientError, SessionEvent, task::Task};

/// Why a request to the relay gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayFault {
    /// No answer, or one that is no relay's. Trying again can help.
    Unreachable(String),
    /// A problem document; `retry_after_ms` where the relay said when to come back.
    Refused {
        /// The document.
        problem: Problem,
        /// When to come back.
        retry_after_ms: Option<u64>,
    },
}

/// A manifest as a relay offers it. Nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The manifest's bytes.
    pub bytes: Vec<u8>,
    /// The hash that was announced for them.
    pub hash: ContentHash,
    /// The relay's signature of them, in hexadecimal, where it signs (PROTOCOL.md, section 3.1).
    pub signature: Option<String>,
}

/// The relay, for one task.
pub trait Relay {
    /// The manifest on offer.
    fn manifest(&self) -> impl Future<Output = Result<Offered, RelayFault>>;
    /// The open round.
    fn round(&self) -> impl Future<Output = Result<RoundState, RelayFault>>;
    /// Published rounds, oldest first.
    fn rounds(&self) -> impl Future<Output = Result<Vec<RoundMetrics>, RelayFault>>;
    /// Asks for work.
    fn check_in(&self, message: &CheckIn) -> impl Future<Output = Result<CheckInReply, RelayFault>>;
    /// A model's bytes, at most `max_bytes` of them.
    fn model(&self, hash: ContentHash, max_bytes: usize)
    -> impl Future<Output = Result<Vec<u8>, RelayFault>>;
    /// Sends an update frame.
    fn send(&self, frame: &[u8]) -> impl Future<Output = Result<UpdateReply, RelayFault>>;
}

/// An update that was paid for and has not been acknowledged yet. It is kept until it is, so that whatever is sent after a
/// fault, or after a reload, is the identical bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The round that it is for.
    pub round: u64,
    /// The frame.
    pub frame: Vec<u8>,
    /// The participant's control variate once this update is counted, `[d]`; empty in a task that has none.
    pub control: Vec<f32>,
}

/// What is done to the ledger. It is called once, if the ledger can be read; a plain reference, so that there is one copy of what is
/// around it in the wasm.
pub type LedgerChange<'a> = dyn FnMut(&mut Ledger) -> Result<(), ClientError> + 'a;

/// The browser-local store of one participant. The ledger is shared by all participants of the origin.
pub trait Store {
    /// The participant's id, made on first use: the place's own at this relay, or the one that all places share for this task, at
    /// whatever address.
    fn client_id(&self, shared: Option<&TaskId>) -> impl Future<Output = Result<ClientId, ClientError>>;
    /// The local examples: features row after row, and labels.
    fn examples(&self) -> impl Future<Output = Result<(Vec<f32>, Vec<u32>), ClientError>>;
    /// Reads the ledger, changes it and writes it back, in one transaction that no other tab can come between. Where `pending` is
    /// given it is kept in the same transaction. On an error nothing has changed.
    fn change_ledger(
        &self,
        pending: Option<&Pending>,
        change: &mut LedgerChange<'_>,
    ) -> impl Future<Output = Result<(), ClientError>>;
    /// The update that waits for its acknowledgement.
    fn pending(&self) -> impl Future<Output = Result<Option<Pending>, ClientError>>;
    /// Keeps an update until it is acknowledged (for tasks without noise, which have nothing to debit).
    fn keep_pending(&self, pending: &Pending) -> impl Future<Output = Result<(), ClientError>>;
    /// The participant's own control variate, `[d]`, as its last counted update left it; empty where there was none.
    fn control(&self) -> impl Future<Output = Result<Vec<f32>, ClientError>>;
    /// Forgets the update that waits. Where it was `counted`, its control variate, if it has one, is the participant's from then on, in
    /// the same transaction. None where it was forgotten before: with the examples that it was made of, or with everything.
    fn clear_pending(&self, counted: bool) -> impl Future<Output = Result<(), ClientError>>;
    /// Forgets the ledger, every participant's id and control variate, and every update that waits, in one transaction. The next ledger begins with the same
    /// limit as the first.
    fn erase(&self) -> impl Future<Output = Result<(), ClientError>>;
}

/// Time, and giving way to others.
pub trait Clock {
    /// Milliseconds on a clock that never goes back, from any start.
    fn now_ms(&self) -> f64;
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
    /// Waits.
    fn sleep(&self, ms: u64) -> impl Future<Output = ()>;
    /// Lets the worker take its messages.
    fn give_way(&self) -> impl Future<Output = ()>;
}

/// Hears what happens.
pub trait Listener {
    /// Takes an event.
    fn hear(&self, event: SessionEvent);
}

/// Milliseconds per step of a task's own training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTimes {
    /// On the CPU.
    pub cpu_ms: f64,
    /// On the GPU.
    pub gpu_ms: f64,
}

/// One local training, from the shared model.
#[derive(Debug, Clone, Copy)]
pub struct LocalTraining<'a> {
    /// The task.
    pub task: &'a Task,
    /// The shared model's parameters, `[d]`.
    pub start: &'a [f32],
    /// The local examples.
    pub examples: &'a Examples,
    /// What is added to every gradient, `[d]`, where the task has control variates; else empty.
    pub correction: &'a [f32],
    /// The seed of the order of the examples and of dropout.
    pub seed: u64,
}

/// Everything around a session.
pub trait Ports {
    /// The relay.
    type Relay: Relay;
    /// The store.
    type Store: Store;
    /// The clock.
    type Clock: Clock;
    /// The listener.
    type Listener: Listener;
    /// The relay.
    fn relay(&self) -> &Self::Relay;
    /// The store.
    fn store(&self) -> &Self::Store;
    /// The clock.
    fn clock(&self) -> &Self::Clock;
    /// The listener.
    fn listener(&self) -> &Self::Listener;
    /// Asks for a GPU.
    fn gpu(&self) -> impl Future<Output = Result<GpuDevice, EngineError>>;
    /// What an earlier trial of this task measured on the GPU `adapter`, on this device and with this build.
    fn recall_trial(&self, task: &Task, adapter: &str) -> impl Future<Output = Option<StepTimes>> {
        let _ = (task, adapter); // a port without a memory measures each time
        async { None }
    }
    /// Keeps what a trial measured.
    fn keep_trial(&self, task: &Task, adapter: &str, times: StepTimes) -> impl Future<Output = ()> {
        let _ = (task, adapter, times);
        async {}
    }
    /// Trains on the local examples: with the engine, unless a port brings the program that computes an external model. What
    /// comes out is clipped, noised and sent in either case.
    fn train(
        &self,
        job: LocalTraining<'_>,
        device: &Device,
        observer: &mut impl Observer,
    ) -> impl Future<Output = Result<Trained, EngineError>> {
        let Task { model, training, .. } = job.task;
        let training = Training::new(model, job.examples, training).seed(job.seed);
        training
            .correction(job.correction)
            .run(job.start, device, observer)
    }
}
