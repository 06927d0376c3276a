//! One thread per task, the only one of this relay that changes it; other relays are kept out, and listened to, by the store
//! ([`Store::turn`]). It takes all that waits in its mailbox, applies it, commits once
//! (group commit), shows readers what it committed, and only then answers: whoever was answered reads what was counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, oneshot, watch};
use unsaid_protocol::{CheckIn, CheckInReply, ContentHash, Event, IdentityId, UpdateReply};

use crate::{
    clock::Clock,
    fall::Guard,
    http::uploads,
    lineage::RoundRecord,
    live::{Live, OpenError, TaskConfig},
    round::{Claim, Refusal},
    snapshot::{Numbered, Snapshot},
    store::{Changes, Mark, News, Stage, Store, StoreError, Turn},
};

#[cfg(test)]
mod tests;

/// The most commands that one commit takes together.
const MAX_BATCH: usize = 256;

/// The longest that what came waits for more to share its commit, where more is under way.
const GATHER: Duration = Duration::from_millis(3);

/// How often the round's counts are announced at most: a thousand check-ins are not a thousand events to a thousand tabs.
const ANNOUNCE_EVERY_MS: u64 = 100;

/// How long to wait before trying a store again that failed.
const RETRY_MS: u64 = 1_000;

/// The longest that a task is not looked at: its deadline may have been moved by a clock that was set back.
const IDLE_MS: u64 = 60_000;

/// Events that a slow reader may fall behind before it is sent the current state instead.
const EVENT_BACKLOG: usize = 256;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The task's state refuses it.
    Refused(Refusal),
    /// The store failed: nothing was counted.
    Store,
}

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// An update, with what the checks of its coordinates found.
#[derive(Debug)]
pub struct Submission {
    /// What decides whether it is accepted.
    pub claim: Claim,
    /// The coordinates, or why they do not fit the task.
    pub coordinates: Result<Vec<i32>, Refusal>,
}

/// A model to go back to.
#[derive(Debug)]
pub struct OlderModel {
    /// The round that it came from.
    pub round: u64,
    /// Its name.
    pub model: ContentHash,
    /// It, as safetensors.
    pub bytes: Vec<u8>,
    /// It, `[d]`.
    pub parameters: Vec<f32>,
    /// The control variate that belongs to it, `[d]`; empty where the task has none.
    pub control: Vec<f32>,
}

/// The operator went back to an older model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct RolledBack {
    /// The round that this was: it published the older model.
    pub round: u64,
    /// The round that the model came from.
    pub to: u64,
    /// The model.
    pub model: ContentHash,
    /// Updates of the open round that were given up.
    pub discarded: u32,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Command {
    /// A client asks to take part, and the identity that signed for it, where the task asks for one.
    CheckIn(CheckIn, Option<IdentityId>, Reply<CheckInReply>),
    /// A client reports. The place and the memory that it was received with are given back with the answer.
    Update(Submission, Option<uploads::Turn>, Reply<UpdateReply>),
    /// The operator lets no more clients in, or lets them in again.
    Pause(bool, Reply<()>),
    /// The operator goes back to an older model.
    RollBack(OlderModel, Reply<RolledBack>),
    /// A model was evaluated.
    Evaluated(RoundRecord),
    /// Another relay that shares the store has brought the task to this version.
    Look(u64),
    /// End the thread.
    Stop,
}

impl Command {
    /// The identity that signed for it.
    pub fn identity(&self) -> Option<IdentityId> {
        match self {
            Self::CheckIn(_, who, _) => *who,
            Self::Update(submission, ..) => submission.claim.identity,
            _ => None,
        }
    }
}

/// What readers of a task see.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The state as of the last commit.
    pub snapshot: watch::Receiver<Snapshot>,
    /// What happened since.
    pub events: broadcast::Sender<Numbered>,
    /// Whether the store did its last work for the task.
    pub healthy: Arc<AtomicBool>,
    /// Updates that are being received, or wait for their answer.
    pub under_way: Arc<AtomicUsize>,
}

