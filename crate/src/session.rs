//! Taking part: the one corridor of a client, from check-in to the acknowledged update, round after round.
//!
//! The order of a round is an invariant: the update is made, then the ledger is debited (in one transaction with keeping the
//! frame), and only then do the frame's bytes leave; a retry sends the kept bytes. A round that cannot be paid for is not begun.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use unsaid_engine::{Control, Device, EngineError, Examples, Observer, Progress, TrainSpec, train};
use unsaid_privacy::{Charge, Receipt};
use unsaid_protocol::{CheckIn, CheckInReply, ClientId, ContentHash, ProblemKind, UpdateFrame};

use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    backend::{self, Backend, BackendChoice},
    events::{BudgetView, RelayStatus, State, UploadStatus},
    feed::{Feed, is_after},
    ports::{Clock, Listener, Pending, Ports, Relay, RelayFault, Store},
    protect::{Protected, protect},
    random::Random,
    task::Task,
};

/// How a client behaves towards a relay that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one request, the first included.
    pub attempts: u32,
    /// The first wait; each further one is twice as long, up to 15 s, give or take a quarter.
    pub first_wait_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_wait_ms: 500,
        }
    }
}

const LONGEST_WAIT_MS: u64 = 15_000;
/// The longest wait that a relay can ask for: a wrong `Retry-After` must not park a client for good, and a browser's timer that is
/// set for more than 2³¹ ms fires at once.
const LONGEST_RETRY_AFTER_MS: u64 = 600_000;
/// Time between two reports, and two breaths, of a training run: a stop is heard within this.
const BREATH_MS: f64 = 40.0;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ending {
    /// The rounds asked for were done.
    RoundsDone,
    /// The task has published its last round.
    Finished,
    /// The caller stopped it.
    Aborted,
    /// The next round would cost more than the person allows.
    BudgetExhausted,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Rounds that counted an update of this client.
    pub rounds: u32,
    /// Why it ended.
    pub reason: Ending,
    /// Where it trained last: `cpu` or `webgpu`; `none` where it did not train.
    pub backend: &'static str,
}

/// A client of one task.
#[derive(Debug)]
pub struct Session<P: Ports> {
    /// The ports.
    pub ports: P,
    /// The task.
    pub task: Task,
    /// The open round, as events tell it.
    pub feed: Feed,
    /// Patience with the relay.
    pub patience: Patience,
    choice: BackendChoice,
    // What follows changes while the page may ask for a prediction or the budget; no borrow is held across an await.
    running: Cell<bool>,
    backend: RefCell<Option<Backend>>,
    random: RefCell<Random>,
    model: RefCell<Option<SharedModel>>,
}

/// A model that was downloaded and checked.
#[derive(Debug, Clone)]
struct SharedModel {
    hash: ContentHash,
    parameters: Rc<[f32]>,
}

/// Frees the session for the next run, however this one ends: a run that is dropped half-way too.
struct Running<'a>(&'a Cell<bool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// How one round ended for this client.
enum RoundEnd {
    Counted,
    NotCounted,
}

impl<P: Ports> Session<P> {
    /// A client of `task`.
    pub fn new(ports: P, task: Task, feed: Feed, choice: BackendChoice, patience: Patience) -> Self {
        let (running, backend, random, model) = Default::default();
        Self {
            ports,
            task,
            feed,
            patience,
            choice,
            running,
            backend,
            random,
            model,
        }
    }

    /// Takes part until `rounds` rounds have counted an update (or the task ends, the budget is spent, or `abort`).
    ///
    /// # Errors
    /// [`ClientError`]. An update that was debited and not acknowledged is kept, and is the first thing that the next run sends.
    pub async fn run(&self, rounds: Option<u32>, abort: &Abort) -> Result<RunSummary, ClientError> {
        if self.running.replace(true) {
            return Err(ClientError::Busy);
        }
        let running = Running(&self.running);
        let mut done = 0;
        let result = self.rounds(rounds, &mut done, abort).await;
        drop(running);
        self.say(State::Stopped, None);
        let reason = match result {
            Ok(reason) => reason,
            Err(ClientError::Aborted) => Ending::Aborted,
            Err(ClientError::BudgetExhausted { .. }) if done > 0 => Ending::BudgetExhausted,
            Err(error) => return Err(error),
        };
        let backend = self.backend.borrow().as_ref().map_or("none", Backend::name);
        Ok(RunSummary {
            rounds: done,
            reason,
            backend,
        })
    }

