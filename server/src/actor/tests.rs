use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Wake, Waker},
};

use tempfile::TempDir;
use unsaid_protocol::{ClientId, RoundState};

use super::*;
use crate::{clock::SystemClock, store::RedbStore, task_file::Task};

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

#[test]
fn what_is_answered_is_what_readers_see_already() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(RedbStore::open(&folder.path().join("relay.redb")).unwrap());
    let config = Arc::new(TaskConfig::new(Task::parse("tiny.toml", TASK, &[]).unwrap()));
    let (mut actor, outlook) = Actor::open(config.clone(), store, Arc::new(SystemClock), None).unwrap();
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
        actor.turn(vec![Command::CheckIn(ask, None, reply)]);
        assert!(matches!(
            answer.try_recv(),
            Ok(Ok(CheckInReply::Train { round: 1, .. }))
        ));
        let saw = reader.saw.lock().unwrap().take().expect("the answer was sent");
        assert_eq!((saw.round, saw.checked_in), (1, u32::from(client)));
    }
}
