//! What is shipped: the wasm, the npm package, the page and the relay. Each is built again only when its inputs changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    npm::{self, Packages},
    place::Place,
    process,
    stamp::{Inputs, Stamp},
    tools, wasm_size,
    wasm_target::{self, WasmToolchain},
};

/// What wasm the browsers that we support can run. `wasm-opt` refuses what is not named here.
const WASM_FEATURES: [&str; 7] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];
/// For size: what needs speed was optimised by the compiler, and is left as it is by either level.
const WASM_OPT_LEVEL: &str = "-Oz";

/// Everything built.
pub(crate) struct Built {
    pub(crate) packages: Packages,
    pub(crate) relay: PathBuf,
    pub(crate) page: PathBuf,
}

/// Builds everything.
pub(crate) fn all(place: &Place) -> Result<Built> {
    let packages = npm::packages(place)?;
    let relay = relay(place)?;
    wasm(place, &packages)?;
    let page = page(place)?;
    Ok(Built {
        packages,
        relay,
        page,
    })
}

/// The relay's program.
pub(crate) fn relay(place: &Place) -> Result<PathBuf> {
    println!("==> relay: building");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "-p", "unsaid-relay"]);
    process::run(cargo.current_dir(&place.root))?;
    let program = place.target.join("release/unsaid-relay");
    if !program.is_file() {
        bail!("the build left no {}", program.display());
    }
    Ok(program)
}

/// `pkg/dist/wasm`: the wasm and its JavaScript.
pub(crate) fn wasm(place: &Place, packages: &Packages) -> Result<()> {
    let toolchain = wasm_target::find_or_install(place)?;
    let bindgen = tools::wasm_bindgen(place)?.join("wasm-bindgen");
    let wasm_opt = packages.program("wasm-opt")?;
    println!("==> wasm: building");
    let raw = compile(place, &toolchain)?;
    let out = place.root.join("pkg/dist/wasm");
    let shipped = out.join("unsaid_bg.wasm");
    let optimiser = fs::read_to_string(packages.folder("binaryen").join("package.json")).unwrap_or_default();
    let features = WASM_FEATURES.concat();
    let parts = [
        "wasm",
        &place.pinned("wasm-bindgen")?,
        &optimiser,
        WASM_OPT_LEVEL,
        &features,
    ];
    let stamp = Stamp::new(place, "wasm", Inputs::new(&parts).add(&raw)?.hex());
    if !stamp.holds(&[&shipped, &out.join("unsaid.js"), &out.join("unsaid.d.ts")]) {
        stamp.forget();
        let mut glue = Command::new(bindgen);
        glue.args(["--target", "web", "--out-name", "unsaid", "--out-dir"]);
        process::run(glue.arg(&out).arg(&raw))?;
        println!("==> wasm-opt {WASM_OPT_LEVEL}");
        let optimised = out.join("unsaid_bg.wasm.new");
        let mut opt = Command::new("node");
        opt.arg(wasm_opt)
            .args([WASM_OPT_LEVEL, "--converge", "--strip-debug", "--strip-producers"])
            .args(WASM_FEATURES);
        process::run(opt.arg(&shipped).arg("-o").arg(&optimised))?;
        fs::rename(&optimised, &shipped).context("the optimised wasm cannot be moved into place")?;
        stamp.set()?;
    }
    Ok(())
}

/// Prints the size of the shipped wasm; an error where it is above its budget.
pub(crate) fn check_wasm_size(place: &Place) -> Result<()> {
    wasm_size::check(place, &place.root.join("pkg/dist/wasm"))
}

fn compile(place: &Place, toolchain: &WasmToolchain) -> Result<PathBuf> {
    let target = "wasm32-unknown-unknown";
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "-p", "unsaid", "--lib", "--target", target]);
    process::run(toolchain.set(place, cargo.args(["--profile", "wasm-release"])))?;
    let raw = place.wasm_target().join(target).join("wasm-release/unsaid.wasm");
    if !raw.is_file() {
        bail!("the build left no {}", raw.display());
    }
    Ok(raw)
}

/// `web/dist`, and on the way `pkg/dist`. The wasm must be there.
pub(crate) fn page(place: &Place) -> Result<PathBuf> {
    let pkg = place.root.join("pkg");
    let parts = ["npm build"];
    let inputs = Inputs::new(&parts)
        .add(&place.root.join("package-lock.json"))?
        .add(&pkg)?
        .add(&place.root.join("worker"))?;
    // `dist` is not walked, but this part of it is an input.
    let inputs = add_files(inputs, &pkg.join("dist/wasm"))?;
    let hash = inputs.hex();
    let bundled = [
        pkg.join("dist/index.js"),
        pkg.join("dist/worker.js"),
        pkg.join("dist/unsaid_bg.wasm"),
    ];
    npm_build(place, "pkg", &hash, &bundled)?;
    let inputs = Inputs::new(&[&hash]).add(&place.root.join("web"))?;
    let dist = place.root.join("web/dist");
    npm_build(place, "web", &inputs.hex(), &[dist.join("index.html")])?;
    Ok(dist)
}

fn add_files(mut inputs: Inputs, folder: &Path) -> Result<Inputs> {
    for name in ["unsaid.js", "unsaid.d.ts", "unsaid_bg.wasm"] {
        inputs = inputs.add(&folder.join(name))?;
    }
    Ok(inputs)
}

fn npm_build(place: &Place, workspace: &str, inputs: &str, outputs: &[PathBuf]) -> Result<()> {
    let stamp = Stamp::new(place, workspace, inputs.to_owned());
    let outputs: Vec<&Path> = outputs.iter().map(PathBuf::as_path).collect();
    if stamp.holds(&outputs) {
        println!("==> {workspace}: unchanged");
        return Ok(());
    }
    println!("==> {workspace}: building");
    stamp.forget();
    process::run(npm::npm(place).args(["run", "--silent", "build", "-w", workspace]))?;
    if let Some(missing) = outputs.iter().find(|output| !output.exists()) {
        bail!("the build of {workspace} left no {}", missing.display());
    }
    stamp.set()
}