/// The thread's own state.
pub struct Actor {
    config: Arc<TaskConfig>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// None after the store failed: what is on disk then is not known until it is read.
    live: Option<Live>,
    /// Where the task of the store stood that `live` is.
    stage: Stage,
    /// Whether another relay has brought it further, or may have.
    behind: bool,
    /// Whether another relay runs the task under another manifest: then this one asks the store again only from time to time.
    outdated: bool,
    /// How far the clock that all relays of the store go by is ahead of this machine's, in milliseconds.
    ahead_ms: i64,
    /// When the store was last looked at.
    looked_ms: u64,
    evaluation: Option<mpsc::Sender<RoundRecord>>,
    snapshot: watch::Sender<Snapshot>,
    events: broadcast::Sender<Numbered>,
    healthy: Arc<AtomicBool>,
    under_way: Arc<AtomicUsize>,
    announced_ms: u64,
    unannounced: bool,
    /// Whether the store may hold rounds that readers were not told of: a commit was written that was thought to have failed.
    untold: bool,
}

impl Actor {
    /// Loads the task, or begins it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(
        config: Arc<TaskConfig>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        evaluation: Option<mpsc::Sender<RoundRecord>>,
    ) -> Result<(Self, Outlook), OpenError> {
        let mut turn = store.turn(&config.manifest.task)?;
        let mut changes = Changes::default();
        let ahead_ms = ahead_ms(turn.now_ms(), clock.now_ms());
        let now_ms = clock.now_ms().saturating_add_signed(ahead_ms);
        let live = Live::open(&config, &mut *turn, now_ms, &mut changes)?;
        let mut stage = turn.stage();
        if changes.is_empty() {
            drop(turn);
        } else {
            stage = turn.commit(&changes)?;
        }
        let history = store.rounds(&config.manifest.task)?;
        let mut first = Snapshot::new(&config, &live, &history)?;
        first.ahead_ms = ahead_ms;
        if let Some(evaluation) = &evaluation {
            for metrics in history.iter().filter(|metrics| metrics.accuracy.is_none()) {
                let _ = evaluation.send(metrics.clone()); // the thread ends only after this one
            }
        }
        let (snapshot, receiver) = watch::channel(first);
        let events = broadcast::Sender::new(EVENT_BACKLOG);
        let outlook = Outlook {
            snapshot: receiver,
            events: events.clone(),
            healthy: Arc::new(AtomicBool::new(true)),
            under_way: Arc::default(),
        };
        let (healthy, under_way) = (outlook.healthy.clone(), outlook.under_way.clone());
        let actor = Self {
            config,
            store,
            clock,
            live: Some(live),
            stage,
            behind: true, // nobody listened since the turn above
            outdated: false,
            ahead_ms,
            looked_ms: 0,
            evaluation,
            snapshot,
            events,
            healthy,
            under_way,
            announced_ms: 0,
            unannounced: false,
            untold: false,
        };
        Ok((actor, outlook))
    }

    /// Starts the thread, which holds `guard`.
    ///
    /// # Errors
    /// The operating system's, where it starts no thread.
    pub(crate) fn spawn(
        mut self,
        mailbox: mpsc::Receiver<Command>,
        guard: Guard,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let name = format!("task {}", self.config.manifest.task);
        thread::Builder::new().name(name).spawn(move || {
            let _guard = guard;
            self.run(&mailbox);
        })
    }

    /// Does what comes, until it is told to stop or nobody can tell it anything any more.
    pub fn run(&mut self, mailbox: &mpsc::Receiver<Command>) {
        loop {
            let mut batch = Vec::new();
            let wait = self.patience().max(Duration::from_millis(1));
            match mailbox.recv_timeout(wait) {
                Ok(command) => batch.push(command),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.gather(mailbox, &mut batch);
            let stop = batch.iter().position(|command| matches!(command, Command::Stop));
            batch.truncate(stop.unwrap_or(batch.len()));
            let came = batch.len();
            batch.retain(|command| match command {
                Command::Look(version) => {
                    self.behind |= *version > self.stage.version;
                    false
                }
                _ => true,
            });
            let mut stopped = false;
            let nothing_else = came > 0 && batch.is_empty();
            if !(nothing_else && stop.is_none() && !self.patience().is_zero()) {
                stopped = self.turn(batch, mailbox);
            } // otherwise what others did is looked at when its time has come
            if stop.is_some() || stopped {
                return;
            }
        }
    }

    /// Takes what waits. A commit costs about as much for one update as for many: where updates come, it waits until three of four that are
    /// under way are here, or [enough](Self::enough). The others are received while the disk writes.
    fn gather(&self, mailbox: &mpsc::Receiver<Command>, batch: &mut Vec<Command>) {
        let is_update = |command: &Command| matches!(command, Command::Update(..));
        batch.extend(mailbox.try_iter().take(MAX_BATCH - batch.len()));
        let mut updates = batch.iter().filter(|command| is_update(command)).count();
        let (until, enough) = (Instant::now() + GATHER, self.enough());
        while updates > 0
            && updates < enough
            && 4 * updates < 3 * self.under_way.load(Ordering::Relaxed)
            && batch.len() < MAX_BATCH
        {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(command) = mailbox.recv_timeout(left) else {
                return;
            };
            updates += usize::from(is_update(&command));
            batch.push(command);
        }
    }

    /// Updates beyond which none are waited for. Where a commit is one record of a journal it costs little more than to add that many up, and they are
    /// still near the processor then; what comes meanwhile shares the next one.
    fn enough(&self) -> usize {
        let is_record = self.config.identity.is_none() && !self.config.strategy.aggregation.needs_updates();
        match is_record && self.store.has_journal(&self.config.manifest.task) {
            true => 4,
            false => MAX_BATCH,
        }
    }

    /// How long nothing has to be done if nothing comes.
    fn patience(&self) -> Duration {
        let now_ms = self.now_ms();
        let Some(live) = &self.live else {
            return Duration::from_millis(left_ms(self.looked_ms, RETRY_MS, now_ms));
        };
        let span = live.rounds.span();
        let deadline = span.map(|span| span.deadline_ms.saturating_sub(now_ms));
        let announcement = self
            .unannounced
            .then(|| left_ms(self.announced_ms, ANNOUNCE_EVERY_MS, now_ms));
        let look = self
            .behind
            .then(|| left_ms(self.looked_ms, ANNOUNCE_EVERY_MS, now_ms));
        let untold = self.untold.then(|| left_ms(self.looked_ms, RETRY_MS, now_ms));
        let times = [deadline, announcement, look, untold];
        Duration::from_millis(times.into_iter().flatten().fold(IDLE_MS, u64::min))
    }

    /// The time by the clock that all relays of the store go by.
    fn now_ms(&self) -> u64 {
        self.clock.now_ms().saturating_add_signed(self.ahead_ms)
    }

    /// Applies a batch, with what has come until its turn began, commits it, announces, answers: a client that asks again after its
    /// answer must not be told less. Says whether it was told to stop meanwhile.
    fn turn(&mut self, mut batch: Vec<Command>, mailbox: &mpsc::Receiver<Command>) -> bool {
        let (config, store) = (self.config.clone(), self.store.clone());
        let task = &config.manifest.task;
        if self.outdated && !self.patience().is_zero() {
            batch
                .into_iter()
                .for_each(|command| Answer::failed(command).send(false));
            return false;
        }
        self.looked_ms = self.now_ms();
        self.untold |= self.live.is_none();
        let (mut live, mut turn, theirs) = match self.begin(&config, &*store, &batch) {
            Ok(begun) => begun,
            Err(error) => {
                // Whoever came while the store said nothing would wait as long again.
                batch.extend(mailbox.try_iter());
                return self.unread(&error, batch);
            }
        };
        if !turn.is_ahead() {
            batch.extend(mailbox.try_iter().take(MAX_BATCH.saturating_sub(batch.len())));
        } // otherwise updates among them would have the sum written again, while others wait for their turns
        let stop = batch.iter().position(|command| matches!(command, Command::Stop));
        batch.truncate(stop.unwrap_or(batch.len()));
        // Of all that are in the turn, those that came while it was waited for too.
        if let Err(error) = live.meet(&mut *turn, &mut batch) {
            return self.unread(&error.into(), batch) || stop.is_some();
        }
        self.ahead_ms = ahead_ms(turn.now_ms(), self.clock.now_ms());
        let now_ms = self.now_ms(); // after the wait for others' turns
        if let Err(error) = live.hear(&config, &mut *turn, &batch, now_ms) {
            return self.unread(&error, batch) || stop.is_some();
        }
        self.outdated = false;
        self.looked_ms = now_ms;
        let mut changes = Changes::default();
        live.tick(&config, now_ms, &mut changes);
        let answers: Vec<Answer> = batch
            .into_iter()
            .map(|command| live.apply(&config, command, now_ms, &mut changes))
            .collect();
        let stage = if changes.is_empty() {
            let stage = turn.stage();
            drop(turn); // others wait for its end, and whoever is answered finds nothing of it left
            Ok(stage)
        } else {
            live.complete(&config, &mut changes);
            let stage = turn.commit(&changes);
            live.take_back(&mut changes);
            stage
        };
        let committed = stage.is_ok();
        self.healthy.store(committed, Ordering::Relaxed);
        match stage {
            Ok(stage) => {
                self.announce(&live, theirs, &changes.rounds, now_ms);
                (self.live, self.stage, self.behind) = (Some(live), stage, false);
            }
            // `live` holds what may not be on disk: it is dropped, and read again.
            Err(error) => {
                tracing::warn!(%task, %error, "a commit failed; nothing of it is acknowledged");
            }
        }
        answers.into_iter().for_each(|answer| answer.send(committed));
        stop.is_some()
    }

    /// Begins a turn, with the task as it stands in the store, and the rounds that other relays published since the last one. Where the store
    /// keeps a sum of this relay's own, that is written before, with what waits.
    fn begin<'a>(
        &mut self,
        config: &'a TaskConfig,
        store: &'a dyn Store,
        batch: &[Command],
    ) -> Result<Begun<'a>, OpenError> {
        let task = &config.manifest.task;
        let mut known = self.live.take();
        if let Some(live) = &mut known {
            live.add_up_ahead(config, batch);
        }
        let mut turn = match known.as_ref().and_then(Live::ahead) {
            Some(ahead) => store.turn_after(task, ahead)?,
            None => store.turn(task)?,
        };
        if let (Some(live), false) = (&mut known, turn.is_ahead()) {
            live.drop_ahead();
        }
        let mut theirs = Vec::new();
        let live = match known {
            Some(live) if turn.stage() == self.stage => live,
            Some(mut live) => {
                let (stage, round) = (self.stage, live.rounds.round());
                match turn.news(Mark { stage, round })? {
                    Some(News { saved, rounds }) => {
                        live.catch_up(config, &mut *turn, &saved)?;
                        theirs = rounds;
                        live
                    }
                    None => {
                        tracing::warn!(
                            %task,
                            "the store does not know what this relay saw last (was it put back to an older state?); reading it again"
                        );
                        self.untold = true;
                        drop(turn); // with what was written ahead of it, for a lane that goes on no more
                        turn = store.turn(task)?;
                        Live::reopen(config, &mut *turn)?
                    }
                }
            }
            None => Live::reopen(config, &mut *turn)?,
        };
        Ok((live, turn, theirs))
    }

    /// What a turn ends with that could not read the store: nothing of its batch is done. Says whether that tells to stop.
    fn unread(&mut self, error: &OpenError, batch: Vec<Command>) -> bool {
        let stop = batch.iter().any(|command| matches!(command, Command::Stop));
        tracing::warn!(task = %self.config.manifest.task, %error, "the store cannot be read; trying again");
        self.healthy.store(false, Ordering::Relaxed);
        self.outdated = matches!(error, OpenError::OtherManifest(_) | OpenError::OtherShares);
        batch
            .into_iter()
            .for_each(|command| Answer::failed(command).send(false));
        stop
    }

    /// Tells readers what other relays published (`theirs`), and this one (`ours`), which also has its models evaluated.
    fn announce(&mut self, live: &Live, theirs: Vec<RoundRecord>, ours: &[RoundRecord], now_ms: u64) {
        if let Some(evaluation) = &self.evaluation {
            for metrics in ours.iter().filter(|metrics| metrics.accuracy.is_none()) {
                let _ = evaluation.send(metrics.clone()); // the thread ends only after this one
            }
        }
        let mut rounds = theirs;
        rounds.extend_from_slice(ours);
        if self.untold {
            match self.missed(live, &rounds) {
                Ok(missed) => {
                    rounds.splice(..0, missed);
                    self.untold = false;
                }
                Err(error) => tracing::warn!(%error, "the rounds cannot be read; trying again"),
            }
        }
        let event = |RoundRecord { metrics, .. }| match metrics.accuracy {
            Some(_) => Event::Evaluated(metrics),
            None => Event::Published(metrics),
        };
        let mut news: Vec<Event> = rounds.into_iter().map(event).collect();
        let opened = news.iter().any(|event| matches!(event, Event::Published(_)));
        let seq = self.snapshot.borrow().seq;
        let mut next = self.snapshot.borrow().after(live, &news);
        next.ahead_ms = self.ahead_ms;
        self.unannounced |= next.differs(&self.snapshot.borrow());
        if self.unannounced && (opened || left_ms(self.announced_ms, ANNOUNCE_EVERY_MS, now_ms) == 0) {
            news.push(Event::Round(next.state(self.clock.now_ms())));
            (self.unannounced, self.announced_ms) = (false, now_ms);
        }
        next.seq = seq + news.len() as u64;
        self.snapshot.send_replace(next);
        for (event, seq) in news.into_iter().zip(seq + 1..) {
            let _ = self.events.send(Numbered { seq, event }); // nobody may be listening
        }
    }
}

