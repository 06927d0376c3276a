use proptest::prelude::*;
use tempfile::TempDir;
use unsaid_protocol::ContentHash;

use super::*;
use crate::{
    round::Span,
    store::{RedbStore, Saved, Store},
};

const NAME: &str = "relay.redb";

fn task() -> TaskId {
    "task".parse().unwrap()
}

fn head(round: u64, bytes_up: u64) -> Head {
    Head {
        round,
        model: ContentHash::of(&round.to_le_bytes()),
        span: Some(Span {
            started_ms: 1,
            deadline_ms: 2,
        }),
        bytes_up,
        paused: false,
        forgot: 0,
        excused: 0,
        draw_key: None,
        earlier: Vec::new(),
        min_separation: 0,
        shares: None,
        tree: None,
        spent: None,
    }
}

fn client(number: u64) -> ClientId {
    ClientId::from_bytes(u128::from(number).to_le_bytes())
}

/// Opens a round.
fn opening(round: u64) -> Changes {
    Changes {
        head: Some(head(round, 0)),
        manifest: Some("{}".into()),
        ..Changes::default()
    }
}

/// The `number`th update of a round, by a client that checks in in the same commit.
fn update(round: u64, number: u64, sum: Vec<i64>) -> Changes {
    Changes {
        head: Some(head(round, number)),
        sum: Some(sum),
        check_ins: vec![(round, client(number))],
        counted: vec![Counted {
            update: UpdateId::from_bytes(u128::from(number).to_le_bytes()),
            round,
            client: client(number),
            digest: FrameDigest::of(&number.to_le_bytes()),
        }],
        ..Changes::default()
    }
}

/// A check-in alone.
fn check_in(round: u64, number: u64) -> Changes {
    Changes {
        head: Some(head(round, 1_000 + number)),
        check_ins: vec![(round, client(number))],
        ..Changes::default()
    }
}

fn store() -> (RedbStore, TempDir) {
    let folder = TempDir::new().unwrap();
    let store = RedbStore::open(&folder.path().join(NAME)).unwrap();
    store.commit(&task(), &opening(1)).unwrap();
    (store, folder)
}

/// What the disk has now, as a relay would find it that was killed.
fn killed(folder: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        } else {
            std::fs::create_dir(copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}

/// Neither in the journal nor beside it, and without a sum.
fn through(round: u64, number: u64) -> Changes {
    Changes {
        head: Some(head(round, number)),
        memory: Some(crate::strategy::Memory {
            kind: "k".into(),
            values: vec![number as f32],
        }),
        ..Changes::default()
    }
}

/// Why it cannot be opened.
fn refused(folder: &TempDir) -> String {
    let refused = RedbStore::open(&folder.path().join(NAME)).err();
    refused.expect("it was opened").to_string()
}

/// Opened again.
fn found(folder: &TempDir) -> Saved {
    let store = RedbStore::open(&folder.path().join(NAME)).unwrap();
    store.load(&task()).unwrap().unwrap()
}

fn files(folder: &TempDir) -> Vec<String> {
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder.path()).unwrap().map(name).collect();
    names.sort();
    names
}

fn file(folder: &TempDir, number: u64) -> PathBuf {
    folder.path().join(format!("{NAME}.task.{}", number % 2))
}

/// Of both files, in bytes.
fn lengths(folder: &TempDir) -> [u64; 2] {
    [0, 1].map(|number| std::fs::metadata(file(folder, number)).unwrap().len())
}

/// The numbers of the updates that a state counts.
fn counted(saved: &Saved) -> Vec<u8> {
    saved
        .counted
        .iter()
        .map(|entry| entry.update.as_bytes()[0])
        .collect()
}

#[test]
fn what_a_killed_relay_acknowledged_is_there() {
    let (store, folder) = store();
    for number in 1..=5 {
        store
            .commit(&task(), &update(1, number, vec![number as i64, -7]))
            .unwrap();
        let killed = killed(&folder);
        assert_ne!(lengths(&killed), [0, 0], "it is in the journal");
        let saved = found(&killed);
        assert_eq!(saved.sum, Some(vec![number as i64, -7]));
        assert_eq!(counted(&saved), (1..=number as u8).collect::<Vec<_>>());
        assert_eq!(saved.check_ins.len(), number as usize);
        assert_eq!(saved.head, head(1, number));
        assert_eq!(files(&killed), [NAME], "and then in the database");
    }
}

