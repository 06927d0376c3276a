use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Wake, Waker},
};

use tempfile::TempDir;
use unsaid_protocol::{ClientId, RoundState, TaskId};

use super::*;
use crate::{
    clock::SystemClock,
    randomness::Randomness,
    store::{RedbStore, Saved},
    task_file::Task,
};

mod lane_tests;

const TASK: &str = include_str!("../../tests/tiny.toml");

/// Looks at what readers see in the very moment in which the answer that it waits for is sent.
struct Reader {
    snapshot: watch::Receiver<Snapshot>,
    saw: Mutex<Option<RoundState>>,
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        *self.saw.lock().unwrap() = Some(self.snapshot.borrow().state(0));
    }
}

fn actor() -> (Actor, Outlook, TempDir) {
    actor_of(&[], Arc::new)
}

/// Of a task in a fresh store, or in what is made of it.
fn actor_of<S: Store>(set: &[&str], made_of: impl FnOnce(RedbStore) -> Arc<S>) -> (Actor, Outlook, TempDir) {
    let folder = TempDir::new().unwrap();
    let store = made_of(RedbStore::open(&folder.path().join("relay.redb")).unwrap());
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let config = Arc::new(TaskConfig::new(Task::parse("tiny.toml", TASK, &set).unwrap()));
    let (actor, outlook) = Actor::open(config, store, Arc::new(SystemClock), None).unwrap();
    (actor, outlook, folder)
}

#[test]
fn what_is_answered_is_what_readers_see_already() {
    let (mut actor, outlook, _folder) = actor();
    let config = actor.config.clone();
    for client in 1..=3 {
        let reader = Arc::new(Reader {
            snapshot: outlook.snapshot.clone(),
            saw: Mutex::new(None),
        });
        let ask = CheckIn {
            client: ClientId::from_bytes([client; 16]),
            manifest: config.manifest_hash,
        };
        let (reply, mut answer) = oneshot::channel();
        let waker = Waker::from(reader.clone());
        let waiting = Pin::new(&mut answer).poll(&mut Context::from_waker(&waker));
        assert!(waiting.is_pending());
        actor.turn(vec![Command::CheckIn(ask, None, reply)], &mpsc::channel().1);
        assert!(matches!(
            answer.try_recv(),
            Ok(Ok(CheckInReply::Train { round: 1, .. }))
        ));
        let saw = reader.saw.lock().unwrap().take().expect("the answer was sent");
        assert_eq!((saw.round, saw.checked_in), (1, u32::from(client)));
    }
}

#[test]
fn a_commit_waits_for_three_of_four_updates_under_way_or_four_and_not_for_long() {
    let median = "strategy.aggregation={ type = \"coordinate-median\" }";
    let (kept, _, _folder_of_kept) = actor_of(&[median], Arc::new);
    let (actor, outlook, _folder) = actor();
    assert_eq!((actor.enough(), kept.enough()), (4, MAX_BATCH));
    let update = || {
        let frame = unsaid_protocol::UpdateFrame {
            update: unsaid_protocol::UpdateId::from_bytes([1; 16]),
            client: ClientId::from_bytes([1; 16]),
            manifest: actor.config.manifest_hash,
            model: actor.config.manifest_hash,
            round: 1,
            coordinates: vec![],
        };
        let submission = actor.config.examine(&frame.encode()).unwrap();
        Command::Update(submission, None, oneshot::channel().0)
    };
    let gathered = |waiting: usize, under_way: usize| {
        let (sender, mailbox) = mpsc::channel();
        (0..waiting).for_each(|_| sender.send(update()).unwrap());
        outlook.under_way.store(under_way, Ordering::Relaxed);
        let (mut batch, begun) = (vec![update()], Instant::now());
        actor.gather(&mailbox, &mut batch);
        (batch.len(), begun.elapsed())
    };
    assert_eq!(gathered(6, 4).0, 7, "all that is here comes along");
    // Without company nothing waits: the best of some tries, since the machine may be busy.
    for (waiting, under_way) in [(0, 1), (2, 4), (3, 8), (3, 80)] {
        let shortest = (0..20).map(|_| gathered(waiting, under_way).1).min();
        assert!(shortest < Some(GATHER), "{shortest:?}");
    }
    for (waiting, under_way) in [(0, 2), (1, 4), (2, 8)] {
        let (came, took) = gathered(waiting, under_way);
        assert_eq!(came, 1 + waiting, "none of the others came");
        assert!((GATHER..Duration::from_secs(10)).contains(&took), "{took:?}");
    }
}