impl Actor {
    /// What a commit published although it was thought to have failed: rounds, and figures, that readers do not know. A model
    /// whose figures were lost with such a commit is evaluated again.
    fn missed(&self, live: &Live, announced: &[RoundRecord]) -> Result<Vec<RoundRecord>, StoreError> {
        let history = self.store.rounds(&self.config.manifest.task)?;
        let known = self.snapshot.borrow().newest.clone();
        let is_known = |metrics: &RoundRecord| (metrics.round, metrics.model) == (known.round, known.model);
        if !history.iter().any(is_known) {
            // The store was put back: readers know a round that is none any more.
            match Snapshot::new(&self.config, live, &history) {
                Ok(mut before) => self.snapshot.send_modify(|snapshot| {
                    (before.seq, before.ahead_ms) = (snapshot.seq, snapshot.ahead_ms);
                    *snapshot = before;
                }),
                Err(error) => return Err(StoreError(error.to_string())),
            }
        }
        let snapshot = self.snapshot.borrow();
        let evaluated = snapshot.evaluated.as_ref().map(|metrics| metrics.round);
        let mut missed = Vec::new();
        for metrics in history {
            if announced.iter().any(|other| other.round == metrics.round) {
                continue;
            }
            if let (None, Some(evaluation)) = (metrics.accuracy, &self.evaluation) {
                let _ = evaluation.send(metrics.clone()); // the thread ends only after this one
            }
            let is_new = metrics.round > snapshot.newest.round;
            if is_new || metrics.accuracy.is_some() && Some(metrics.round) > evaluated {
                missed.push(metrics);
            }
        }
        Ok(missed)
    }
}

