//! Validation of every shader with whatever validators are there; the Rust tests do it with naga in any case.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::runner::Verdict;
use crate::{
    apt::on_path,
    place::Place,
    process::{self, describe},
    runner_output::Counts,
};

pub(super) fn validate(place: &Place) -> Result<Verdict> {
    let mut shaders = Vec::new();
    for folder in ["crate", "tests/bench/native"] {
        collect(&place.root.join(folder), &mut shaders)?;
    }
    shaders.sort();
    if shaders.is_empty() {
        bail!("no .wgsl file was found");
    }
    let (naga, tint) = (on_path("naga"), on_path("tint"));
    for (name, found) in [("naga", &naga), ("tint", &tint)] {
        if found.is_none() {
            println!("{name} not found: the shaders are validated by the naga crate in the Rust tests only");
        }
    }
    let mut tested = Counts::default();
    for program in [naga, tint].into_iter().flatten() {
        for shader in &shaders {
            let mut command = Command::new(&program);
            if program.ends_with("tint") {
                // What it writes by default, SPIR-V, not every build of it can.
                command
                    .args(["--format", "wgsl"])
                    .arg(for_browsers(place, shader)?);
            } else {
                command.arg(shader);
            }
            match process::capture(&mut command) {
                Ok(_) => tested.passed += 1,
                Err(error) => {
                    return Ok(Verdict::Failed {
                        counts: Counts::one(false),
                        command: describe(&command),
                        tail: format!("{error:#}").lines().map(str::to_owned).collect(),
                    });
                }
            }
        }
    }
    println!("{} shaders, {} validations", shaders.len(), tested.passed);
    Ok(if tested.passed == 0 {
        Verdict::Skipped(
            "neither naga nor tint is on PATH; the Rust tests validate with the naga crate".into(),
        )
    } else {
        Verdict::Passed(Some(tested))
    })
}

/// The shader as a browser gets it: with the directive that naga 30 does not know, where it uses subgroups.
fn for_browsers(place: &Place, shader: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(shader).with_context(|| format!("{} cannot be read", shader.display()))?;
    if !text.contains("subgroupAdd(") {
        return Ok(shader.to_owned());
    }
    let copy = place.target.join("subgroups.wgsl");
    fs::write(&copy, format!("enable subgroups;\n{text}")).context("a copy of a shader cannot be written")?;
    Ok(copy)
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry.context("a folder cannot be read")?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            out.push(path);
        }
    }
    Ok(())
}
