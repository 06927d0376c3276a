//! What a relay reads of updates while they arrive, and of its own store.

use std::sync::{Arc, OnceLock, mpsc};

use tokio::sync::oneshot;
use unsaid_protocol::{
    CheckIn, CheckInReply, ClientId, ContentHash, CoordinateWidth, Privacy, TaskId, UpdateFrame, UpdateId,
};
use unsaid_relay::{
    actor::{Actor, Command, Submission},
    clock::Clock,
    intake::Intake,
    lineage::RoundRecord,
    live::TaskConfig,
    round::{Counted, FrameDigest, Head},
    store::{Account, Changes, Identity, Saved, Store, StoreError},
    strategy::Memory,
    task_file::Task,
};

use super::{Bytes, NOW_MS};

/// Eight parameters; rounds of three.
const TINY: &str = include_str!("../../server/tests/tiny.toml");

/// Tasks whose updates are gathered in different ways: what each changes of `tiny.toml`.
const KINDS: [&[&str]; 6] = [
    &[
        "strategy.server.type=fed-adam",
        "strategy.server.learning_rate=0.1",
    ],
    &[
        "strategy.aggregation.type=weighted-mean",
        "strategy.aggregation.max_weight=100",
    ],
    &["strategy.aggregation.type=coordinate-median"],
    &[
        "strategy.aggregation.type=fed-buff",
        "strategy.aggregation.max_staleness=2",
    ],
    &[
        "privacy.mode=central",
        "privacy.adjacency=replace-one",
        "privacy.delta=1e-5",
        "privacy.mechanism=tree-aggregation",
        "privacy.tree.restart_every=2",
        "privacy.tree.min_separation=1",
    ],
    &[
        "strategy.aggregation.type=scaffold",
        "strategy.aggregation.population=4",
        "training.steps_per_epoch=2",
    ],
];

fn config(kind: u8) -> Option<Arc<TaskConfig>> {
    static CONFIGS: OnceLock<Vec<Arc<TaskConfig>>> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| {
        let read = |changed: &[&str]| {
            let overrides: Vec<String> = changed.iter().map(|&it| it.to_owned()).collect();
            Task::parse("tiny.toml", TINY, &overrides).map(|task| Arc::new(TaskConfig::new(task)))
        };
        // One that is not read is missed below.
        KINDS.iter().filter_map(|kind| read(kind).ok()).collect()
    });
    assert_eq!(configs.len(), KINDS.len(), "every task is read");
    configs.get(usize::from(kind) % KINDS.len()).cloned()
}

/// An update that comes in parts: the first byte says for which task, the second how long the parts are. It is what it is as a whole.
pub fn intake(bytes: &[u8]) -> bool {
    let [kind, part, frame @ ..] = bytes else {
        return false;
    };
    let Some(config) = config(*kind) else {
        return false;
    };
    let is_signed = *kind >= 128;
    let received = |part: usize| {
        let mut intake = Intake::new(&config, is_signed);
        frame.chunks(part).for_each(|part| intake.push(part));
        intake.finish()
    };
    let (whole, parts) = (received(frame.len().max(1)), received(usize::from(*part).max(1)));
    let said = |it: &Submission| (it.claim, it.coordinates.clone());
    assert_eq!(whole.as_ref().map(said), parts.as_ref().map(said));
    let decoded = UpdateFrame::decode_in(frame, fixed_width(&config));
    match whole {
        Ok(Submission { claim, coordinates }) => {
            let read = decoded
                .as_ref()
                .map(|it| (it.update, it.client, it.round, it.model));
            assert_eq!(read, Ok((claim.update, claim.client, claim.round, claim.model)));
            if let (Ok(kept), Ok(read)) = (&coordinates, decoded) {
                assert_eq!(kept, &read.coordinates);
                assert_eq!(kept.len(), config.coordinates());
            }
            coordinates.is_ok()
        }
        Err(error) => {
            assert_eq!(decoded, Err(error));
            false
        }
    }
}

/// What a store has: `a` and an identity's account, `i` and an identity, or the number of a task and what was kept of it: a line with
/// its head, a line with its rounds' figures, and the rest byte by byte. Whatever it is, the task starts and answers, or says that the
/// store is damaged.
pub fn records(bytes: &[u8]) -> bool {
    let Some((&kind, rest)) = bytes.split_first() else {
        return false;
    };
    if kind == b'a' {
        let account = Account::from_bytes(rest);
        if let Ok(account) = &account {
            let written = account.to_bytes();
            let again = Account::from_bytes(&written).map(|it| it.to_bytes());
            assert!(
                again.is_ok_and(|again| again == written),
                "what is written is read"
            );
        }
        return account.is_ok();
    }
    if kind == b'i' {
        return serde_json::from_slice::<Identity>(rest).is_ok();
    }
    let mut lines = rest.splitn(3, |&byte| byte == b'\n');
    let (Some(head), Some(rounds), Some(kept)) = (lines.next(), lines.next(), lines.next()) else {
        return false;
    };
    let (Ok(head), Ok(rounds)) = (serde_json::from_slice(head), serde_json::from_slice(rounds)) else {
        return false;
    };
    let Some(config) = config(kind) else {
        return false;
    };
    let Some(model) = model(&config, kept) else {
        return false;
    };
    let saved = saved(&config, head, Bytes(kept));
    goes_on(config, Kept { saved, rounds, model })
}

