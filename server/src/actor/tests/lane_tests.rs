//! Several relays over one store, turn by turn as a seed chooses: turns that come between another's adding up and its lock, commits that
//! fail or only seem to, updates that come to several relays.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_protocol::{UpdateFrame, UpdateId};

use super::*;
use crate::{
    round::{Counted, Head},
    store::{Ahead, EachLane, Lane, LaneId, Standing},
    strategy::Memory,
};

const TARGET: u32 = 10;
const CLIENTS: u8 = 13;

/// What a commit does.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    NotMade,
    MadeUnnoticed,
}

/// What the store has, with the version of each entry.
#[derive(Default)]
struct Kept {
    stage: Stage,
    stages: BTreeSet<(u64, u64)>,
    head: Option<Head>,
    manifest: String,
    memory: Option<Memory>,
    check_ins: Vec<(u64, (u64, ClientId))>,
    counted: Vec<(u64, Counted)>,
    models: HashMap<ContentHash, Vec<u8>>,
    rounds: BTreeMap<u64, (u64, RoundRecord)>,
    lanes: BTreeMap<(u64, LaneId), (u32, Vec<i64>)>,
    named: u64,
    /// Lanes that stood, and that were written in a turn.
    stood: [u32; 2],
}

/// A store with lanes, in memory.
#[derive(Clone)]
struct Shared {
    kept: Arc<Mutex<Kept>>,
    fault: Arc<Mutex<Fault>>,
    /// What happens once, between a lane's writing and its turn.
    between: Arc<Mutex<Option<Between>>>,
}

type Between = Box<dyn FnOnce() + Send>;

struct Held {
    kept: Arc<Mutex<Kept>>,
    fault: Fault,
    written: Option<(u64, Lane, Vec<i64>)>,
}

impl Kept {
    fn saved(&self, since: u64) -> Option<Saved> {
        let head = self.head.clone()?;
        Some(Saved {
            head,
            manifest: self.manifest.clone(),
            sum: None,
            updates: Vec::new(),
            memory: self.memory.clone(),
            check_ins: newer(&self.check_ins, since),
            counted: newer(&self.counted, since),
        })
    }

    fn apply(&mut self, changes: &Changes, written: Option<(u64, Lane, Vec<i64>)>) {
        self.named += 1;
        let version = self.stage.version + 1;
        self.stage = Stage {
            version,
            nonce: self.named,
        };
        self.stages.insert((version, self.named));
        let head = changes.head.clone().or_else(|| self.head.clone()).unwrap();
        self.head = Some(head.clone());
        self.manifest = changes.manifest.clone().unwrap_or_else(|| self.manifest.clone());
        self.memory = changes.memory.clone().or_else(|| self.memory.clone());
        let entries = changes.check_ins.iter().map(|entry| (version, *entry));
        self.check_ins.extend(entries);
        for entry in &changes.counted {
            let twice = self.counted.iter().any(|(_, it)| it.update == entry.update);
            assert!(!twice, "{} is counted twice", entry.update);
            self.counted.push((version, *entry));
        }
        self.models.extend(changes.models.iter().cloned());
        for metrics in &changes.rounds {
            self.rounds.insert(metrics.round, (version, metrics.clone()));
        }
        if let Some((round, lane, steps)) = written
            && changes.stands
            && round == head.round
        {
            self.lanes.insert((round, lane.id), (lane.updates, steps));
            self.stood[0] += 1;
        }
        if let Some(steps) = &changes.sum {
            let lane = changes.lane.unwrap();
            self.lanes
                .insert((head.round, lane.id), (lane.updates, steps.clone()));
            self.stood[1] += 1;
        }
        self.lanes.retain(|(round, _), _| *round == head.round);
    }
}

fn newer<T: Copy>(entries: &[(u64, T)], since: u64) -> Vec<T> {
    let newer = entries.iter().filter(|(version, _)| *version > since);
    newer.map(|(_, entry)| *entry).collect()
}

