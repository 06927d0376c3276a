//! Stamps: what a step was made from, so that it is done again only when that has changed.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::place::Place;

/// The inputs of a step, hashed.
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Starts with what no file says: versions, flags.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash)
    }

    /// Adds a file, or every file below a folder except in `node_modules`, `dist` and hidden ones.
    pub(crate) fn add(mut self, path: &Path) -> Result<Self> {
        self.walk(path, path)?;
        Ok(self)
    }

    fn walk(&mut self, base: &Path, path: &Path) -> Result<()> {
        let cannot = || format!("{} cannot be read", path.display());
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(cannot)?;
            let mut entries: Vec<PathBuf> = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
                .with_context(cannot)?;
            entries.sort();
            for entry in entries {
                let name = entry.file_name().unwrap_or_default().to_string_lossy();
                if !(name.starts_with('.') || name == "node_modules" || name == "dist") {
                    self.walk(base, &entry)?;
                }
            }
            return Ok(());
        }
        let bytes = fs::read(path).with_context(cannot)?;
        let name = path.strip_prefix(base).unwrap_or(path).to_string_lossy();
        self.0.update((name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(&bytes);
        Ok(())
    }

    pub(crate) fn hex(self) -> String {
        let digest = self.0.finalize();
        digest.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The stamp of one step.
pub(crate) struct Stamp {
    path: PathBuf,
    value: String,
}

impl Stamp {
    pub(crate) fn new(place: &Place, name: &str, value: String) -> Self {
        let path = place.cache().join("stamps").join(name);
        Self { path, value }
    }

    /// Whether the step was last done with the same inputs, and each of its `outputs` is still there.
    pub(crate) fn holds(&self, outputs: &[&Path]) -> bool {
        outputs.iter().all(|output| output.exists())
            && fs::read_to_string(&self.path).is_ok_and(|found| found == self.value)
    }

    /// To be called before the step touches anything: a step that is cut short counts as not done.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// To be called once the step is done.
    pub(crate) fn set(&self) -> Result<()> {
        let cannot = || format!("{} cannot be written", self.path.display());
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).with_context(cannot)?;
        }
        fs::write(&self.path, &self.value).with_context(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_names_and_parts_count_and_ignored_folders_do_not() {
        let folder = std::env::temp_dir().join(format!("unsaid-stamp-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("src/a"), "1").unwrap();
        let hash = |parts: &[&str]| Inputs::new(parts).add(&folder).unwrap().hex();
        let first = hash(&["x"]);
        assert_eq!(first, hash(&["x"]));
        assert_ne!(first, hash(&["y"]));
        fs::create_dir_all(folder.join("node_modules")).unwrap();
        fs::write(folder.join("node_modules/b"), "1").unwrap();
        assert_eq!(first, hash(&["x"]));
        fs::rename(folder.join("src/a"), folder.join("src/b")).unwrap();
        assert_ne!(first, hash(&["x"]));
        fs::write(folder.join("src/b"), "2").unwrap();
        let second = hash(&["x"]);
        fs::write(folder.join("src/b"), "3").unwrap();
        assert_ne!(second, hash(&["x"]));
        fs::remove_dir_all(&folder).unwrap();
    }
}