#[test]
fn a_store_that_is_closed_is_one_file() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    store.commit(&task(), &update(1, 2, vec![2])).unwrap();
    assert_eq!(files(&folder).len(), 3);
    drop(store);
    assert_eq!(files(&folder), [NAME]);
    let saved = found(&folder);
    assert_eq!((saved.sum.clone(), counted(&saved)), (Some(vec![2]), vec![1, 2]));
}

/// A record without the zeros behind it; its sum ends with a number below 256.
fn record(folder: &TempDir, number: u64) -> Vec<u8> {
    let mut bytes = std::fs::read(file(folder, number)).unwrap();
    assert_eq!(bytes.len() % 4_096, 0);
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes.truncate(last + 4);
    bytes
}

/// Wherever a power cut leaves the record that was being written, the one before it counts, with its ids and its sum.
#[test]
fn a_record_that_is_not_whole_is_none_and_the_one_before_it_counts() {
    let (store, folder) = store();
    for number in 1..=3 {
        store
            .commit(&task(), &update(1, number, vec![number as i64; 20]))
            .unwrap();
    }
    let whole = record(&folder, 3);
    let before = |bytes: &[u8]| {
        let torn = killed(&folder);
        std::fs::write(file(&torn, 3), bytes).unwrap();
        let saved = found(&torn);
        let ids = counted(&saved);
        (saved.sum.unwrap()[0], ids, saved.head.bytes_up)
    };
    assert_eq!(before(&whole), (3, vec![1, 2, 3], 3), "the control");
    for at in (0..whole.len()).step_by(23) {
        assert_eq!(before(&whole[..at]), (2, vec![1, 2], 2), "cut off at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert_eq!(before(&flipped), (2, vec![1, 2], 2), "flipped at {at}");
    }
    // A page of the record before the last in the middle of it.
    let old = record(&folder, 2);
    let mut mixed = whole.clone();
    mixed[HEADER..HEADER + 40].copy_from_slice(&old[HEADER..HEADER + 40]);
    assert_eq!(before(&mixed).1, vec![1, 2, 3], "the same bytes: a head");
    mixed[whole.len() - 40..].copy_from_slice(&old[old.len() - 40..]);
    assert_eq!(before(&mixed).1, vec![1, 2], "another sum");
    let longer = [&whole[..], b"what a longer record left"].concat();
    assert_eq!(before(&longer), (3, vec![1, 2, 3], 3));
}

#[test]
fn a_check_in_beside_the_journal_has_the_newer_head_until_the_next_update() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    let before = std::fs::read(file(&folder, 1)).unwrap();
    store.commit(&task(), &check_in(1, 7)).unwrap();
    assert_eq!(
        std::fs::read(file(&folder, 1)).unwrap(),
        before,
        "the sum is not written again"
    );
    let saved = found(&killed(&folder));
    assert_eq!((saved.head, saved.check_ins.len()), (head(1, 1_007), 2));
    assert_eq!(saved.sum, Some(vec![1]));
    store.commit(&task(), &update(1, 2, vec![2])).unwrap();
    let saved = found(&killed(&folder));
    assert_eq!((saved.head, saved.check_ins.len()), (head(1, 2), 3));
    // The same to whoever asks the store that is open.
    store.commit(&task(), &check_in(1, 8)).unwrap();
    let saved = store.load(&task()).unwrap().unwrap();
    assert_eq!((saved.head, saved.check_ins.len()), (head(1, 1_008), 4));
    assert_eq!(saved.sum, Some(vec![2]));
}

#[test]
fn what_a_round_left_in_the_journal_says_nothing_about_the_next() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    store.commit(&task(), &update(1, 2, vec![2])).unwrap();
    let of_round_1 = killed(&folder);
    store.commit(&task(), &opening(2)).unwrap();
    let killed_then = killed(&folder);
    assert_eq!(files(&killed_then).len(), 3, "the files are there");
    let saved = found(&killed_then);
    assert_eq!((saved.sum.clone(), counted(&saved)), (None, vec![1, 2]));
    store.commit(&task(), &update(2, 3, vec![3])).unwrap();
    let killed_then = killed(&folder);
    // One of the two is still of round 1.
    let saved = found(&killed_then);
    assert_eq!(
        (saved.sum.clone(), counted(&saved)),
        (Some(vec![3]), vec![1, 2, 3])
    );
    // A database of round 2 beside files that are all of round 1.
    store.commit(&task(), &opening(3)).unwrap();
    let later = killed(&folder);
    for number in 0..2 {
        std::fs::copy(file(&of_round_1, number), file(&later, number)).unwrap();
    }
    let saved = found(&later);
    assert_eq!((saved.head.round, saved.sum), (3, None));
}