#[test]
fn figures_of_a_round_that_the_store_has_not_are_dropped() {
    let (mut actor, outlook, _folder) = actor();
    let (task, store) = (actor.config.manifest.task.clone(), actor.store.clone());
    let first = store.rounds(&task).unwrap().remove(0);
    let figures = |round: u64, model: ContentHash| {
        let mut figures = first.clone();
        (figures.metrics.round, figures.metrics.model) = (round, model);
        figures.metrics.accuracy = Some(0.5);
        figures
    };
    let mut events = outlook.events.subscribe();
    for lost in [
        figures(0, ContentHash::of(b"lost")),
        figures(1, first.model),
        figures(7, first.model),
    ] {
        actor.turn(vec![Command::Evaluated(lost)], &mpsc::channel().1);
        assert_eq!(store.rounds(&task).unwrap(), std::slice::from_ref(&first));
        assert!(events.try_recv().is_err(), "nobody is told");
    }
    let kept = figures(0, first.model);
    actor.turn(vec![Command::Evaluated(kept.clone())], &mpsc::channel().1);
    assert_eq!(store.rounds(&task).unwrap(), [kept]);
    assert!(matches!(events.try_recv().unwrap().event, Event::Evaluated(_)));
}

/// A clock that can be set.
#[derive(Default)]
struct SetClock(std::sync::atomic::AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_waiting_for_longer_than_a_span() {
    const DAY_MS: u64 = 86_400_000;
    let folder = TempDir::new().unwrap();
    let store = Arc::new(RedbStore::open(&folder.path().join("relay.redb")).unwrap());
    let config = Arc::new(TaskConfig::new(Task::parse("tiny.toml", TASK, &[]).unwrap()));
    let clock = Arc::new(SetClock(DAY_MS.into()));
    let (mut actor, outlook) = Actor::open(config.clone(), store.clone(), clock.clone(), None).unwrap();
    actor.behind = false;
    let mut turn = |at_ms: u64, batch| {
        clock.0.store(at_ms, Ordering::Relaxed);
        actor.turn(batch, &mpsc::channel().1);
        actor.patience()
    };
    let ask = CheckIn {
        client: ClientId::from_bytes([1; 16]),
        manifest: config.manifest_hash,
    };
    turn(DAY_MS, vec![Command::CheckIn(ask, None, oneshot::channel().0)]);
    let deadline_ms = config.manifest.rounds.deadline_ms;
    let within = Duration::from_millis(deadline_ms.min(IDLE_MS));
    let mut events = outlook.events.subscribe();
    assert!(turn(DAY_MS / 2, vec![]) <= within);
    let head = store.load(&config.manifest.task).unwrap().unwrap().head;
    assert_eq!(
        head.span.unwrap().deadline_ms,
        DAY_MS / 2 + deadline_ms,
        "it is on the disk"
    );
    assert!(turn(DAY_MS / 2 + deadline_ms, vec![]) <= within);
    assert_eq!(
        outlook.snapshot.borrow().state(0).phase,
        unsaid_protocol::RoundPhase::Idle
    );
    assert!(events.try_recv().is_ok(), "and readers are told");
}

#[test]
fn what_comes_while_a_turn_is_waited_for_shares_its_commit() {
    let (mut actor, outlook, _folder) = actor();
    let ask = |number| CheckIn {
        client: ClientId::from_bytes([number; 16]),
        manifest: actor.config.manifest_hash,
    };
    let (sender, mailbox) = mpsc::channel();
    let (replies, answers): (Vec<_>, Vec<_>) = (0..4).map(|_| oneshot::channel()).unzip();
    let mut commands: Vec<_> = (1..)
        .zip(replies)
        .map(|(number, reply)| Command::CheckIn(ask(number), None, reply))
        .collect();
    let after_the_end = commands.pop().unwrap();
    let first = commands.remove(0);
    for command in commands {
        sender.send(command).unwrap();
    }
    sender.send(Command::Stop).unwrap();
    sender.send(after_the_end).unwrap();
    assert!(actor.turn(vec![first], &mailbox), "it was told to stop");
    let answered = answers
        .into_iter()
        .filter_map(|mut answer| answer.try_recv().ok());
    assert_eq!(answered.count(), 3, "all that came before the end");
    assert_eq!(outlook.snapshot.borrow().state(0).checked_in, 3);
}

#[test]
fn without_randomness_nobody_is_drawn_and_with_it_somebody_is() {
    let by_chance = "rounds.selection={ type = \"chance\", probability = 1 }".to_owned();
    let task = Task::parse("tiny.toml", TASK, &[by_chance]).unwrap();
    let mut config = TaskConfig::new(task);
    for is_there in [false, true] {
        if is_there {
            config.randomness = Randomness::default();
        } else {
            config.randomness = Randomness::simulated(|_| Err(getrandom::Error::UNSUPPORTED));
        }
        let (mut live, mut changes) = Live::first(&config, 0).unwrap();
        let ask = CheckIn {
            client: ClientId::from_bytes([1; 16]),
            manifest: config.manifest_hash,
        };
        let command = Command::CheckIn(ask, None, oneshot::channel().0);
        let Answer::CheckIn(_, Ok(answer)) = live.apply(&config, command, 0, &mut changes) else {
            panic!("a check-in is answered");
        };
        assert_eq!(
            matches!(answer, CheckInReply::Train { .. }),
            is_there,
            "{answer:?}"
        );
        assert_eq!(changes.head.unwrap().draw_key.is_some(), is_there);
    }
}

/// Where there is no randomness the relay adds no noise, and so publishes nothing: it tries again at the deadline, and whoever reads the store knows.
#[test]
fn a_publication_that_cannot_be_made_is_put_off_on_the_disk_too() {
    let set = [
        "privacy.mode=central",
        "privacy.noise_multiplier=1",
        "privacy.adjacency=add-remove",
        "privacy.delta=1e-5",
    ];
    let task = Task::parse("tiny.toml", TASK, &set.map(str::to_owned)).unwrap();
    let mut config = TaskConfig::new(task);
    let deadline_ms = config.manifest.rounds.deadline_ms;
    config.randomness = Randomness::simulated(|_| Err(getrandom::Error::UNSUPPORTED));
    let (mut live, mut changes) = Live::first(&config, 0).unwrap();
    for client in 1..=3 {
        let ask = CheckIn {
            client: ClientId::from_bytes([client; 16]),
            manifest: config.manifest_hash,
        };
        live.check_in(&ask, 0, &mut changes).unwrap();
        let mut coordinates = vec![0; config.coordinates()];
        coordinates[0] = 1_000; // as wide as the bound
        let frame = unsaid_protocol::UpdateFrame {
            update: unsaid_protocol::UpdateId::from_bytes([client; 16]),
            client: ask.client,
            manifest: config.manifest_hash,
            model: live.rounds.model(),
            round: 1,
            coordinates,
        };
        let submission = config.examine(&frame.encode()).unwrap();
        live.update(&config, submission, 10, &mut changes).unwrap();
    }
    assert_eq!((live.rounds.round(), live.rounds.received()), (1, 3));
    let deadline = |changes: &Changes| changes.head.as_ref()?.span.map(|span| span.deadline_ms);
    assert_eq!(deadline(&changes), Some(10 + deadline_ms));
    let mut changes = Changes::default();
    live.tick(&config, 9 + deadline_ms, &mut changes);
    assert!(changes.is_empty(), "until then nothing is tried");
    live.tick(&config, 10 + deadline_ms, &mut changes);
    assert_eq!(
        deadline(&changes),
        Some(10 + 2 * deadline_ms),
        "and nobody came meanwhile"
    );
    config.randomness = Randomness::default();
    live.tick(&config, 10 + 2 * deadline_ms, &mut changes);
    assert_eq!(
        (live.rounds.round(), changes.rounds.last().unwrap().clients),
        (2, 3)
    );
}

/// A store without identities: how they stand cannot be read.
struct NoIdentities(RedbStore);

impl Store for NoIdentities {
    fn load(&self, task: &TaskId) -> Result<Option<Saved>, StoreError> {
        self.0.load(task)
    }

    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError> {
        self.0.commit(task, changes)
    }

    fn model(&self, task: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.model(task, model)
    }

    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        self.0.rounds(task)
    }

    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        self.0.rounds_before(task, before, most)
    }
}

#[test]
fn the_end_that_comes_with_a_turn_which_cannot_read_identities_is_not_lost() {
    let (mut actor, _outlook, _folder) = actor_of(&[], |store| Arc::new(NoIdentities(store)));
    let (sender, mailbox) = mpsc::channel();
    for end in [None, Some(Command::Stop)] {
        let is_end = end.is_some();
        end.into_iter().for_each(|end| sender.send(end).unwrap());
        let ask = CheckIn {
            client: ClientId::from_bytes([1; 16]),
            manifest: actor.config.manifest_hash,
        };
        let (reply, mut answer) = oneshot::channel();
        let signed = Command::CheckIn(ask, Some(IdentityId::from_bytes([1; 32])), reply);
        assert_eq!(actor.turn(vec![signed], &mailbox), is_end);
        assert_eq!(answer.try_recv(), Ok(Err(Failure::Store)));
    }
}