impl Store for Shared {
    fn load(&self, _: &TaskId) -> Result<Option<Saved>, StoreError> {
        Ok(self.kept.lock().unwrap().saved(0))
    }

    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError> {
        self.turn(task)?.commit(changes).map(drop)
    }

    fn model(&self, _: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.kept.lock().unwrap().models.get(model).cloned())
    }

    fn rounds(&self, _: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.rounds.values().map(|(_, metrics)| metrics.clone()).collect())
    }

    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        let mut rounds = self.rounds(task)?;
        rounds.retain(|metrics| metrics.round < before);
        Ok(rounds.split_off(rounds.len().saturating_sub(most.into())))
    }

    fn turn<'a>(&'a self, _: &'a TaskId) -> Result<Box<dyn Turn + 'a>, StoreError> {
        Ok(Box::new(Held {
            kept: self.kept.clone(),
            fault: std::mem::replace(&mut *self.fault.lock().unwrap(), Fault::None),
            written: None,
        }))
    }

    fn turn_after<'a>(&'a self, _: &'a TaskId, ahead: Ahead<'_>) -> Result<Box<dyn Turn + 'a>, StoreError> {
        let written = (ahead.round, ahead.lane, ahead.steps.to_vec());
        let fault = std::mem::replace(&mut *self.fault.lock().unwrap(), Fault::None);
        let between = self.between.lock().unwrap().take();
        if let Some(between) = between {
            between();
        }
        Ok(Box::new(Held {
            kept: self.kept.clone(),
            fault,
            written: Some(written),
        }))
    }
}

impl Turn for Held {
    fn stage(&self) -> Stage {
        self.kept.lock().unwrap().stage
    }

    fn model(&mut self, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.kept.lock().unwrap().models.get(model).cloned())
    }

    fn rounds(&mut self) -> Result<Vec<RoundRecord>, StoreError> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.rounds.values().map(|(_, metrics)| metrics.clone()).collect())
    }

    fn round(&mut self, round: u64) -> Result<Option<RoundRecord>, StoreError> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.rounds.get(&round).map(|(_, metrics)| metrics.clone()))
    }

    fn standings(&mut self, _: &[IdentityId]) -> Result<Vec<Standing>, StoreError> {
        Err(StoreError("it keeps no identities".into()))
    }

    fn lane(&mut self) -> Result<Option<LaneId>, StoreError> {
        let mut kept = self.kept.lock().unwrap();
        kept.named += 1;
        Ok(Some(kept.named))
    }

    fn other_lanes(&mut self, own: LaneId, each: &mut EachLane<'_>) -> Result<(), StoreError> {
        let kept = self.kept.lock().unwrap();
        for ((_, id), (updates, steps)) in kept.lanes.iter().filter(|((_, id), _)| *id != own) {
            let lane = Lane {
                id: *id,
                updates: *updates,
            };
            each(lane, steps.clone());
        }
        Ok(())
    }

    fn is_ahead(&self) -> bool {
        self.written.is_some()
    }

    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        Ok(self.kept.lock().unwrap().saved(0))
    }

    fn news(&mut self, mark: Mark) -> Result<Option<News>, StoreError> {
        let kept = self.kept.lock().unwrap();
        let known = kept.stages.contains(&(mark.stage.version, mark.stage.nonce));
        let rounds = kept.rounds.values();
        let rounds = rounds.filter(|(version, _)| *version > mark.stage.version);
        Ok(known.then(|| News {
            saved: kept.saved(mark.stage.version).unwrap(),
            rounds: rounds.map(|(_, metrics)| metrics.clone()).collect(),
        }))
    }

    fn commit(self: Box<Self>, changes: &Changes) -> Result<Stage, StoreError> {
        let mut kept = self.kept.lock().unwrap();
        if self.fault != Fault::NotMade {
            kept.apply(changes, self.written);
        }
        match self.fault {
            Fault::None => Ok(kept.stage),
            _ => Err(StoreError("injected".into())),
        }
    }
}