#[test]
fn a_database_that_was_put_back_does_not_take_a_later_journal() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    let old = killed(&folder);
    drop(found(&old)); // folded, as a relay leaves it that stops
    store.commit(&task(), &opening(2)).unwrap();
    store.commit(&task(), &update(2, 2, vec![2])).unwrap();
    let put_back = killed(&folder);
    std::fs::copy(old.path().join(NAME), put_back.path().join(NAME)).unwrap();
    let saved = found(&put_back);
    assert_eq!((saved.head.round, saved.sum.clone()), (1, Some(vec![1])));
    assert_eq!(counted(&saved), [1]);
}

#[test]
fn what_a_round_added_up_is_in_no_file_once_it_is_closed() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    store.commit(&task(), &update(1, 2, vec![2])).unwrap();
    assert!(lengths(&folder).iter().all(|length| *length > 0), "the control");
    let of_round_1 = killed(&folder);
    store.commit(&task(), &opening(2)).unwrap();
    assert_eq!(lengths(&folder), [0, 0]);
    // Killed before they were cut off: the next start removes them, though no record in them counts.
    let killed = killed(&folder);
    for number in 0..2 {
        std::fs::copy(file(&of_round_1, number), file(&killed, number)).unwrap();
    }
    assert_eq!(found(&killed).sum, None);
    assert_eq!(files(&killed), [NAME]);
}

#[test]
fn a_database_without_its_journal_is_refused_until_it_is_given_up() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    store.commit(&task(), &update(1, 2, vec![2])).unwrap();
    for missing in [&[0][..], &[1], &[0, 1]] {
        let copy = killed(&folder);
        for number in missing {
            std::fs::remove_file(file(&copy, *number)).unwrap();
        }
        for _ in 0..2 {
            let why = refused(&copy);
            assert!(why.contains(file(&copy, missing[0]).to_str().unwrap()), "{why}");
            assert!(why.contains("--give-up-journals"), "{why}");
        }
        let path = copy.path().join(NAME);
        drop(RedbStore::open_giving_up_journals(&path).unwrap());
        let saved = found(&copy);
        let (sum, ids) = match missing {
            [0] => (Some(vec![1]), vec![1]), // the record before the last
            [1] => (Some(vec![2]), vec![1, 2]),
            _ => (None, vec![]),
        };
        assert_eq!((saved.sum.clone(), counted(&saved)), (sum, ids));
        assert_eq!(files(&copy), [NAME]);
    }
    drop(store);
    for number in 0..2 {
        assert!(!file(&folder, number).exists());
    }
    assert_eq!(
        found(&folder).sum,
        Some(vec![2]),
        "a store that was closed has none"
    );
}

/// A check-in tells the database how far the journal had come.
#[test]
fn a_journal_that_lacks_a_record_is_refused_until_it_is_given_up() {
    let (store, folder) = store();
    for number in 1..=3 {
        store
            .commit(&task(), &update(1, number, vec![number as i64]))
            .unwrap();
    }
    store.commit(&task(), &check_in(1, 7)).unwrap();
    assert_eq!(found(&killed(&folder)).sum, Some(vec![3]), "the control");
    for empty in [&[1][..], &[0, 1]] {
        let copy = killed(&folder);
        for number in empty {
            std::fs::write(file(&copy, *number), b"").unwrap();
        }
        let why = refused(&copy);
        assert!(why.contains("lacks a record"), "{why}");
        drop(RedbStore::open_giving_up_journals(&copy.path().join(NAME)).unwrap());
        let saved = found(&copy);
        let sum = (empty.len() == 1).then(|| vec![2]);
        assert_eq!(counted(&saved).len() as i64, sum.as_ref().map_or(0, |sum| sum[0]));
        assert_eq!((saved.sum, saved.head.bytes_up), (sum, 1_007));
    }
}

