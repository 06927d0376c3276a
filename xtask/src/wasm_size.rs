//! The size of the shipped wasm, against the budget that is committed.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};

use crate::place::Place;

const BUDGET: &str = "wasm-budget.json";

/// Prints the size of each file named in `wasm-budget.json`, and fails where one is above its budget.
pub(crate) fn check(place: &Place, folder: &Path) -> Result<()> {
    let path = place.root.join(BUDGET);
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let budget: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{BUDGET} is not JSON"))?;
    let files = budget.as_object().filter(|files| !files.is_empty());
    let files = files.with_context(|| format!("{BUDGET} names no file"))?;
    for (name, limits) in files {
        let limit = limits.get("gzip_bytes").and_then(serde_json::Value::as_u64);
        let limit = limit.with_context(|| format!("{BUDGET} gives no gzip_bytes for {name}"))?;
        let file = place.root.join(folder).join(name);
        // Threads need a standard library of their own, which not every machine can compile.
        if name.contains("threads/") && file.parent().is_some_and(|folder| !folder.is_dir()) {
            println!("==> {name}: not built on this machine");
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let gzipped = gzipped_len(&bytes)?;
        println!(
            "==> {name}: {} bytes, {gzipped} bytes gzipped, budget {limit} ({}%)",
            bytes.len(),
            gzipped * 100 / limit.max(1)
        );
        if gzipped > limit {
            bail!(
                "{name} is {gzipped} bytes gzipped, {} above its budget of {limit}",
                gzipped - limit
            );
        }
    }
    Ok(())
}

/// Bytes after `gzip -9`.
pub(crate) fn gzipped_len(bytes: &[u8]) -> Result<u64> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("gzip")?;
    Ok(encoder.finish().context("gzip")?.len() as u64)
}
