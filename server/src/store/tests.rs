use ::redb::ReadableDatabase;
use tempfile::TempDir;
use unsaid_protocol::{RoundMetrics, UpdateId};

use super::*;
use crate::round::{DrawKey, FrameDigest, Span};

fn head(round: u64) -> Head {
    Head {
        round,
        model: ContentHash::of(&round.to_le_bytes()),
        span: Some(Span {
            started_ms: 1,
            deadline_ms: 2,
        }),
        bytes_up: 3,
        paused: false,
        forgot: 0,
        excused: 0,
        draw_key: Some(DrawKey::from_bytes([round as u8; 32])),
        earlier: Vec::new(),
        min_separation: 0,
        shares: None,
        tree: None,
        spent: None,
    }
}

fn counted(round: u64) -> Counted {
    Counted {
        update: UpdateId::from_bytes([round as u8; 16]),
        round,
        client: ClientId::from_bytes([9; 16]),
        digest: FrameDigest::of(b"frame"),
    }
}

fn memory() -> Memory {
    Memory {
        kind: "fed-adam".into(),
        values: vec![0.1, f32::MIN_POSITIVE, -0.0],
    }
}

fn open() -> (RedbStore, TaskId, TempDir) {
    let folder = TempDir::new().unwrap();
    (
        RedbStore::open(&folder.path().join("a.redb")).unwrap(),
        "task".parse().unwrap(),
        folder,
    )
}

fn opening(round: u64) -> Changes {
    Changes {
        head: Some(head(round)),
        manifest: Some("{}".into()),
        ..Changes::default()
    }
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let (store, task, folder) = open();
    assert_eq!(store.load(&task).unwrap(), None);
    let client = ClientId::from_bytes([1; 16]);
    let changes = Changes {
        sum: Some(vec![1, -2, i64::MAX]),
        updates: vec![(UpdateId::from_bytes([1; 16]), vec![1, -2, i32::MIN])],
        memory: Some(memory()),
        check_ins: vec![(1, client)],
        counted: vec![counted(1)],
        models: vec![(ContentHash::of(b"m"), b"m".to_vec())],
        ..opening(1)
    };
    store.commit(&task, &changes).unwrap();
    drop(store);
    let store = RedbStore::open(&folder.path().join("a.redb")).unwrap();
    let saved = store.load(&task).unwrap().unwrap();
    let expected = Saved {
        head: head(1),
        manifest: "{}".into(),
        sum: Some(vec![1, -2, i64::MAX]),
        updates: vec![(UpdateId::from_bytes([1; 16]), vec![1, -2, i32::MIN])],
        memory: Some(memory()),
        check_ins: vec![(1, client)],
        counted: vec![counted(1)],
    };
    assert_eq!(saved, expected);
    assert_eq!(
        store.model(&task, &ContentHash::of(b"m")).unwrap().as_deref(),
        Some(&b"m"[..])
    );
    assert_eq!(store.model(&task, &ContentHash::of(b"n")).unwrap(), None);
}

#[test]
fn a_sum_is_read_as_it_was_written_whether_it_fits_four_bytes_or_not() {
    let (store, task, _folder) = open();
    let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
    for sum in [
        vec![least, -1, most],
        vec![least - 1, 0, 0],
        vec![0, most, 1],
        vec![most + 1, i64::MIN, i64::MAX],
    ] {
        let changes = Changes {
            sum: Some(sum.clone()),
            ..opening(1)
        };
        store.commit(&task, &changes).unwrap();
        assert_eq!(store.load(&task).unwrap().unwrap().sum, Some(sum));
    }
    store.commit(&task, &opening(2)).unwrap();
    assert_eq!(store.load(&task).unwrap().unwrap().sum, None);
}

#[test]
fn tasks_in_one_file_do_not_touch_each_other() {
    let (store, one, _folder) = open();
    let two: TaskId = "task-2".parse().unwrap();
    store
        .commit(
            &one,
            &Changes {
                counted: vec![counted(1)],
                sum: Some(vec![1]),
                ..opening(1)
            },
        )
        .unwrap();
    store.commit(&two, &opening(500)).unwrap();
    store.commit(&two, &opening(600)).unwrap();
    let saved = store.load(&one).unwrap().unwrap();
    assert_eq!((saved.counted, saved.sum), (vec![counted(1)], Some(vec![1])));
    assert_eq!(store.load(&two).unwrap().unwrap().counted, vec![]);
}