    async fn rounds(
        &self,
        rounds: Option<u32>,
        done: &mut u32,
        abort: &Abort,
    ) -> Result<Ending, ClientError> {
        let client = self.ports.store().client_id().await?;
        let (x, y) = self.ports.store().examples().await?;
        let examples = Examples::new(x, y, self.task.model.features(), self.task.model.classes())?;
        if let Some(pending) = self.ports.store().pending().await? {
            // What an earlier run paid for and could not deliver.
            if let RoundEnd::Counted = self.deliver(client, &pending, abort).await? {
                *done += 1;
            }
        }
        while rounds.is_none_or(|rounds| *done < rounds) {
            self.can_afford().await?;
            self.say(State::CheckingIn, None);
            let heard = self.feed.newest();
            match self.check_in(client, abort).await? {
                CheckInReply::Train { round, model, .. } => {
                    if let RoundEnd::Counted = self.round(client, round, model, &examples, abort).await? {
                        *done += 1;
                    }
                    if rounds.is_some_and(|rounds| *done >= rounds) {
                        break;
                    }
                    self.wait_after(round, LONGEST_WAIT_MS, abort).await?;
                }
                CheckInReply::Wait {
                    round,
                    retry_after_ms,
                } => {
                    // The answer is newer than what the feed had said before the question. A feed that was ahead of it then has
                    // lost its relay (which began again from an older state), and believing it would mean asking without end.
                    if heard.is_some_and(|state| is_after(&state, round)) {
                        self.say(State::Waiting, Some(round));
                        let wait = self
                            .ports
                            .clock()
                            .sleep(retry_after_ms.clamp(50, LONGEST_WAIT_MS));
                        abort.guard(wait).await?;
                    } else {
                        self.wait_after(round, retry_after_ms, abort).await?;
                    }
                }
                CheckInReply::Finished { .. } => return Ok(Ending::Finished),
                _ => {
                    return Err(ClientError::BadManifest(
                        "the relay speaks a later protocol".into(),
                    ));
                }
            }
        }
        Ok(Ending::RoundsDone)
    }

    /// One round: model, training, protection, payment, delivery.
    async fn round(
        &self,
        client: ClientId,
        round: u64,
        model: ContentHash,
        examples: &Examples,
        abort: &Abort,
    ) -> Result<RoundEnd, ClientError> {
        let start = self.ports.clock().now_ms();
        self.say(State::Downloading, Some(round));
        let (
            SharedModel {
                parameters: before, ..
            },
            bytes_down,
        ) = self.fetch_model(model, abort).await?;
        self.say(State::Training, Some(round));
        let after = self.train(round, &before, examples, abort).await?;
        self.say(State::Protecting, Some(round));
        let Protected {
            update,
            frame,
            report,
        } = protect(
            &self.task,
            client,
            round,
            model,
            &before,
            &after,
            &mut self.random.borrow_mut(),
        )?;
        self.hear(SessionEvent::Update(report));
        let pending = Pending { round, frame };
        match self.task.round_cost() {
            Some(rho) => {
                let charge = Charge {
                    task: self.task.manifest.task.to_string(),
                    round,
                    update: update.to_string(),
                    frame_sha256: ContentHash::of(&pending.frame).to_string(),
                    rho,
                    at_ms: self.ports.clock().unix_ms(),
                };
                let debit = |ledger: &mut unsaid_privacy::Ledger| Ok(ledger.debit(charge)?);
                let _: Receipt = self.ports.store().change_ledger(Some(&pending), debit).await?;
                let budget = self.budget().await?;
                self.hear(SessionEvent::Budget(budget));
            }
            None => self.ports.store().keep_pending(&pending).await?,
        }
        let end = self.deliver(client, &pending, abort).await?;
        if let RoundEnd::Counted = end {
            let epsilon_spent = match self.task.round_cost() {
                Some(_) => Some(self.budget().await?.spent),
                None => None,
            };
            self.hear(SessionEvent::Contribution {
                round,
                seconds: (self.ports.clock().now_ms() - start) / 1000.0,
                bytes_up: pending.frame.len() as u64,
                bytes_down,
                epsilon_spent,
            });
        }
        Ok(end)
    }

