//! npm packages: those of the workspaces, and the tools among them.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    apt::on_path,
    place::Place,
    process,
    stamp::{Inputs, Stamp},
};

/// The packages are installed.
pub(crate) struct Packages {
    modules: PathBuf,
}

impl Packages {
    /// A program that a package brings.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.modules.join(".bin").join(name);
        if !path.exists() {
            bail!("{} is missing; run `npm ci`", path.display());
        }
        Ok(path)
    }

    /// A package's folder.
    pub(crate) fn folder(&self, package: &str) -> PathBuf {
        self.modules.join(package)
    }
}

/// `npm ci` at the root, unless the lock file is the one that was installed last.
pub(crate) fn packages(place: &Place) -> Result<Packages> {
    if on_path("npm").is_none() {
        bail!(
            "npm was not found: install Node.js 20 or later (https://nodejs.org, or your system's packages)"
        );
    }
    let version = process::capture(Command::new("node").arg("--version"))
        .context("Node.js 20 or later is needed: https://nodejs.org, or your system's packages")?;
    let version = version.trim();
    let major = version.trim_start_matches('v').split('.').next();
    if major.and_then(|major| major.parse().ok()).unwrap_or(0) < 20 {
        bail!("Node.js {version} was found, but 20 or later is needed");
    }
    let modules = place.root.join("node_modules");
    let inputs = Inputs::new(&["npm ci", version]);
    let inputs = inputs.add(&place.root.join("package-lock.json"))?;
    let stamp = Stamp::new(place, "npm", inputs.hex());
    // npm writes the hidden lock file last of all.
    if stamp.holds(&[&modules.join(".package-lock.json")]) {
        println!("==> npm packages: found");
    } else {
        println!("==> npm packages: installing");
        stamp.forget();
        let mut install = npm(place);
        install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
        process::run(&mut install)?;
        stamp.set()?;
    }
    Ok(Packages { modules })
}

/// npm at the root of the repository.
pub(crate) fn npm(place: &Place) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(&place.root).env("NO_UPDATE_NOTIFIER", "1");
    command
}