#[test]
fn a_new_round_drops_the_sum_the_updates_the_check_ins_and_what_is_forgotten() {
    let (store, task, _folder) = open();
    let client = ClientId::from_bytes([1; 16]);
    let first = Changes {
        sum: Some(vec![1]),
        updates: vec![(UpdateId::from_bytes([1; 16]), vec![1])],
        memory: Some(memory()),
        check_ins: vec![(1, client)],
        counted: vec![counted(1)],
        ..opening(1)
    };
    store.commit(&task, &first).unwrap();
    store
        .commit(
            &task,
            &Changes {
                check_ins: vec![(2, client)],
                counted: vec![counted(2)],
                ..opening(2)
            },
        )
        .unwrap();
    let saved = store.load(&task).unwrap().unwrap();
    assert_eq!(
        (saved.sum, saved.check_ins.len(), saved.counted.len()),
        (None, 1, 2)
    );
    assert_eq!((saved.updates, saved.memory), (vec![], Some(memory())));
    let kept = store
        .with(|database| {
            let updates = database.begin_read()?.open_table(super::redb::UPDATES)?;
            Ok(::redb::ReadableTableMetadata::len(&updates)?)
        })
        .unwrap();
    assert_eq!(kept, 0, "nothing of them is left in the table");
    store.commit(&task, &opening(66)).unwrap();
    let saved = store.load(&task).unwrap().unwrap();
    assert_eq!((saved.check_ins.len(), saved.counted), (0, vec![counted(2)]));
}

#[test]
fn forgotten_check_ins_are_gone_but_for_those_of_clients_that_reported() {
    let (store, task, _folder) = open();
    let client = |number| ClientId::from_bytes([number; 16]);
    let first = Changes {
        check_ins: vec![(1, client(1)), (1, client(9)), (2, client(1))],
        ..opening(1)
    };
    store.commit(&task, &first).unwrap();
    let second = Changes {
        counted: vec![counted(1)], // of client 9
        forgotten: Some(1),
        check_ins: vec![(1, client(4))],
        ..Changes::default()
    };
    store.commit(&task, &second).unwrap();
    let left = store.load(&task).unwrap().unwrap().check_ins;
    assert_eq!(left, [(1, client(4)), (1, client(9))]);
}

/// A commit that publishes `round` with the model of `bytes`, and opens the next.
fn publishing(round: u64, bytes: &[u8]) -> Changes {
    let model = ContentHash::of(bytes);
    Changes {
        head: Some(Head {
            model,
            ..head(round + 1)
        }),
        models: vec![(model, bytes.to_vec())],
        rounds: vec![
            RoundMetrics {
                round,
                model,
                clients: 2,
                checked_in: 2,
                bytes_up: 1,
                model_bytes: bytes.len() as u64,
                duration_ms: 1,
                published_at_ms: 1,
                accuracy: None,
                loss: None,
                rolled_back_to: None,
                privacy: None,
            }
            .into(),
        ],
        ..opening(round + 1)
    }
}

#[test]
fn the_newest_models_are_kept_and_older_ones_deleted() {
    let (store, task, _folder) = open();
    let store = store.keeping(3);
    let other: TaskId = "other".parse().unwrap();
    store.commit(&other, &publishing(0, b"other")).unwrap();
    let there = |bytes: &[u8]| store.model(&task, &ContentHash::of(bytes)).unwrap().is_some();
    for round in 0..6_u8 {
        store.commit(&task, &publishing(round.into(), &[round])).unwrap();
        let kept: Vec<u8> = (0..=round).filter(|round| there(&[*round])).collect();
        assert_eq!(kept, (round.saturating_sub(2)..=round).collect::<Vec<_>>());
    }
    // Commits that publish nothing delete nothing, and neither do those of another task.
    store.commit(&task, &opening(6)).unwrap();
    assert!(there(&[3]) && there(&[5]));
    assert!(store.model(&other, &ContentHash::of(b"other")).unwrap().is_some());
    // What the rounds were stays known, of all of them.
    assert_eq!(store.rounds(&task).unwrap().len(), 6);
    let numbers = |before, most| {
        let rounds = store.rounds_before(&task, before, most).unwrap();
        rounds.iter().map(|metrics| metrics.round).collect::<Vec<_>>()
    };
    assert_eq!(numbers(u64::MAX, 9), [0, 1, 2, 3, 4, 5]);
    assert_eq!(numbers(u64::MAX, 2), [4, 5]);
    assert_eq!(numbers(4, 2), [2, 3]);
    assert!(numbers(0, 9).is_empty());
}

