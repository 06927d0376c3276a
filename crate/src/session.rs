//! Taking part: the one corridor of a client, from check-in to the acknowledged update, round after round.
//!
//! The order of a round is an invariant: the update is made, then the ledger is debited (in one transaction with keeping the
//! frame), and only then do the frame's bytes leave; a retry sends the kept bytes. A round that cannot be paid for is not begun.

use std::cell::{Cell, RefCell};

use unsaid_engine::Examples;
use unsaid_protocol::{CheckIn, CheckInReply, ClientId, ProblemKind};

use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    backend::{Backend, BackendChoice},
    events::{BudgetView, State},
    feed::{Feed, is_after},
    ports::{Clock, Listener, Ports, Relay, RelayFault, Store},
    random::Random,
    task::Task,
};

mod delivery;
mod patience;
mod round;

pub(crate) use self::patience::ask;
pub use self::{delivery::read_pending, patience::Patience};
use self::{
    patience::{LONGEST_WAIT_MS, wait_for},
    round::SharedModel,
};

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
    /// As many rounds were paid for in the last 24 hours as the person allows.
    DailyLimit,
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

/// How often in a row a client checks in again because the relay does not have the model that it just named.
const MODELS_GONE: u32 = 3;

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
            Err(ClientError::DailyLimit { .. }) if done > 0 => Ending::DailyLimit,
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
        let enough = |done: u32| rounds.is_some_and(|rounds| done >= rounds);
        let client = self.ports.store().client_id(self.task.shared_id()).await?;
        // What an earlier run paid for and could not deliver comes first, whatever is missing for a new round.
        if let Some(pending) = self.ports.store().pending().await?
            && let RoundEnd::Counted = self.deliver(client, &pending, abort).await?
        {
            *done += 1;
        }
        if enough(*done) {
            return Ok(Ending::RoundsDone);
        }
        let (x, y) = self.ports.store().examples().await?;
        let (features, classes) = (self.task.model.features(), self.task.model.classes());
        // Where single examples are protected, that there are none is not to be seen: the update is noise.
        let examples = if self.task.gradient_noise.is_some() && x.is_empty() && y.is_empty() {
            Examples::none(features, classes)
        } else {
            Examples::new(x, y, features, classes)?
        };
        let mut gone = 0;
        loop {
            self.can_afford().await?;
            self.say(State::CheckingIn, None);
            let heard = self.feed.newest();
            match self.check_in(client, abort).await? {
                CheckInReply::Train { round, model, .. } => {
                    let start = self.ports.clock().now_ms();
                    self.say(State::Downloading, Some(round));
                    let wait = match self.fetch_model(model, abort).await {
                        // The round closed meanwhile, and the relay no longer has what it started from.
                        Err(ClientError::Refused(problem))
                            if gone < MODELS_GONE && problem.kind() == Some(ProblemKind::NotFound) =>
                        {
                            gone += 1;
                            self.patience.first_wait_ms
                        }
                        fetched => {
                            gone = 0;
                            let end = self.round(client, round, start, fetched?, &examples, abort);
                            if let RoundEnd::Counted = end.await? {
                                *done += 1;
                            }
                            LONGEST_WAIT_MS
                        }
                    };
                    if enough(*done) {
                        return Ok(Ending::RoundsDone);
                    }
                    self.wait_after(round, wait, abort).await?;
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
        Ok(self.task.model.predict(&model.numbers.0, x)?)
    }

    /// The budget as it stands.
    ///
    /// # Errors
    /// [`ClientError::Storage`].
    pub async fn budget(&self) -> Result<BudgetView, ClientError> {
        budget(self.ports.store(), Some(&self.task)).await
    }

    /// The ledger, as it is stored, for the person to keep or to read elsewhere.
    ///
    /// # Errors
    /// [`ClientError::Storage`].
    pub async fn export_ledger(&self) -> Result<String, ClientError> {
        let mut json = String::new();
        let mut read = |ledger: &mut unsaid_privacy::Ledger| {
            json = ledger.to_json();
            Ok(())
        };
        self.ports.store().change_ledger(None, &mut read).await?;
        Ok(json)
    }

    /// Forgets the ledger, and with it every identity by which a relay could tell that its owner came back: client ids, and updates
    /// that were not acknowledged. Examples stay. What was spent stays spent, but nothing counts it any more.
    ///
    /// # Errors
    /// [`ClientError::Busy`] while this client takes part; [`ClientError::Storage`].
    pub async fn erase_ledger(&self) -> Result<(), ClientError> {
        if self.running.get() {
            return Err(ClientError::Busy);
        }
        self.ports.store().erase().await
    }

    /// Refuses a round that the person's limits do not allow, before any work is done for it.
    async fn can_afford(&self) -> Result<(), ClientError> {
        let Some(cost) = self.task.round_cost() else {
            return Ok(());
        };
        let (per_day, now_ms) = (self.task.rounds_per_day, self.ports.clock().unix_ms());
        let mut check = |ledger: &mut unsaid_privacy::Ledger| {
            ledger.check_day(per_day, now_ms)?;
            let (would_be, limit) = (ledger.if_one_more(cost), ledger.budget().epsilon());
            if would_be > limit {
                return Err(ClientError::BudgetExhausted { would_be, limit });
            }
            Ok(())
        };
        self.ports.store().change_ledger(None, &mut check).await
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

/// The budget as a person reads it.
///
/// # Errors
/// [`ClientError::Storage`].
pub(crate) async fn budget(store: &impl Store, task: Option<&Task>) -> Result<BudgetView, ClientError> {
    let cost = task.and_then(Task::round_cost);
    let mut view = None;
    let mut look = |ledger: &mut unsaid_privacy::Ledger| {
        view = Some(BudgetView {
            epsilon: ledger.budget().epsilon(),
            delta: ledger.budget().delta(),
            spent: ledger.spent_epsilon(),
            left: ledger.left_epsilon(),
            rounds: ledger.count(),
            unit: if ledger.spent().is_of_updates() {
                "update"
            } else {
                "example"
            },
            if_one_more: cost.map(|cost| ledger.if_one_more(cost)),
        });
        Ok(())
    };
    store.change_ledger(None, &mut look).await?;
    view.ok_or_else(|| ClientError::Internal("the ledger was not looked at".into()))
}
