//! Chromium and ChromeDriver.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    apt::{self, on_path},
    process,
};

/// A browser for the tests and the headless demo.
pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) chromedriver: PathBuf,
}

/// Finds Chromium and its driver, or installs them.
pub(crate) fn find_or_install() -> Result<Browser> {
    if let Some(browser) = find()? {
        println!("==> Chromium: found {}", version(&browser.chromium));
        return Ok(browser);
    }
    if apt::usable() {
        println!("==> Chromium and ChromeDriver: installing");
        // Ubuntu names its packages otherwise: then the words below say what to do.
        if let Err(error) = apt::install(&["chromium", "chromium-driver"]) {
            println!("==> {error:#}");
        }
        if let Some(browser) = find()? {
            return Ok(browser);
        }
    }
    bail!(
        "Chromium and ChromeDriver of the same version are needed and were not found. Install them (Debian: \
         `apt-get install chromium chromium-driver`; elsewhere: Chrome and https://googlechromelabs.github.io/chrome-for-testing/), \
         or name them with UNSAID_CHROMIUM and UNSAID_CHROMEDRIVER"
    )
}

fn find() -> Result<Option<Browser>> {
    let chromium = named(
        "UNSAID_CHROMIUM",
        &["chromium", "chromium-browser", "google-chrome"],
    )?;
    let chromedriver = named("UNSAID_CHROMEDRIVER", &["chromedriver"])?;
    Ok(chromium
        .zip(chromedriver)
        .map(|(chromium, chromedriver)| Browser {
            chromium,
            chromedriver,
        }))
}

fn named(variable: &str, names: &[&str]) -> Result<Option<PathBuf>> {
    match env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(value) => {
            let path = PathBuf::from(value);
            if !path.is_file() {
                bail!("{variable} names {}, which is not a file", path.display());
            }
            Ok(Some(path))
        }
        None => Ok(names.iter().find_map(|name| on_path(name))),
    }
}

fn version(program: &PathBuf) -> String {
    let printed = process::capture(Command::new(program).arg("--version"));
    printed.map_or_else(|_| program.display().to_string(), |text| text.trim().to_owned())
}