    /// Trains on the chosen back end; the new parameters.
    async fn train(
        &self,
        round: u64,
        before: &[f32],
        examples: &Examples,
        abort: &Abort,
    ) -> Result<Vec<f32>, ClientError> {
        let known = self.backend.borrow().clone();
        let backend = match known {
            Some(backend) => backend,
            None => {
                let chosen =
                    backend::choose(&self.ports, self.choice, &self.task, before, examples, abort).await?;
                self.backend.replace(Some(chosen.clone()));
                chosen
            }
        };
        let seed = u64::from_le_bytes(self.random.borrow_mut().bytes()?);
        let clock = self.ports.clock();
        let now = clock.now_ms();
        let mut watch = Watch {
            ports: &self.ports,
            round,
            abort,
            breath: now,
            epoch_start: now,
            fallback: None,
        };
        let spec: &TrainSpec = &self.task.training;
        let trained = train(
            &self.task.model,
            before,
            examples,
            spec,
            seed,
            &backend.device,
            &mut watch,
        )
        .await?;
        if let Some(reason) = watch.fallback {
            // A device that was lost is not asked again in this session.
            self.backend.replace(Some(Backend { device: Device::Cpu }));
            self.hear(SessionEvent::Backend {
                backend: "cpu",
                reason,
                adapter: None,
                cpu_ms_per_step: None,
                gpu_ms_per_step: None,
                fallback: true,
            });
        }
        Ok(trained.parameters)
    }

    /// Sends the kept bytes until the relay has counted them, refused them, or closed their round.
    async fn deliver(
        &self,
        client: ClientId,
        pending: &Pending,
        abort: &Abort,
    ) -> Result<RoundEnd, ClientError> {
        let Pending { round, frame } = pending;
        let (round, bytes) = (*round, frame.len());
        self.say(State::Uploading, Some(round));
        let mut attempt = 0;
        let mut checked_in_again = false;
        let upload = |attempt, status, retry_in_ms, detail| SessionEvent::Upload {
            round,
            attempt,
            bytes,
            status,
            retry_in_ms,
            detail,
        };
        let end = loop {
            attempt += 1;
            self.hear(upload(attempt, UploadStatus::Sending, None, None));
            let fault = match abort.guard(self.ports.relay().send(frame)).await? {
                Ok(reply) => {
                    let status = if reply.duplicate {
                        UploadStatus::Duplicate
                    } else {
                        UploadStatus::Accepted
                    };
                    self.hear(upload(attempt, status, None, None));
                    break Ok(RoundEnd::Counted);
                }
                Err(fault) => fault,
            };
            if let RelayFault::Refused { problem, .. } = &fault {
                match problem.kind() {
                    Some(
                        ProblemKind::RoundClosed | ProblemKind::WrongRound | ProblemKind::AlreadyReported,
                    ) => {
                        let detail = Some(problem.detail.clone());
                        self.hear(upload(attempt, UploadStatus::Late, None, detail));
                        break Ok(RoundEnd::NotCounted);
                    }
                    Some(ProblemKind::NotCheckedIn) if !checked_in_again => {
                        checked_in_again = true;
                        self.check_in(client, abort).await?;
                        continue;
                    }
                    // One that was kept from before the manifest changed, where the client has agreed to the new one since.
                    Some(ProblemKind::WrongManifest) if read_pending(pending)?.manifest != self.task.hash => {
                        let detail = Some(problem.detail.clone());
                        self.hear(upload(attempt, UploadStatus::Late, None, detail));
                        break Ok(RoundEnd::NotCounted);
                    }
                    Some(ProblemKind::WrongManifest) => break Err(ClientError::ManifestChanged),
                    Some(kind) if kind.is_temporary() => {}
                    _ => break Err(ClientError::Refused(problem.clone())),
                }
            }
            let (wait, detail) = self.wait_for(&fault, attempt)?;
            self.hear(upload(attempt, UploadStatus::Retrying, Some(wait), Some(detail)));
            abort.guard(self.ports.clock().sleep(wait)).await?;
        };
        // Counted or refused for good, these bytes are never sent again.
        self.ports.store().clear_pending().await?;
        end
    }

    async fn check_in(&self, client: ClientId, abort: &Abort) -> Result<CheckInReply, ClientError> {
        let message = CheckIn {
            client,
            manifest: self.task.hash,
        };
        self.ask(abort, |ports| {
            let message = message.clone();
            async move { ports.relay().check_in(&message).await }
        })
        .await
    }

