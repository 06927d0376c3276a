//! Where things are: the repository, its caches, and the machine's cache of built tools.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The folders that this program reads and writes.
pub(crate) struct Place {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
}

impl Place {
    pub(crate) fn find() -> Result<Self> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let root = match env::var_os("CARGO_MANIFEST_DIR") {
            // Set by `cargo run`; right even where the binary was built in a clone that has moved since.
            Some(folder) => PathBuf::from(folder),
            None => manifest,
        };
        let root = root.parent().map(Path::to_path_buf).unwrap_or_default();
        if !root.join("Cargo.lock").is_file() {
            bail!(
                "{} is not the repository; run this as `cargo xtask`",
                root.display()
            );
        }
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir().context("no current folder")?.join(folder),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Git-ignored, for what is made from downloads: data, stamps, the demo's store.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join(".cache")
    }

    /// A folder of its own for wasm builds, which may use another toolchain than native ones.
    pub(crate) fn wasm_target(&self) -> PathBuf {
        self.target.join("wasm")
    }

    /// Tools that are compiled once per machine, whatever clone they are used from.
    pub(crate) fn tools(&self) -> PathBuf {
        let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
        let cache = cache.map(PathBuf::from);
        let home = || env::home_dir().map(|home| home.join(".cache"));
        cache
            .or_else(home)
            .unwrap_or_else(|| self.cache())
            .join("unsaid/tools")
    }

    /// The version that the workspace pins `package` to, as `package = "=1.2.3"` in the root Cargo.toml.
    pub(crate) fn pinned(&self, package: &str) -> Result<String> {
        let manifest = self.root.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).context("the root Cargo.toml cannot be read")?;
        pinned_in(&text, package)
            .with_context(|| format!("{} does not pin {package} as \"=X.Y.Z\"", manifest.display()))
    }
}

fn pinned_in(manifest: &str, package: &str) -> Option<String> {
    manifest.lines().find_map(|line| {
        let value = line.strip_prefix(package)?.trim_start().strip_prefix('=')?;
        let version = value.split_once("\"=")?.1;
        Some(version.split_once('"')?.0.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::pinned_in;

    #[test]
    fn only_an_exact_pin_of_that_very_package_counts() {
        let manifest = "wasm-bindgen-test = \"=0.3.80\"\nwasm-bindgen = \"=0.2.130\"\nserde = \"1\"\n";
        assert_eq!(pinned_in(manifest, "wasm-bindgen").as_deref(), Some("0.2.130"));
        assert_eq!(pinned_in(manifest, "serde"), None);
        assert_eq!(pinned_in(manifest, "absent"), None);
    }
}