/// The newest model's file. A control variate is made of the last bytes that were kept; where the first says so, the file is of before
/// the task had any.
fn model(config: &TaskConfig, kept: &[u8]) -> Option<Vec<u8>> {
    let parameters = config.model.initial_parameters(config.seed);
    let [has] = Bytes(kept).take();
    let file = if config.control.is_some() && has & 8 == 0 {
        let mut last = Bytes(&kept[kept.len().saturating_sub(4 * parameters.len())..]);
        let control = parameters.iter().map(|_| f32::from_le_bytes(last.take()));
        let control: Vec<f32> = control.collect();
        config.model.to_safetensors_with_control(&parameters, &control)
    } else {
        config.model.to_safetensors(&parameters)
    };
    file.ok()
}

fn saved(config: &TaskConfig, head: Head, mut kept: Bytes<'_>) -> Saved {
    let [has, entries, checked_in, counted, updates] = kept.take();
    let round = |kept: &mut Bytes<'_>| {
        let [back] = kept.take();
        head.round.wrapping_sub(u64::from(back))
    };
    let several = |count: u8| 0..count % 8;
    let sum = (has & 1 != 0).then(|| (0..entries).map(|_| i64::from_le_bytes(kept.take())).collect());
    let memory = (has & 2 != 0).then(|| Memory {
        kind: "fed-adam".into(),
        values: (0..entries).map(|_| f32::from_le_bytes(kept.take())).collect(),
    });
    let client = |kept: &mut Bytes<'_>| ClientId::from_bytes([kept.take::<1>()[0]; 16]);
    let update = |kept: &mut Bytes<'_>| UpdateId::from_bytes([kept.take::<1>()[0]; 16]);
    let check_ins = several(checked_in).map(|_| (round(&mut kept), client(&mut kept)));
    let check_ins = check_ins.collect();
    let counted = several(counted).map(|_| Counted {
        update: update(&mut kept),
        round: round(&mut kept),
        client: client(&mut kept),
        digest: FrameDigest::from_bytes(kept.take()),
    });
    let counted = counted.collect();
    let updates = several(updates).map(|_| {
        let coordinates = (0..entries).map(|_| i32::from_le_bytes(kept.take()));
        (UpdateId::from_bytes([entries; 16]), coordinates.collect())
    });
    let updates = updates.collect();
    let manifest = if has & 4 == 0 {
        String::from_utf8_lossy(&config.manifest_json).into_owned()
    } else {
        String::from_utf8_lossy(kept.0).into_owned()
    };
    Saved {
        head,
        manifest,
        sum,
        updates,
        memory,
        check_ins,
        counted,
    }
}

/// Starts the task's thread over the store, has a client check in and report, and ends it.
fn goes_on(config: Arc<TaskConfig>, store: Kept) -> bool {
    let manifest = config.manifest_hash;
    let Ok((mut actor, _outlook)) = Actor::open(config.clone(), Arc::new(store), Arc::new(Stopped), None)
    else {
        return false;
    };
    let (mailbox, commands) = mpsc::sync_channel(4);
    let thread = std::thread::spawn(move || actor.run(&commands));
    let client = ClientId::from_bytes([200; 16]);
    let ask = CheckIn { client, manifest };
    let (reply, answer) = oneshot::channel();
    // An error of sending is the thread's end, noticed below.
    let _ = mailbox.send(Command::CheckIn(ask, None, reply));
    let mut answered = true;
    match answer.blocking_recv() {
        Ok(Ok(CheckInReply::Train { round, model, .. })) => {
            let frame = UpdateFrame {
                update: UpdateId::from_bytes([200; 16]),
                client,
                manifest,
                model,
                round,
                coordinates: vec![1; config.coordinates()],
            };
            if let Some(submission) = submission(&config, &frame) {
                let (reply, answer) = oneshot::channel();
                let _ = mailbox.send(Command::Update(submission, None, reply));
                answered = answer.blocking_recv().is_ok();
            }
        }
        other => answered = other.is_ok(),
    }
    let _ = mailbox.send(Command::Stop);
    assert!(thread.join().is_ok(), "the task's thread ends in good order");
    assert!(answered, "whoever asks is answered");
    true
}

fn submission(config: &TaskConfig, frame: &UpdateFrame) -> Option<Submission> {
    let mut intake = Intake::new(config, false);
    intake.push(&frame.encode_in(fixed_width(config)));
    intake.finish().ok()
}

/// The width of frames where the task fixes it.
fn fixed_width(config: &TaskConfig) -> Option<CoordinateWidth> {
    match config.manifest.privacy {
        Privacy::Central(_) => config.norm_bound.map(CoordinateWidth::for_bound),
        _ => None,
    }
}

/// A clock that stands still.
pub(crate) struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

/// A store that has these records, and takes what it is given.
struct Kept {
    saved: Saved,
    rounds: Vec<RoundRecord>,
    model: Vec<u8>,
}

impl Store for Kept {
    fn load(&self, _task: &TaskId) -> Result<Option<Saved>, StoreError> {
        Ok(Some(self.saved.clone()))
    }

    fn commit(&self, _task: &TaskId, _changes: &Changes) -> Result<(), StoreError> {
        Ok(())
    }

    fn model(&self, _task: &TaskId, _model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(Some(self.model.clone()))
    }

    fn rounds(&self, _task: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        Ok(self.rounds.clone())
    }

    fn rounds_before(&self, _task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        let earlier = self.rounds.iter().filter(|metrics| metrics.round < before);
        let mut newest: Vec<RoundRecord> = earlier.rev().take(most.into()).cloned().collect();
        newest.reverse();
        Ok(newest)
    }
}
