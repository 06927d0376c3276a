//! What is shipped: the wasm, the npm package, the page and the relay. Each is built again only when its inputs changed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    npm::{self, Packages},
    place::Place,
    process,
    stamp::{Inputs, Stamp},
    wasm,
};

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
    wasm::build(place, &packages)?;
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

/// `web/dist`, and on the way `pkg/dist`. The wasm must be there.
pub(crate) fn page(place: &Place) -> Result<PathBuf> {
    let pkg = place.root.join("pkg");
    let parts = ["npm build"];
    let inputs = Inputs::new(&parts)
        .add(&place.root.join("package-lock.json"))?
        .add(&pkg)?
        .add(&place.root.join("worker"))?;
    // `dist` is not walked, but these parts of it are inputs.
    let inputs = wasm::outputs(place)
        .iter()
        .try_fold(inputs, |inputs, file| inputs.add(file))?;
    let schema = place.root.join("crate/engine/model.schema.json");
    let hash = inputs.add(&schema)?.hex();
    let bundled = [
        pkg.join("dist/index.js"),
        pkg.join("dist/worker.js"),
        pkg.join("dist/unsaid_bg.wasm"),
        pkg.join("dist/trainer.js"),
        pkg.join("dist/trainer-worker.js"),
        pkg.join("dist/unsaid_trainer_bg.wasm"),
        pkg.join("dist/unsaid_trainer_relaxed_bg.wasm"),
        pkg.join("dist/unsaid_trainer_gpu_bg.wasm"),
        pkg.join("dist/unsaid_trainer_gpu_relaxed_bg.wasm"),
        pkg.join("dist/unsaid_accountant_bg.wasm"),
        pkg.join("dist/model.schema.json"),
        pkg.join("dist/accountant-module.js"),
        pkg.join("dist/inversion.js"),
        pkg.join("dist/inversion-worker.js"),
        pkg.join("dist/unsaid_inversion_bg.wasm"),
    ];
    npm_build(place, "pkg", &hash, &bundled)?;
    let inputs = Inputs::new(&[&hash]).add(&place.root.join("web"))?;
    let dist = place.root.join("web/dist");
    npm_build(place, "web", &inputs.hex(), &[dist.join("index.html")])?;
    Ok(dist)
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