#[test]
fn a_record_of_another_version_is_refused() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    let copy = killed(&folder);
    let mut record = std::fs::read(file(&copy, 1)).unwrap();
    record[4] += 1;
    std::fs::write(file(&copy, 1), record).unwrap();
    let why = refused(&copy);
    assert!(why.contains("another version"), "{why}");
}

/// Through a link a store has the journals of the file that it leads to, so that they move with it.
#[cfg(unix)]
#[test]
fn journals_are_beside_the_file_that_a_link_leads_to() {
    let (folder, links) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(RedbStore::open(&folder.path().join(NAME)).unwrap());
    let link = links.path().join("link.redb");
    std::os::unix::fs::symlink(folder.path().join(NAME), &link).unwrap();
    let store = RedbStore::open(&link).unwrap();
    store.commit(&task(), &opening(1)).unwrap();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    assert_eq!(files(&links), ["link.redb"]);
    assert_eq!(found(&killed(&folder)).sum, Some(vec![1]));
}

/// Somebody clears up around a relay that runs. It goes on from the files that it has open, and then makes others.
#[cfg(unix)]
#[test]
fn files_that_are_removed_from_under_a_relay_lose_nothing() {
    let (store, folder) = store();
    for number in 1..=3 {
        store
            .commit(&task(), &update(1, number, vec![number as i64]))
            .unwrap();
    }
    for number in 0..2 {
        std::fs::remove_file(file(&folder, number)).unwrap();
    }
    refused(&killed(&folder));
    for number in 4..=9 {
        store.commit(&task(), &through(1, number)).unwrap();
        let saved = found(&killed(&folder));
        assert_eq!(
            (saved.sum.clone(), counted(&saved).len()),
            (Some(vec![number as i64 - 1]), number as usize - 1)
        );
        store
            .commit(&task(), &update(1, number, vec![number as i64]))
            .unwrap();
        let saved = found(&killed(&folder));
        assert_eq!(
            (saved.sum.clone(), counted(&saved).len()),
            (Some(vec![number as i64]), number as usize)
        );
    }
    assert_eq!(files(&folder).len(), 3, "they are there again");
}

#[test]
fn a_damaged_record_takes_its_ids_with_its_sum_and_a_relay_that_runs_does_not_need_it() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    // A disk that damages the only record while the relay runs.
    let mut record = std::fs::read(file(&folder, 1)).unwrap();
    record[HEADER] ^= 1;
    std::fs::write(file(&folder, 1), record).unwrap();
    let killed = found(&killed(&folder));
    assert_eq!((killed.sum.clone(), counted(&killed)), (None, vec![]));
    // The relay goes on from its memory.
    store.commit(&task(), &through(1, 2)).unwrap();
    let saved = store.load(&task()).unwrap().unwrap();
    assert_eq!((saved.sum.clone(), counted(&saved)), (Some(vec![1]), vec![1]));
}

#[test]
fn the_ids_in_a_record_are_bounded() {
    let (store, folder) = store();
    let mut longest = 0;
    for number in 1..=700 {
        let one = update(1, number, vec![number as i64]);
        store.commit(&task(), &one).unwrap();
        longest = longest.max(std::fs::metadata(file(&folder, number)).unwrap().len());
    }
    assert!(longest <= 4_096 + 1_000 + 72 * MOST_ENTRIES as u64, "{longest}");
    let saved = found(&killed(&folder));
    assert_eq!((saved.counted.len(), saved.sum), (700, Some(vec![700])));
}

#[test]
fn where_no_journal_can_be_made_commits_go_to_the_database() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(file(&folder, 1)).unwrap();
    let store = RedbStore::open(&folder.path().join(NAME)).unwrap();
    store.commit(&task(), &opening(1)).unwrap();
    for number in 1..=2 {
        store
            .commit(&task(), &update(1, number, vec![number as i64]))
            .unwrap();
        let saved = found(&killed(&folder));
        assert_eq!(saved.sum, Some(vec![number as i64]));
        assert_eq!(saved.counted.len(), number as usize);
    }
    assert!(!store.has_journal(&task()));
    drop(store);
    assert_eq!(found(&folder).sum, Some(vec![2]));
}

