//! Every shader of the engine parses and validates on its own.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use std::{
    fs,
    path::{Path, PathBuf},
};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_shader_is_valid_wgsl() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let has = |path: &PathBuf, end: &str| path.extension().is_some_and(|extension| extension == end);
    let sources: Vec<String> = all
        .iter()
        .filter(|path| has(path, "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let shaders: Vec<_> = all.iter().filter(|path| has(path, "wgsl")).collect();
    // As many shaders were found as the code includes, so the walk missed none, and none lies about unused.
    let included: usize = sources
        .iter()
        .map(|source| source.matches(".wgsl\")").count())
        .sum();
    assert!(included > 0);
    assert_eq!(shaders.len(), included, "{shaders:?}");
    for path in shaders {
        let source = fs::read_to_string(path).unwrap();
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{}: {}", path.display(), error.emit_to_string(&source)));
        let mut validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::SUBGROUP,
        );
        // One has another way to sum for devices with subgroups; the others must run everywhere.
        let uses_subgroups = source.contains("subgroupAdd(");
        assert_eq!(
            uses_subgroups,
            path.ends_with("subgroups.wgsl"),
            "{}",
            path.display()
        );
        validator
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        assert!(
            !module.entry_points.is_empty(),
            "{} has no entry point",
            path.display()
        );
    }
}
