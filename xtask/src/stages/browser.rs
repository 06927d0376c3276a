//! The wasm tests, in headless Chromium's workers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    Group,
    runner::{Runner, Verdict, tests},
};
use crate::{browser, place::Place, runner_output::Counts, tools, wasm_target};

/// wasm-bindgen's runner gives up after 20 s by default; the tests train.
const TIMEOUT_SECONDS: &str = "900";

pub(super) fn stages(runner: &mut Runner) {
    runner.stage(Group::Browser, "wasm tests in Chromium", |place| {
        let toolchain = wasm_target::find_or_install(place)?;
        let bindgen = tools::wasm_bindgen(place)?;
        let wasm_pack = tools::wasm_pack(place)?.join("wasm-pack");
        let browser = browser::find_or_install()?;
        let capabilities = capabilities(place, &browser.chromium)?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([bindgen].into_iter().chain(env::split_paths(&path)))?;
        let mut all = Counts::default();
        for (package, test) in browser_tests(place)? {
            let mut command = Command::new(&wasm_pack);
            command.args(["test", "--headless", "--chrome", "--chromedriver"]);
            command.arg(&browser.chromedriver).arg(place.root.join(package));
            command.args(["--locked", "--test", &test]);
            toolchain.set(place, &mut command);
            command.env("PATH", &path);
            command.env("WASM_BINDGEN_TEST_WEBDRIVER_JSON", &capabilities);
            command.env("WASM_BINDGEN_TEST_TIMEOUT", TIMEOUT_SECONDS);
            match tests(command)? {
                Verdict::Passed(Some(found)) => all += found,
                other => return Ok(other),
            }
        }
        Ok(Verdict::Passed(Some(all)))
    });
}

/// The package and name of each integration test that runs in a browser.
fn browser_tests(place: &Place) -> Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for package in ["tests", "crate"] {
        let Ok(entries) = fs::read_dir(place.root.join(package).join("tests")) else {
            continue;
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
            let text =
                fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            if text.contains("wasm_bindgen_test") {
                found.push((
                    package,
                    path.file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                ));
            }
        }
    }
    found.sort();
    if found.is_empty() {
        bail!("no browser test was found below tests/tests and crate/tests");
    }
    Ok(found)
}

/// How ChromeDriver is to start Chromium: with WebGPU, and silent otherwise. It makes a profile of its own each time.
fn capabilities(place: &Place, chromium: &Path) -> Result<PathBuf> {
    let args = [
        "--headless",
        "--no-sandbox",
        "--enable-unsafe-webgpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ];
    let json = serde_json::json!({ "goog:chromeOptions": { "binary": chromium, "args": args } });
    let path = place.cache().join("webdriver.json");
    fs::create_dir_all(place.cache()).context("the cache folder cannot be made")?;
    fs::write(&path, json.to_string()).context("the browser's capabilities cannot be written")?;
    Ok(path)
}