#[cfg(unix)]
#[test]
fn a_journal_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    let mode = std::fs::metadata(file(&folder, 1)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A commit that fails in the middle of a record, as on a full disk, leaves what was acknowledged, and the store goes on by itself.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_takes_no_update_and_loses_none() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    {
        let open = store.open_again(Missing::Refused).unwrap();
        let journal = open.journal(&folder.path().join(NAME), &task());
        let full = || File::options().write(true).open("/dev/full").unwrap();
        journal.lock().unwrap().files = Some([full(), full()]);
    }
    store.commit(&task(), &update(1, 2, vec![2])).unwrap_err();
    let saved = store.load(&task()).unwrap().unwrap();
    assert_eq!((saved.sum.clone(), counted(&saved)), (Some(vec![1]), vec![1]));
    for number in 3..=5 {
        store
            .commit(&task(), &update(1, number, vec![number as i64]))
            .unwrap();
    }
    let saved = found(&killed(&folder));
    assert_eq!(
        (saved.sum.clone(), counted(&saved)),
        (Some(vec![5]), vec![1, 3, 4, 5])
    );
}

/// Whoever still had the store from before that failure commits nothing of the update that was not acknowledged.
#[cfg(target_os = "linux")]
#[test]
fn after_a_record_that_failed_nothing_is_committed_before_the_store_is_opened_again() {
    let (store, folder) = store();
    store.commit(&task(), &update(1, 1, vec![1])).unwrap();
    let open = store.open_again(Missing::Refused).unwrap();
    let journal = open.journal(&folder.path().join(NAME), &task());
    let full = File::options().write(true).open("/dev/full").unwrap();
    journal.lock().unwrap().files.as_mut().unwrap()[0] = full;
    store.commit(&task(), &update(1, 2, vec![2])).unwrap_err();
    let late = through(1, 3);
    store
        .write(
            &open.database,
            &mut journal.lock().unwrap(),
            "task",
            &late,
            super::super::To::Through,
        )
        .unwrap_err();
    let three = update(1, 3, vec![3]);
    let sum = three.sum.as_deref().unwrap();
    journal
        .lock()
        .unwrap()
        .append(&head(1, 3), sum, &three)
        .unwrap_err();
    drop((journal, open));
    let saved = store.load(&task()).unwrap().unwrap();
    assert_eq!((saved.sum.clone(), counted(&saved)), (Some(vec![1]), vec![1]));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Update,
    CheckIn,
    Evaluate,
    Pause,
    Load,
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Update),
        3 => Just(Step::CheckIn),
        1 => Just(Step::Evaluate),
        1 => Just(Step::Pause),
        1 => Just(Step::Load),
        1 => Just(Step::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is committed, and whenever the relay is killed, a store with journals has what one has that can make none.
    #[test]
    fn a_store_with_journals_is_one_without(steps in prop::collection::vec(step(), 1..24)) {
        let without = TempDir::new().unwrap();
        std::fs::create_dir(file(&without, 0)).unwrap();
        let plain = RedbStore::open(&without.path().join(NAME)).unwrap();
        plain.commit(&task(), &opening(1)).unwrap();
        let (journaled, folder) = store();
        let (mut round, mut sum) = (1, vec![0; 3]);
        let (mut updates, mut written) = (0, 0);
        for (number, step) in (1..).zip(steps) {
            let changes = match step {
                Step::Update => {
                    updates += 1;
                    sum[number as usize % 3] += 1_i64 << (number + 20);
                    update(round, number, sum.clone())
                }
                Step::CheckIn => check_in(round, number),
                Step::Evaluate => Changes { check_ins: vec![(round, client(number))], ..through(round, number) },
                Step::Pause => Changes { head: Some(Head { paused: true, ..head(round, number) }), ..Changes::default() },
                Step::Load => {
                    prop_assert_eq!(journaled.load(&task()).unwrap(), plain.load(&task()).unwrap());
                    continue;
                }
                Step::Publish => {
                    (round, sum) = (round + 1, vec![0; 3]);
                    opening(round)
                }
            };
            plain.commit(&task(), &changes).unwrap();
            journaled.commit(&task(), &changes).unwrap();
            let killed = killed(&folder);
            written += usize::from(lengths(&killed) != [0, 0]);
            prop_assert_eq!(Some(found(&killed)), plain.load(&task()).unwrap());
        }
        prop_assert_eq!(written > 0, updates > 0, "a journal was used");
    }
}