#[test]
fn a_model_that_comes_again_is_as_new_as_its_last_time() {
    let (store, task, _folder) = open();
    let store = store.keeping(2);
    for (round, bytes) in [b"a", b"b", b"a", b"c"].iter().enumerate() {
        store.commit(&task, &publishing(round as u64, *bytes)).unwrap();
    }
    for (bytes, kept) in [(b"a", true), (b"b", false), (b"c", true)] {
        assert_eq!(
            store.model(&task, &ContentHash::of(bytes)).unwrap().is_some(),
            kept
        );
    }
}

#[test]
fn a_store_from_before_models_were_deleted_is_cleared_up_by_its_next_round() {
    let (store, task, folder) = open();
    let store = store.keeping(u64::MAX);
    for round in 0..10_u8 {
        store.commit(&task, &publishing(round.into(), &[round])).unwrap();
    }
    drop(store);
    let store = RedbStore::open(&folder.path().join("a.redb")).unwrap().keeping(1);
    store.commit(&task, &publishing(10, &[10])).unwrap();
    for round in 0..=10_u8 {
        let there = store.model(&task, &ContentHash::of(&[round])).unwrap().is_some();
        assert_eq!(there, round == 10, "{round}");
    }
}

#[cfg(unix)]
#[test]
fn a_new_file_is_its_owners_alone_and_one_that_is_there_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("below/relay.redb");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(RedbStore::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    drop(RedbStore::open(&path).unwrap());
    assert_eq!(mode(), 0o640, "the operator lets a group read it");
}

#[test]
fn a_store_of_an_earlier_layout_goes_on_and_one_of_a_later_is_refused() {
    let (store, task, folder) = open();
    let sum = Changes {
        sum: Some(vec![1, -7]),
        ..opening(1)
    };
    store.commit(&task, &sum).unwrap();
    // As relays of that layout left their stores.
    let set = |store: &RedbStore, layout: u64| {
        let change = |database: &::redb::Database| {
            let write = database.begin_write()?;
            write.open_table(super::redb::META)?.insert("layout", layout)?;
            if layout <= 3 {
                write.delete_table(super::redb::SUMS)?;
                let (narrow, wide) = (
                    [1_i32, -7].map(i32::to_le_bytes),
                    [1_i64, -7].map(i64::to_le_bytes),
                );
                if layout == 3 {
                    let mut sums = write.open_table(super::redb::NARROW_SUMS)?;
                    sums.insert("task", narrow.as_flattened())?;
                    write.open_table(super::redb::WIDE_SUMS)?;
                } else {
                    let mut sums = write.open_table(super::redb::WIDE_SUMS)?;
                    sums.insert("task", wide.as_flattened())?;
                }
            }
            if layout == 1 {
                write.delete_table(super::redb::UPDATES)?;
                write.delete_table(super::redb::MEMORIES)?;
            }
            Ok(write.commit()?)
        };
        store.with(change).unwrap();
    };
    let path = folder.path().join("a.redb");
    let mut store = store;
    for layout in [3, 2, 1, 99] {
        let saved = store.load(&task).unwrap().unwrap();
        assert_eq!(
            (saved.head, saved.sum),
            (head(1), sum.sum.clone()),
            "before {layout}"
        );
        set(&store, layout);
        drop(store);
        match RedbStore::open(&path) {
            Ok(again) => store = again,
            Err(_) => break,
        }
    }
    let error = RedbStore::open(&path).err().unwrap();
    assert!(error.to_string().contains("its layout is 99"), "{error}");
}

#[test]
fn a_sum_of_many_blocks_is_read_as_it_was_written_and_goes_with_its_round() {
    let (store, task, _folder) = open();
    let of_length = |length: usize, wide: Option<usize>| -> Vec<i64> {
        let entry = |at: usize| {
            if Some(at) == wide {
                i64::MIN + 1
            } else {
                at as i64 - 5
            }
        };
        (0..length).map(entry).collect()
    };
    let block = super::blocks::SUM_BLOCK;
    for length in [1, block - 1, block, block + 1, 3 * block + 7] {
        // A block that becomes wide, and narrow again; the one entry that does not fit lies at an edge.
        for wide in [None, Some(length - 1), Some(0), None] {
            let sum = Some(of_length(length, wide));
            let changes = Changes {
                sum: sum.clone(),
                ..opening(1)
            };
            store.commit(&task, &changes).unwrap();
            assert_eq!(store.load(&task).unwrap().unwrap().sum, sum, "{length} {wide:?}");
        }
        store.commit(&task, &opening(2)).unwrap();
        assert_eq!(store.load(&task).unwrap().unwrap().sum, None, "{length}");
    }
}

