//! What needs the built package: its own tests, and the end-to-end tests.

use std::{env, process::Command};

use anyhow::Context as _;

use super::{
    Group,
    runner::{Runner, Verdict, check, npm, tests},
};
use crate::{
    artifacts::{self, Built},
    browser, mnist, wasm,
};

/// Builds what the stages of this file need, where any of them is wanted.
pub(super) fn build(runner: &mut Runner) -> Option<Built> {
    let group = group(runner)?;
    let mut built = None;
    runner.stage(group, "build", |place| {
        built = Some(artifacts::all(place)?);
        Ok(Verdict::Passed(None))
    });
    built
}

/// The group that the build belongs to; none where nothing here is wanted.
fn group(runner: &Runner) -> Option<Group> {
    [Group::Ts, Group::E2e]
        .into_iter()
        .find(|&group| runner.wants(group))
}

pub(super) fn stages(runner: &mut Runner, built: &Built) {
    let Some(group) = group(runner) else {
        return;
    };
    runner.stage(group, "wasm size", |place| {
        wasm::check_size(place).map(|()| Verdict::Passed(None))
    });
    runner.stage(Group::Ts, "TypeScript", |place| {
        check(npm(place, &["run", "check", "--workspaces", "--if-present"]))
    });
    runner.stage(Group::Ts, "npm tests", |place| {
        tests(npm(place, &["test", "-w", "pkg", "-w", "web"]))
    });
    runner.stage(Group::Ts, "API report", |place| {
        check(npm(place, &["run", "api:check", "-w", "pkg"]))
    });
    runner.stage(Group::E2e, "end to end", |place| {
        let data = mnist::shards(place, &built.packages, &built.relay)?;
        let mut command = Command::new("node");
        command.current_dir(&place.root).arg("tests/e2e/run.mjs");
        command.env("UNSAID_RELAY", &built.relay);
        command.env("UNSAID_DATA", data).env("UNSAID_PAGE", &built.page);
        command.env("UNSAID_CHROMIUM", browser::find_or_install()?.chromium);
        // For the test of the demo command.
        let this = env::current_exe().context("this program does not know where it is")?;
        command.env("UNSAID_XTASK", this);
        tests(command)
    });
}