    /// Makes the model `hash` the current one; the bytes that were fetched for it.
    async fn fetch_model(&self, hash: ContentHash, abort: &Abort) -> Result<(SharedModel, u64), ClientError> {
        let current = self.model.borrow().clone();
        if let Some(current) = current.filter(|current| current.hash == hash) {
            return Ok((current, 0));
        }
        // Four bytes a parameter, and room for the header.
        let max_bytes = 4 * self.task.model.parameter_count() + (1 << 20);
        let bytes = self
            .ask(abort, |ports| async move {
                ports.relay().model(hash, max_bytes).await
            })
            .await?;
        let found = ContentHash::of(&bytes);
        if found != hash {
            let reason = format!("its bytes have the hash {found}, but {hash} was announced");
            return Err(ClientError::BadModel(reason));
        }
        let parameters = self
            .task
            .model
            .from_safetensors(&bytes)
            .map_err(EngineError::from)?;
        let fetched = SharedModel {
            hash,
            parameters: parameters.into(),
        };
        self.model.replace(Some(fetched.clone()));
        Ok((fetched, bytes.len() as u64))
    }

    /// The newest shared model's probabilities for each row of `x`: `[rows, features] → [rows, classes]`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn predict(&self, x: &[f32], abort: &Abort) -> Result<Vec<f32>, ClientError> {
        let newest = match self.feed.newest() {
            Some(state) => state.model,
            None => {
                self.ask(abort, |ports| async move { ports.relay().round().await })
                    .await?
                    .model
            }
        };
        let (model, _) = self.fetch_model(newest, abort).await?;
        Ok(self.task.model.predict(&model.parameters, x)?)
    }

    /// The budget as it stands.
    ///
    /// # Errors
    /// [`ClientError::Storage`].
    pub async fn budget(&self) -> Result<BudgetView, ClientError> {
        budget(self.ports.store(), Some(&self.task)).await
    }

    /// Refuses a round that the person's limit does not allow, before any work is done for it.
    async fn can_afford(&self) -> Result<(), ClientError> {
        if self.task.round_cost().is_none() {
            return Ok(());
        }
        let view = self.budget().await?;
        match view.if_one_more {
            Some(would_be) if would_be > view.epsilon => Err(ClientError::BudgetExhausted {
                would_be,
                limit: view.epsilon,
            }),
            _ => Ok(()),
        }
    }

    /// Waits until a round after `round` opens, or `at_most_ms` have passed.
    async fn wait_after(&self, round: u64, at_most_ms: u64, abort: &Abort) -> Result<(), ClientError> {
        self.say(State::Waiting, Some(round));
        let opened = std::pin::pin!(self.feed.after(round));
        let timer = std::pin::pin!(self.ports.clock().sleep(at_most_ms.clamp(50, LONGEST_WAIT_MS)));
        abort
            .guard(futures_util::future::select(opened, timer))
            .await
            .map(drop)
    }

    /// Asks the relay, again and again while that can help.
    async fn ask<'a, T, F>(&'a self, abort: &Abort, request: impl Fn(&'a P) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, RelayFault>> + 'a,
    {
        ask(&self.ports, self.patience, abort, request).await
    }

    fn wait_for(&self, fault: &RelayFault, attempt: u32) -> Result<(u64, String), ClientError> {
        wait_for(self.ports.clock(), self.patience, fault, attempt)
    }

    fn say(&self, state: State, round: Option<u64>) {
        self.hear(SessionEvent::State { state, round });
    }

    fn hear(&self, event: SessionEvent) {
        self.ports.listener().hear(event);
    }
}

