//! The standard library of `wasm32-unknown-unknown`, from wherever this machine can get it.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt::{self, on_path},
    place::Place,
    process,
};

const TARGET: &str = "wasm32-unknown-unknown";
/// The name under which a system compiler that has the target is linked into rustup.
const LINKED: &str = "unsaid-wasm";
/// rustup waits long for a server that does not answer.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(180);
/// Debian's compiler for browsers, its library's source, and a linker that writes wasm.
const DEBIAN_PACKAGES: [&str; 5] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-llvm",
    "lld-22",
];
const DEBIAN_CLIPPY: &str = "rust-web-clippy";
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const SYSTEM_LIBRARIES: &str = "/usr/lib/rustlib/wasm32-unknown-unknown/lib";

/// A toolchain that builds for browsers.
#[derive(Clone)]
pub(crate) struct WasmToolchain {
    /// For rustup; none where it is the active one.
    name: Option<String>,
    /// Whether the source of its standard library is there.
    library_source: bool,
}

impl WasmToolchain {
    /// Makes `command` (cargo, or what calls cargo) use this toolchain and the folder for wasm builds.
    pub(crate) fn set<'a>(&self, place: &Place, command: &'a mut Command) -> &'a mut Command {
        if let Some(name) = &self.name {
            // The outer `cargo run` has put its own toolchain into these.
            command.env("RUSTUP_TOOLCHAIN", name);
            for variable in ["CARGO", "RUSTC", "RUSTDOC", "LD_LIBRARY_PATH"] {
                command.env_remove(variable);
            }
        }
        command
            .env("CARGO_TARGET_DIR", place.wasm_target())
            .current_dir(&place.root)
    }

    /// Whether `cargo clippy` works with this toolchain; where apt can, it is installed.
    pub(crate) fn has_clippy(&self, place: &Place) -> bool {
        let works =
            || process::capture(self.set(place, Command::new("cargo").args(["clippy", "--version"]))).is_ok();
        works()
            || (self.name.as_deref() == Some(LINKED)
                && apt::usable()
                && apt::install(&[DEBIAN_CLIPPY]).is_ok()
                && works())
    }

    /// Whether cargo can compile its standard library, as [`WasmToolchain::with_library_source`] found.
    pub(crate) const fn has_library_source(&self) -> bool {
        self.library_source
    }

    /// Looks for the source of its standard library, and asks rustup for it where it is missing (Debian's route brings it
    /// along). Without it things work, but what is built is larger.
    pub(crate) fn with_library_source(mut self, place: &Place) -> Self {
        self.library_source = self.finds_library_source(place);
        if !self.library_source && self.name.is_none() && on_path("rustup").is_some() {
            println!("==> standard library's source: rustup component add rust-src");
            let mut add = Command::new("rustup");
            add.args(["component", "add", "rust-src"]);
            add.env("RUSTUP_MAX_RETRIES", "1");
            self.library_source =
                process::succeeds_within(&mut add, DOWNLOAD_LIMIT) && self.finds_library_source(place);
        }
        if !self.library_source {
            println!(
                "==> standard library's source: not found, so the wasm is built with the library as it came, and is larger. \
                 `rustup component add rust-src` brings it"
            );
        }
        self
    }

    fn finds_library_source(&self, place: &Place) -> bool {
        let sysroot = process::capture(self.set(place, Command::new("rustc").args(["--print", "sysroot"])));
        // What cargo itself looks for.
        let lock = "lib/rustlib/src/rust/library/Cargo.lock";
        sysroot.is_ok_and(|sysroot| Path::new(sysroot.trim()).join(lock).is_file())
    }

    fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            library_source: false,
        }
    }

    /// Whether it compiles and links a test for the target. A library built by another version of the compiler fails here.
    fn works(&self, place: &Place) -> bool {
        let out = env::temp_dir().join(format!("unsaid-wasm-probe-{}.wasm", std::process::id()));
        let mut rustc = Command::new("rustc");
        rustc.args(["--test", "--edition", "2024", "--target", TARGET, "-o"]);
        self.set(place, rustc.arg(&out).arg("-"));
        rustc
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let works = rustc.spawn().is_ok_and(|mut child| {
            let written = child.stdin.take().is_some_and(|mut pipe| {
                pipe.write_all(b"fn main() { println!(\"{:?}\", vec![1]); }")
                    .is_ok()
            });
            child.wait().is_ok_and(|status| status.success()) && written
        });
        let _ = fs::remove_file(&out);
        works
    }
}

