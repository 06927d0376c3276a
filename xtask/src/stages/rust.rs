//! Formatting, lints, documentation and native tests of the Rust code.

use std::process::Command;

use super::{
    Group,
    runner::{Runner, Verdict, cargo, check, tests},
    shaders,
};
use crate::{apt::on_path, licences, postgres, sotu, vulkan, wasm_target};

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
        command.args([
            "clippy",
            "--quiet",
            "-p",
            "unsaid",
            "-p",
            "unsaid-trainer",
            "-p",
            "unsaid-webgpu",
            "-p",
            "unsaid-accountant",
            "-p",
            "unsaid-inversion",
            "--lib",
            "--locked",
        ]);
        command.args(["--target", "wasm32-unknown-unknown", "--", "-Dwarnings"]);
        toolchain.set(place, &mut command);
        check(command)
    });
    runner.stage(Group::Lint, "vectors", |place| {
        if on_path("python3").is_none() {
            let reason = "python3 not found: whether the vectors are what make.py writes was not looked at";
            return Ok(Verdict::Skipped(reason.into()));
        }
        let mut command = Command::new("python3");
        command.current_dir(&place.root);
        command.args(["tests/vectors/make.py", "--check"]);
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
    let mut has_gpu = false;
    runner.stage(Group::Native, "Vulkan driver", |_| {
        has_gpu = vulkan::find_or_install()?;
        if has_gpu {
            return Ok(Verdict::Passed(None));
        }
        let reason =
            "none found (Debian: mesa-vulkan-drivers): the native tests of the GPU kernels do nothing";
        Ok(Verdict::missing(reason))
    });
    let mut has_postgres = false;
    runner.stage(Group::Native, "PostgreSQL", |_| {
        has_postgres = postgres::find_or_install()?;
        if has_postgres {
            return Ok(Verdict::Passed(None));
        }
        let reason = "not found (Debian: postgresql): the tests of several relays do nothing";
        Ok(Verdict::missing(reason))
    });
    runner.stage(Group::Native, "Rust tests", |place| {
        let words: &[&str] = if on_path("cargo-nextest").is_some() {
            &["nextest", "run", "--failure-output=immediate-final"]
        } else {
            &["test", "--lib", "--bins", "--tests"]
        };
        let mut command = cargo(place, words);
        command.args(["--workspace", "--locked", "--no-fail-fast"]);
        if has_gpu {
            // With a driver there, a test that finds no adapter fails instead of doing nothing.
            command.env("UNSAID_REQUIRE_GPU", "1");
        }
        if has_postgres {
            command.env("UNSAID_REQUIRE_POSTGRES", "1");
        }
        tests(command)
    });
    runner.stage(Group::Native, "doc tests", |place| {
        tests(cargo(
            place,
            &["test", "--workspace", "--doc", "--locked", "--no-fail-fast"],
        ))
    });
    runner.stage(Group::Native, "language model", |place| {
        let speeches = sotu::speeches(place)?;
        let words = ["test", "--workspace", "--test", "language", "--locked"];
        let mut command = cargo(place, &words);
        command
            .args(["--", "--ignored", "--nocapture"])
            .env("UNSAID_SPEECHES", speeches);
        tests(command)
    });
    runner.stage(Group::Native, ".wgsl", shaders::validate);
}