/// How far `theirs` is ahead of `ours`, in milliseconds; not at all where there is no clock but ours.
fn ahead_ms(theirs: Option<u64>, ours: u64) -> i64 {
    theirs.map_or(0, |theirs| {
        theirs.cast_signed().saturating_sub(ours.cast_signed())
    })
}

/// What is left at `now_ms` of `wait_ms` since `then_ms`; nothing where that is in the future, for then the clock was set back.
const fn left_ms(then_ms: u64, wait_ms: u64, now_ms: u64) -> u64 {
    match now_ms.checked_sub(then_ms) {
        Some(gone_ms) => wait_ms.saturating_sub(gone_ms),
        None => 0,
    }
}

/// A task in its turn, and rounds that other relays published.
type Begun<'a> = (Live, Box<dyn Turn + 'a>, Vec<RoundRecord>);

/// An answer that waits for the commit.
pub(crate) enum Answer {
    CheckIn(Reply<CheckInReply>, Result<CheckInReply, Failure>),
    Update(
        Reply<UpdateReply>,
        Result<UpdateReply, Failure>,
        Option<uploads::Turn>,
    ),
    Paused(Reply<()>, Result<(), Failure>),
    RolledBack(Reply<RolledBack>, Result<RolledBack, Failure>),
    Nothing,
}

