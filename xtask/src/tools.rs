//! Command-line tools that are compiled once per machine: wasm-bindgen and wasm-pack.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{apt::on_path, place::Place, process};

/// Newer ones should do as well; this one is known to.
const WASM_PACK_VERSION: &str = "0.15.1";

/// The folder that holds `wasm-bindgen` and `wasm-bindgen-test-runner` of exactly the version that the workspace pins.
pub(crate) fn wasm_bindgen(place: &Place) -> Result<PathBuf> {
    let version = place.pinned("wasm-bindgen")?;
    // Without --locked: the lock file that this package ships needs crates that have been withdrawn.
    find_or_compile(
        place,
        "wasm-bindgen",
        "wasm-bindgen-cli",
        &version,
        "about a minute",
    )
}

/// The folder that holds `wasm-pack`.
pub(crate) fn wasm_pack(place: &Place) -> Result<PathBuf> {
    find_or_compile(
        place,
        "wasm-pack",
        "wasm-pack",
        WASM_PACK_VERSION,
        "about five minutes",
    )
}

fn find_or_compile(
    place: &Place,
    name: &str,
    package: &str,
    version: &str,
    duration: &str,
) -> Result<PathBuf> {
    let is_right = |program: &PathBuf| {
        let printed = process::capture(Command::new(program).arg("--version"));
        printed.is_ok_and(|text| text.split_whitespace().nth(1) == Some(version))
    };
    let root = place.tools().join(format!("{name}-{version}"));
    let own = root.join("bin").join(name);
    for found in [Some(own.clone()), on_path(name)].into_iter().flatten() {
        if is_right(&found) {
            println!("==> {name} {version}: found");
            return found
                .parent()
                .map(PathBuf::from)
                .context("a program without a folder");
        }
    }
    println!("==> {name} {version}: compiling, once for this machine ({duration})");
    let mut install = Command::new("cargo");
    install.args(["install", package, "--version", version, "--force", "--root"]);
    install
        .arg(&root)
        .env("CARGO_TARGET_DIR", place.target.join("tools"));
    // A cold tool is not worth an optimised build of its whole tree with link-time optimisation.
    install.env("CARGO_PROFILE_RELEASE_LTO", "off");
    // Set by the `cargo run` that started this; `cargo install` is about another package.
    install.env_remove("CARGO_MANIFEST_DIR");
    process::run(&mut install).with_context(|| {
        format!("{name} {version} cannot be compiled; install it by hand: cargo install {package} --version {version}")
    })?;
    if !is_right(&own) {
        bail!(
            "{} was installed, but does not say that it is {version}",
            own.display()
        );
    }
    Ok(root.join("bin"))
}