/// Asks the relay, again and again while that can help.
///
/// # Errors
/// [`ClientError::RelayUnreachable`] after the last try, [`ClientError::Refused`] and [`ClientError::ManifestChanged`] at once.
pub(crate) async fn ask<'a, P: Ports, T, F>(
    ports: &'a P,
    patience: Patience,
    abort: &Abort,
    request: impl Fn(&'a P) -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, RelayFault>> + 'a,
{
    let relay = |status, detail, retry_in_ms| SessionEvent::Relay {
        status,
        detail,
        retry_in_ms,
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let fault = match abort.guard(request(ports)).await? {
            Ok(answer) => {
                if attempt > 1 {
                    ports
                        .listener()
                        .hear(relay(RelayStatus::Back, "the relay answers again".into(), None));
                }
                return Ok(answer);
            }
            Err(fault) => fault,
        };
        if let RelayFault::Refused { problem, .. } = &fault {
            match problem.kind() {
                Some(ProblemKind::WrongManifest) => return Err(ClientError::ManifestChanged),
                Some(kind) if kind.is_temporary() => {}
                _ => return Err(ClientError::Refused(problem.clone())),
            }
        }
        let (wait, detail) = wait_for(ports.clock(), patience, &fault, attempt)?;
        ports
            .listener()
            .hear(relay(RelayStatus::Unreachable, detail, Some(wait)));
        abort.guard(ports.clock().sleep(wait)).await?;
    }
}

/// How long to wait after a temporary fault, and what it was; an error where patience has run out.
fn wait_for(
    clock: &impl Clock,
    patience: Patience,
    fault: &RelayFault,
    attempt: u32,
) -> Result<(u64, String), ClientError> {
    let (detail, told) = match fault {
        RelayFault::Unreachable(detail) => (detail.clone(), None),
        RelayFault::Refused {
            problem,
            retry_after_ms,
        } => (problem.detail.clone(), *retry_after_ms),
    };
    if attempt >= patience.attempts {
        return Err(ClientError::RelayUnreachable(detail));
    }
    let backoff = patience
        .first_wait_ms
        .saturating_mul(1 << (attempt - 1).min(20))
        .min(LONGEST_WAIT_MS);
    // The clock's low digits spread clients that failed at the same moment; nothing secret depends on them.
    let spread = backoff / 4;
    let jitter = (clock.now_ms() * 1000.0) as u64 % (2 * spread + 1);
    let told = told.unwrap_or(0).min(LONGEST_RETRY_AFTER_MS);
    Ok((told.max(backoff - spread + jitter), detail))
}

/// The budget as a person reads it.
///
/// # Errors
/// [`ClientError::Storage`].
pub(crate) async fn budget(store: &impl Store, task: Option<&Task>) -> Result<BudgetView, ClientError> {
    let cost = task.and_then(Task::round_cost);
    let view = |ledger: &mut unsaid_privacy::Ledger| {
        Ok(BudgetView {
            epsilon: ledger.budget().epsilon(),
            delta: ledger.budget().delta(),
            spent: ledger.spent_epsilon(),
            left: ledger.left_epsilon(),
            rounds: ledger.count(),
            if_one_more: cost.map(|rho| ledger.if_one_more(rho)),
        })
    };
    store.change_ledger(None, view).await
}

/// The update frame of a kept update, for whoever wants to look inside.
///
/// # Errors
/// [`ClientError::Internal`] where the kept bytes are none.
pub fn read_pending(pending: &Pending) -> Result<UpdateFrame, ClientError> {
    UpdateFrame::decode(&pending.frame).map_err(|error| ClientError::Internal(error.to_string()))
}

/// Watches training: reports, breathes, stops.
struct Watch<'a, P: Ports> {
    ports: &'a P,
    round: u64,
    abort: &'a Abort,
    breath: f64,
    epoch_start: f64,
    fallback: Option<String>,
}

impl<P: Ports> Observer for Watch<'_, P> {
    async fn progress(&mut self, progress: Progress<'_>) -> Control {
        let (round, clock) = (self.round, self.ports.clock());
        let now = clock.now_ms();
        match progress {
            Progress::Step {
                epoch,
                epochs,
                step,
                steps,
                ..
            } if now - self.breath >= BREATH_MS || step == steps => {
                self.ports.listener().hear(SessionEvent::Step {
                    round,
                    epoch,
                    epochs,
                    step,
                    steps,
                });
                clock.give_way().await;
                self.breath = clock.now_ms();
            }
            Progress::Epoch { epoch, epochs, loss } => {
                let seconds = (now - self.epoch_start) / 1000.0;
                self.epoch_start = now;
                self.ports.listener().hear(SessionEvent::Epoch {
                    round,
                    epoch,
                    epochs,
                    loss,
                    seconds,
                });
            }
            Progress::Fallback { reason } => self.fallback = Some(format!("WebGPU was lost: {reason}")),
            _ => {}
        }
        if self.abort.is_stopped() {
            Control::Stop
        } else {
            Control::Continue
        }
    }
}