impl Answer {
    fn failed(command: Command) -> Self {
        match command {
            Command::CheckIn(_, _, reply) => Self::CheckIn(reply, Err(Failure::Store)),
            Command::Update(_, turn, reply) => Self::Update(reply, Err(Failure::Store), turn),
            Command::Pause(_, reply) => Self::Paused(reply, Err(Failure::Store)),
            Command::RollBack(_, reply) => Self::RolledBack(reply, Err(Failure::Store)),
            Command::Evaluated(_) | Command::Look(_) | Command::Stop => Self::Nothing,
        }
    }

    /// Sends it; where the commit failed, even a refusal is not certain, and the client is told to try again.
    fn send(self, committed: bool) {
        fn give<T>(reply: Reply<T>, answer: Result<T, Failure>, committed: bool) {
            drop(reply.send(if committed { answer } else { Err(Failure::Store) }));
        }
        match self {
            Self::CheckIn(reply, answer) => give(reply, answer, committed),
            Self::Update(reply, answer, turn) => {
                drop(turn); // whoever is answered finds it free
                give(reply, answer, committed);
            }
            Self::Paused(reply, answer) => give(reply, answer, committed),
            Self::RolledBack(reply, answer) => give(reply, answer, committed),
            Self::Nothing => {}
        }
    }
}
