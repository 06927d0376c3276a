//! Debian and Ubuntu packages, where this program may install them.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::process;

/// Whether packages can be installed here without asking anyone: root, on Debian or a relative of it.
pub(crate) fn usable() -> bool {
    nix::unistd::geteuid().is_root()
        && fs::metadata("/etc/debian_version").is_ok()
        && on_path("apt-get").is_some()
}

/// Installs `packages`; the package lists are fetched first only where they turn out to be missing or stale.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    println!("==> apt-get install {}", packages.join(" "));
    let install = || {
        let mut command = apt();
        command.args(["install", "-y", "--no-install-recommends"]);
        process::run(command.args(packages))
    };
    install().or_else(|_| {
        println!("==> apt-get update, then once more");
        process::run(apt().arg("update"))?;
        install().with_context(|| format!("the packages {} cannot be installed", packages.join(", ")))
    })
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    command
}

/// The first executable of that name on PATH.
pub(crate) fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
