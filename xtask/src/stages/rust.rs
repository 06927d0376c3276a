//! Formatting, lints, documentation and native tests of the Rust code.

use std::process::Command;

use super::{
    Group,
    runner::{Runner, Verdict, cargo, check, tests},
    shaders,
};
use crate::{apt::on_path, licences, wasm_target};

pub(super) fn lint(runner: &mut Runner) {
    runner.stage(Group::Lint, "fmt", |place| {
        check(cargo(place, &["fmt", "--all", "--check"]))
    });
    runner.stage(Group::Lint, "clippy", |place| {
        let words = [
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-Dwarnings",
        ];
        check(cargo(place, &words))
    });
    runner.stage(Group::Lint, "clippy for wasm", |place| {
        let toolchain = wasm_target::find_or_install(place)?;
        if !toolchain.has_clippy(place) {
            return Ok(Verdict::Skipped(
                "the toolchain with the wasm target has no clippy".into(),
            ));
        }
        let mut command = Command::new("cargo");
        command.args(["clippy", "--quiet", "-p", "unsaid", "--lib", "--locked"]);
        command.args(["--target", "wasm32-unknown-unknown", "--", "-Dwarnings"]);
        toolchain.set(place, &mut command);
        check(command)
    });
    runner.stage(Group::Lint, "licences", |place| {
        licences::check(place).map(|()| Verdict::Passed(None))
    });
    runner.stage(Group::Lint, "cargo deny", |place| {
        if on_path("cargo-deny").is_none() {
            let reason = "cargo-deny not found: licences were checked, advisories were not";
            return Ok(Verdict::Skipped(reason.into()));
        }
        check(cargo(place, &["deny", "--all-features", "check"]))
    });
}

pub(super) fn docs(runner: &mut Runner) {
    runner.stage(Group::Docs, "rustdoc", |place| {
        let mut command = cargo(place, &["doc", "--quiet", "--workspace", "--no-deps", "--locked"]);
        command.env("RUSTDOCFLAGS", "-Dwarnings");
        check(command)
    });
}

pub(super) fn native(runner: &mut Runner) {
    runner.stage(Group::Native, "Rust tests", |place| {
        if on_path("cargo-nextest").is_some() {
            tests(cargo(
                place,
                &[
                    "nextest",
                    "run",
                    "--workspace",
                    "--locked",
                    "--failure-output=immediate-final",
                    "--no-fail-fast",
                ],
            ))
        } else {
            let words = [
                "test",
                "--workspace",
                "--lib",
                "--bins",
                "--tests",
                "--locked",
                "--no-fail-fast",
            ];
            tests(cargo(place, &words))
        }
    });
    runner.stage(Group::Native, "doc tests", |place| {
        tests(cargo(
            place,
            &["test", "--workspace", "--doc", "--locked", "--no-fail-fast"],
        ))
    });
    runner.stage(Group::Native, ".wgsl", shaders::validate);
}