/// In this order: the active toolchain has the target; rustup downloads it; the linked toolchain has it; Debian's packages
/// give it; an error that says what to do.
pub(crate) fn find_or_install(place: &Place) -> Result<WasmToolchain> {
    let active = WasmToolchain {
        name: None,
        library_source: false,
    };
    if active.works(place) {
        println!("==> wasm target: found in the active toolchain");
        return Ok(active);
    }
    let rustup = on_path("rustup").is_some();
    // Asked before the download: where the linked toolchain is there, the download has failed before.
    let linked = WasmToolchain::named(LINKED);
    if rustup && linked.works(place) {
        println!("==> wasm target: found in the toolchain {LINKED}");
        return Ok(linked);
    }
    if rustup {
        println!("==> wasm target: rustup target add {TARGET}");
        let mut add = Command::new("rustup");
        add.args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "1");
        if process::succeeds_within(&mut add, DOWNLOAD_LIMIT) && active.works(place) {
            return Ok(active);
        }
        println!("==> wasm target: rustup cannot download it here");
        if apt::usable() {
            println!("==> wasm target: building it from Debian's compiler and library source");
            from_debian().context("the wasm target cannot be built from Debian's packages")?;
            if linked.works(place) {
                return Ok(linked);
            }
        }
    }
    bail!(
        "no toolchain here builds for {TARGET}. Install it with `rustup target add {TARGET}`, or link a toolchain that has \
         it as `rustup toolchain link {LINKED} FOLDER`"
    )
}

/// Debian ships the compiler and its library's source, but not the library built for browsers: that is built here.
fn from_debian() -> Result<()> {
    let version = || process::capture(Command::new(SYSTEM_RUSTC).arg("-vV"));
    apt::install(&DEBIAN_PACKAGES)?;
    let version = version()?;
    let libraries = Path::new(SYSTEM_LIBRARIES);
    // A library left by an earlier compiler is of no use to this one.
    let built_by = libraries.join(".built-by");
    if fs::read_to_string(&built_by).ok().as_deref() != Some(version.as_str()) {
        for old in rlibs(libraries)? {
            fs::remove_file(&old).with_context(|| format!("{} cannot be removed", old.display()))?;
        }
        build_library(libraries)?;
        fs::write(&built_by, &version).context("the library's stamp cannot be written")?;
    }
    process::run(Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]))
}

fn build_library(libraries: &Path) -> Result<()> {
    // Outside the repository, whose .cargo/config.toml would apply.
    let package = env::temp_dir().join(format!("unsaid-wasm-std-{}", std::process::id()));
    let _ = fs::remove_dir_all(&package);
    fs::create_dir_all(package.join("src")).context("the empty package cannot be made")?;
    let manifest = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(package.join("Cargo.toml"), manifest).context("the empty package cannot be written")?;
    fs::write(package.join("src/lib.rs"), "").context("the empty package cannot be written")?;
    let target = package.join("target");
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo.args(["build", "--release", "--target", TARGET]);
    cargo.arg("-Zbuild-std=std,panic_abort,panic_unwind,test,proc_macro");
    cargo.current_dir(&package).env("CARGO_TARGET_DIR", &target);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", SYSTEM_RUSTC);
    for variable in [
        "CARGO",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
    ] {
        cargo.env_remove(variable);
    }
    process::run(&mut cargo)?;
    fs::create_dir_all(libraries).context("the system's library folder cannot be made")?;
    let built = rlibs(&target.join(TARGET).join("release/deps"))?;
    let mut copied = 0;
    for rlib in built {
        let name = rlib.file_name().unwrap_or_default();
        if !name.to_string_lossy().starts_with("libempty-") {
            fs::copy(&rlib, libraries.join(name))
                .with_context(|| format!("{} cannot be copied", rlib.display()))?;
            copied += 1;
        }
    }
    if copied == 0 {
        bail!(
            "the build of the standard library left nothing in {}",
            target.display()
        );
    }
    let _ = fs::remove_dir_all(&package);
    Ok(())
}

fn rlibs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", folder.display())),
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "rlib"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a standard library, which takes a minute, and needs Debian's packages:
    /// `cargo test -p xtask -- --ignored the_standard_library`.
    #[test]
    #[ignore = "takes a minute, and needs Debian's rust-web-src"]
    fn the_standard_library_is_built_from_debians_source() {
        let libraries = env::temp_dir().join(format!("unsaid-wasm-libraries-{}", std::process::id()));
        build_library(&libraries).unwrap();
        let names: Vec<String> = rlibs(&libraries)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        for part in ["libcore-", "liballoc-", "libstd-", "libtest-", "libpanic_abort-"] {
            assert!(
                names.iter().any(|name| name.starts_with(part)),
                "{part} in {names:?}"
            );
        }
        assert!(!names.iter().any(|name| name.starts_with("libempty-")));
        fs::remove_dir_all(&libraries).unwrap();
    }
}