#[test]
fn a_file_in_use_and_a_file_of_something_else_are_refused() {
    let (_store, _, folder) = open();
    assert!(RedbStore::open(&folder.path().join("a.redb")).is_err());
    let other = folder.path().join("other");
    std::fs::write(
        &other,
        "not a database, but long enough to be read as one ".repeat(200),
    )
    .unwrap();
    assert!(RedbStore::open(&other).is_err());
    assert!(
        std::fs::read_to_string(&other)
            .unwrap()
            .starts_with("not a database"),
        "and left alone"
    );
}

fn application(seed: u8, invitation: Option<ContentHash>) -> Application {
    Application {
        key: unsaid_protocol::PublicKey::from_bytes([seed; 32]),
        invitation,
        now_ms: 1,
    }
}

#[test]
fn whoever_is_refused_enrolment_waits_for_nobody_who_writes() {
    let (store, _, _folder) = open();
    let [used, unknown] = [b"used", b"none"].map(|it| ContentHash::of(it));
    store.invite(&[used]).unwrap();
    for (seed, invitation) in [(1, None), (2, Some(used))] {
        let admission = store.enrol(&application(seed, invitation), 1).unwrap();
        assert!(matches!(admission, Admission::New(_)));
    }
    let writer = ::redb::Database::begin_write;
    store
        .with(|database| {
            let writing = writer(database)?;
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for (seed, invitation) in [
                        (1, None),
                        (2, Some(used)),
                        (3, None),
                        (3, Some(used)),
                        (3, Some(unknown)),
                    ] {
                        tell.send(store.enrol(&application(seed, invitation), 1).unwrap())
                            .unwrap();
                    }
                });
                let next = || told.recv_timeout(std::time::Duration::from_secs(20)).ok();
                let answers: Vec<_> = (0..5).map_while(|_| next()).collect();
                drop(writing); // or the thread would wait for ever
                assert_eq!(
                    answers,
                    [
                        Admission::Known(unsaid_protocol::Enrolment::Open),
                        Admission::Known(unsaid_protocol::Enrolment::Invitation),
                        Admission::Full,
                        Admission::UsedInvitation,
                        Admission::NoInvitation,
                    ]
                );
            });
            Ok(())
        })
        .unwrap();
}

/// Its turn began before the revocation, and would end after it.
#[test]
fn a_commit_that_would_count_for_an_identity_that_was_revoked_meanwhile_writes_nothing() {
    let (store, task, _folder) = open();
    store.enrol(&application(1, None), 9).unwrap();
    store.enrol(&application(2, None), 9).unwrap();
    let id = |seed| IdentityId::of(&application(seed, None).key);
    let counting = |seed| Changes {
        accounts: vec![(id(seed), Account::default())],
        ..publishing(u64::from(seed), &[seed])
    };
    store.revoke(&id(1), 5).unwrap();
    // While the database is in use, as it is for other tasks: it could not be opened a second time.
    let in_use = store.with(|_| {
        let error = store.commit(&task, &counting(1)).unwrap_err();
        assert!(error.to_string().contains("revoked meanwhile"), "{error}");
        assert_eq!(store.load(&task).unwrap(), None);
        Ok(())
    });
    in_use.unwrap();
    store.commit(&task, &counting(2)).unwrap();
    assert_eq!(store.load(&task).unwrap().unwrap().head.round, 3);
}

#[test]
fn a_revoked_identity_gives_back_the_place_that_it_had_without_an_invitation() {
    let (store, _, _folder) = open();
    let id = |seed| IdentityId::of(&application(seed, None).key);
    let invitation = ContentHash::of(b"invitation");
    store.invite(&[invitation]).unwrap();
    let enrol = |seed, invitation| store.enrol(&application(seed, invitation), 1).unwrap();
    assert!(matches!(enrol(1, Some(invitation)), Admission::New(_)));
    assert!(matches!(enrol(2, None), Admission::New(_)));
    store.revoke(&id(1), 5).unwrap();
    assert_eq!(enrol(3, None), Admission::Full, "the invited one had none");
    for _ in 0..2 {
        store.revoke(&id(2), 5).unwrap();
    }
    assert!(matches!(enrol(3, None), Admission::New(_)));
    assert_eq!(
        enrol(4, None),
        Admission::Full,
        "one place, however often it is asked"
    );
    assert_eq!(enrol(2, None), Admission::Revoked);
}
