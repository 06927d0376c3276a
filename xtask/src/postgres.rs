//! PostgreSQL's programs, for the tests that start a server of their own.

use std::{env, fs, path::Path};

use anyhow::Result;

use crate::apt::{self, on_path};

/// Whether they are here; installs them where that needs no asking. The tests look in the same places.
pub(crate) fn find_or_install() -> Result<bool> {
    if found() {
        return Ok(true);
    }
    if apt::usable() {
        println!("==> PostgreSQL for the tests of several relays: installing");
        apt::install(&["postgresql"])?;
    }
    Ok(found())
}

fn found() -> bool {
    let has_them = |folder: &Path| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let named = env::var_os("UNSAID_POSTGRES").is_some_and(|folder| has_them(Path::new(&folder)));
    let on_path = on_path("initdb").is_some() && on_path("postgres").is_some();
    let debian = fs::read_dir("/usr/lib/postgresql").is_ok_and(|versions| {
        versions
            .flatten()
            .any(|version| has_them(&version.path().join("bin")))
    });
    named || on_path || debian
}