/// The relays and what they were sent.
struct Play {
    config: Arc<TaskConfig>,
    store: Shared,
    actors: Vec<Arc<Mutex<Actor>>>,
    frames: Vec<UpdateFrame>,
    rng: ChaCha8Rng,
}

type Answered = Result<Result<UpdateReply, Failure>, oneshot::error::TryRecvError>;

impl Play {
    fn new(seed: u64, overrides: &[&str]) -> Self {
        let (target, min) = (
            format!("rounds.target_clients={TARGET}"),
            format!("rounds.min_clients={TARGET}"),
        );
        let mut all = vec![target.as_str(), &min];
        all.extend(overrides);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let config = Arc::new(TaskConfig::new(Task::parse("tiny.toml", TASK, &all).unwrap()));
        let store = Shared {
            kept: Arc::default(),
            fault: Arc::new(Mutex::new(Fault::None)),
            between: Arc::default(),
        };
        let open = |_| {
            let (store, clock) = (Arc::new(store.clone()), Arc::new(SystemClock));
            let (actor, _) = Actor::open(config.clone(), store, clock, None).unwrap();
            Arc::new(Mutex::new(actor))
        };
        let actors: Vec<_> = (0..3).map(open).collect();
        let mut play = Self {
            config,
            actors,
            store,
            frames: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        play.check_in();
        play
    }

    fn below(&mut self, most: usize) -> usize {
        self.rng.next_u64() as usize % most
    }

    /// Every client, to any relay; and each of them makes an update.
    fn check_in(&mut self) {
        for client in 1..=CLIENTS {
            let ask = CheckIn {
                client: ClientId::from_bytes([client; 16]),
                manifest: self.config.manifest_hash,
            };
            let (reply, mut answer) = oneshot::channel();
            let to = self.below(self.actors.len());
            turn(&self.actors[to], vec![Command::CheckIn(ask.clone(), None, reply)]);
            let Ok(Ok(CheckInReply::Train { round, model, .. })) = answer.try_recv() else {
                panic!("client {client} is let in");
            };
            self.frames.push(UpdateFrame {
                update: UpdateId::from_bytes([client; 16]),
                client: ask.client,
                manifest: ask.manifest,
                model,
                round,
                coordinates: (0..8).map(|at| i32::from(client) * 7 - 3 * at).collect(),
            });
        }
    }

    /// Some updates, in any order; more often than once, too.
    fn batch(&mut self) -> (Vec<Command>, Vec<oneshot::Receiver<Result<UpdateReply, Failure>>>) {
        let many = 1 + self.below(4);
        let chosen: Vec<usize> = (0..many).map(|_| self.below(self.frames.len())).collect();
        let command = |at: usize| {
            let submission = self.config.examine(&self.frames[at].encode()).unwrap();
            let (reply, answer) = oneshot::channel();
            (Command::Update(submission, None, reply), answer)
        };
        chosen.into_iter().map(command).unzip()
    }

    fn fault(&mut self) -> Fault {
        match self.below(8) {
            0 => Fault::NotMade,
            1 => Fault::MadeUnnoticed,
            _ => Fault::None,
        }
    }

    /// One relay's turn, and perhaps another's before it and after it was added up.
    fn step(&mut self) -> Vec<Answered> {
        let (first, second) = (self.below(3), self.below(3));
        let (batch, mut answers) = self.batch();
        if first != second && self.below(2) == 0 {
            let (other, more) = self.batch();
            answers.extend(more);
            let (actor, fault, theirs) = (
                self.actors[second].clone(),
                self.store.fault.clone(),
                self.fault(),
            );
            *self.store.between.lock().unwrap() = Some(Box::new(move || {
                *fault.lock().unwrap() = theirs;
                turn(&actor, other);
            }));
        }
        *self.store.fault.lock().unwrap() = self.fault();
        turn(&self.actors[first], batch);
        self.store.between.lock().unwrap().take(); // nothing was added up ahead
        answers.into_iter().map(|mut answer| answer.try_recv()).collect()
    }

    /// That the lanes are the sum of what the open round counts, as one relay would have it; and that what a turn did not need is not
    /// written in the next one.
    fn check(&self) {
        for actor in &self.actors {
            if let Some(live) = &mut actor.lock().unwrap().live {
                live.add_up_ahead(&self.config, &[]);
                assert!(live.ahead().is_none(), "nothing waits");
            }
        }
        let kept = self.store.kept.lock().unwrap();
        let head = kept.head.clone().unwrap();
        let counted: Vec<Counted> = newer(&kept.counted, 0);
        let now: Vec<&Counted> = counted.iter().filter(|entry| entry.round == head.round).collect();
        let updates: u32 = kept.lanes.values().map(|(updates, _)| updates).sum();
        assert_eq!(updates as usize, now.len());
        let (mut alone, mut changes) = self.alone(now.iter().map(|entry| entry.update));
        alone.complete(&self.config, &mut changes);
        if !now.is_empty() {
            let sum = changes.sum.unwrap();
            let total = (0..sum.len()).map(|at| kept.lanes.values().map(|(_, steps)| steps[at]).sum());
            assert_eq!(total.collect::<Vec<i64>>(), sum);
        }
    }

    /// A relay that has its store for itself, and counts these.
    fn alone(&self, updates: impl Iterator<Item = UpdateId>) -> (Live, Changes) {
        let (mut live, mut changes) = Live::first(&self.config, 0).unwrap();
        for update in updates {
            let frame = self.frames.iter().find(|frame| frame.update == update).unwrap();
            let ask = CheckIn {
                client: frame.client,
                manifest: frame.manifest,
            };
            live.check_in(&ask, 0, &mut changes).unwrap();
            let submission = self.config.examine(&frame.encode()).unwrap();
            live.update(&self.config, submission, 0, &mut changes).unwrap();
        }
        (live, changes)
    }
}

fn turn(actor: &Mutex<Actor>, batch: Vec<Command>) {
    actor.lock().unwrap().turn(batch, &mpsc::channel().1);
}

/// Plays one round to its end; how many lanes stood, and how many were written in their turn.
fn play(seed: u64, overrides: &[&str]) -> [u32; 2] {
    let mut play = Play::new(seed, overrides);
    let mut acknowledged = BTreeSet::new();
    let mut steps = 0;
    while play.store.kept.lock().unwrap().rounds.len() < 2 {
        for answer in play.step() {
            match answer {
                Ok(Ok(reply)) => drop(acknowledged.insert(reply.update)),
                Ok(Err(Failure::Store | Failure::Refused(Refusal::Closed { .. })))
                | Err(oneshot::error::TryRecvError::Closed) => {} // dropped: its turn was not taken
                other => panic!("{other:?}"),
            }
        }
        play.check();
        steps += 1;
        assert!(steps < 2_000, "seed {seed}: the round closes");
    }
    let kept = play.store.kept.lock().unwrap();
    let counted: BTreeSet<UpdateId> = kept.counted.iter().map(|(_, entry)| entry.update).collect();
    assert_eq!(counted.len(), TARGET as usize);
    assert!(acknowledged.is_subset(&counted), "seed {seed}");
    let (alone, _) = play.alone(counted.into_iter());
    assert_eq!(
        (kept.rounds[&1].1.model, kept.rounds[&1].1.clients),
        (alone.rounds.model(), TARGET),
        "seed {seed}: the model of one relay"
    );
    assert!(kept.lanes.is_empty());
    kept.stood
}

#[test]
fn whatever_comes_between_the_lanes_are_what_the_round_counts_and_the_model_is_one_relays() {
    let norms = [
        "strategy.aggregation.type=norm-bounding",
        "strategy.aggregation.bound_l2=0.05",
    ];
    let mut stood = [0; 2];
    for seed in 0..300 {
        let rule: &[&str] = if seed % 3 == 0 { &norms } else { &[] };
        let [ahead, in_turn] = play(seed, rule);
        stood = [stood[0] + ahead, stood[1] + in_turn];
    }
    assert!(
        stood.into_iter().all(|lanes| lanes > 300),
        "both ways were taken: {stood:?}"
    );
}
