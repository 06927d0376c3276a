//! Every committed seed goes to its target: what fuzzing found once is tried on each change.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::PathBuf};

use unsaid_fuzz::TARGETS;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

#[test]
fn every_seed_is_accepted_or_refused_and_both_happen() {
    for (name, target) in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for (path, bytes) in seeds(name) {
            let result = std::panic::catch_unwind(|| target(&bytes));
            match result {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(_) => panic!("{name} does not hold for {}", path.display()),
            }
        }
        assert!(
            accepted > 0 && refused > 0,
            "{name}: {accepted} accepted, {refused} refused"
        );
    }
}

/// A name in one place only would be fuzzed by nobody, or replayed by nobody.
#[test]
fn each_target_has_a_program_and_seeds_and_there_are_no_others() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let named = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.map(|entry| stem(entry.unwrap().path())).collect();
        names.sort();
        names
    };
    let mut names: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!((named("targets"), named("seeds")), (names.clone(), names));
}
