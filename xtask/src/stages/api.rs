//! The relay against its own description of its API, by schemathesis.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, process::Command, thread::Scope};

use anyhow::{Context, Result};

use super::{
    Group,
    runner::{Beside, Runner, Verdict, cargo, check_quietly},
};
use crate::{
    apt::{self, on_path},
    demo,
    place::Place,
    process::{self, succeeds_within},
};

/// How long Python may take to say that it makes environments.
const PYTHON_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Begins it. Much of it is one Python program that waits for one relay, so it runs while other things are built.
pub(super) fn begin<'s, 'a>(runner: &Runner<'a>, scope: &'s Scope<'s, 'a>) -> Option<Beside<'s>> {
    runner.begin(scope, Group::Api, "API", |place, output| {
        let Some(schemathesis) = schemathesis(place)? else {
            return Ok(Verdict::missing(
                "no python3 with venv and pip was found (Debian: python3-venv)",
            ));
        };
        process::run(&mut cargo(
            place,
            &["build", "--quiet", "-p", "unsaid-relay", "--locked"],
        ))?;
        let folder = place.cache().join("api");
        if folder.exists() {
            fs::remove_dir_all(&folder).context("the relay's folder cannot be emptied")?;
        }
        fs::create_dir_all(&folder).context("the relay has no folder")?;
        let token = "a token of the tests";
        let mut file = fs::File::options();
        let file = file.write(true).create_new(true).mode(0o600);
        let file = file.open(folder.join("token"));
        file.and_then(|mut file| file.write_all(token.as_bytes()))
            .context("the token cannot be written")?;
        let program = place.target.join("debug/unsaid-relay");
        let key = folder.join("relay.key");
        process::run(Command::new(&program).args(["key", "new"]).arg(&key))?;
        let mut relay = Command::new(&program);
        relay
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--rate-limit",
                "0",
                "--uploads-per-address",
                "0",
                "--task",
            ])
            .arg(place.root.join("server/tests/tiny.toml"))
            .arg("--tasks")
            .arg(folder.join("tasks"))
            .arg("--store")
            .arg(folder.join("relay.redb"))
            .arg("--admin-token-file")
            .arg(folder.join("token"))
            .arg("--key")
            .arg(&key)
            .stderr(fs::File::create(folder.join("relay.log")).context("the relay's log cannot be made")?);
        let (_relay, origin) = demo::start_relay(&mut relay, 0)?;
        let mut run = Command::new(schemathesis);
        run.current_dir(&folder)
            .arg("--config-file")
            .arg(place.root.join("tests/api/schemathesis.toml"))
            .arg("run")
            .arg(format!("{origin}/v1/openapi.json"))
            .env("UNSAID_TOKEN", token)
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", place.root.join("tests/api"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_COLOR", "1");
        check_quietly(run, output)
    })
}

/// The program, in an environment of its own that is made once per machine; none where Python cannot make one.
fn schemathesis(place: &Place) -> Result<Option<PathBuf>> {
    let list = place.root.join("tests/api/requirements.txt");
    let wanted = fs::read_to_string(&list).context("tests/api/requirements.txt cannot be read")?;
    let folder = place.tools().join(wanted.trim().replace("==", "-"));
    let program = folder.join("bin/st");
    if program.is_file() {
        return Ok(Some(program));
    }
    let makes_environments = || {
        let mut python = Command::new("python3");
        let modules = python.args(["-c", "import venv, ensurepip"]);
        on_path("python3").is_some() && succeeds_within(modules, PYTHON_LIMIT)
    };
    if !makes_environments() && apt::usable() {
        println!("==> Python's environments: installing");
        apt::install(&["python3-venv"])?;
    }
    if !makes_environments() {
        return Ok(None);
    }
    println!("==> {}: installing, once for this machine", wanted.trim());
    process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    process::run(
        pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&list),
    )?;
    Ok(Some(program))
}
