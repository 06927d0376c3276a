//! The wasm modules that are shipped: the client, the accountant, the attack on one's own update, and the trainer without and with relaxed
//! SIMD, and with threads, each for the CPU alone and for WebGPU too. Each is built again only when its inputs changed.
//!
//! Size is a feature, so the standard library is compiled along with them, for size, where its source can be had. Cargo calls
//! that unstable, and `RUSTC_BOOTSTRAP` lets a released compiler do it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    npm::Packages,
    place::Place,
    process,
    stamp::{Inputs, Stamp},
    tools, wasm_imports, wasm_size,
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
/// A function with one caller stays a function: the module is larger then, but smaller once compressed (measured).
const WASM_OPT_INLINING: &str = "--one-caller-inline-max-function-size=0";

const INVERSION: &str = "unsaid-inversion";
const TARGET: &str = "wasm32-unknown-unknown";

/// Compiles the standard library with the module.
const OWN_LIBRARY: [&str; 2] = [
    "-Zbuild-std=std,panic_abort",
    "-Zbuild-std-features=optimize_for_size",
];
/// No file, line and column for each place where the code could panic (8 kB of the client, gzipped), and no text for `{:?}` (2 kB),
/// which no message is made of. What a panic says is kept, and the trap that follows it has the browser's stack.
const LEAN: &str = "-Zlocation-detail=none -Zfmt-debug=none";

/// A module: a package of the workspace, compiled for one set of instructions.
struct Module {
    package: &'static str,
    /// The name of its files.
    name: &'static str,
    /// Where they go, below `pkg/dist`.
    folder: &'static str,
    instructions: Instructions,
    devices: Devices,
}

/// Where a module can compute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Devices {
    /// What its package does by default.
    All,
    /// The CPU: the package without its feature `gpu`.
    Cpu,
}

/// What a module is compiled for. Browsers refuse to load what they do not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instructions {
    /// SIMD.
    Plain,
    /// Relaxed SIMD.
    Relaxed,
    /// Relaxed SIMD, and memory that several workers share.
    Threads,
}

/// The most memory of a module with threads, which must be said in advance: 2 GiB.
const MOST_SHARED_MEMORY: u64 = 1 << 31;
/// What wasm-bindgen sets up a thread with.
const THREAD_EXPORTS: [&str; 5] = [
    "__wasm_init_tls",
    "__tls_size",
    "__tls_align",
    "__tls_base",
    "__heap_base",
];

impl Instructions {
    /// The folder of its builds, and what the compiler is told.
    fn flags(self) -> (&'static str, String) {
        let plain = "-Ctarget-feature=+simd128";
        match self {
            Self::Plain => ("plain", plain.to_owned()),
            Self::Relaxed => ("relaxed", format!("{plain},+relaxed-simd")),
            Self::Threads => {
                let mut flags = format!(
                    "{plain},+relaxed-simd,+atomics,+bulk-memory -Clink-arg=--shared-memory -Clink-arg=--import-memory \
                     -Clink-arg=--max-memory={MOST_SHARED_MEMORY}"
                );
                for name in THREAD_EXPORTS {
                    flags.push_str(" -Clink-arg=--export=");
                    flags.push_str(name);
                }
                ("threads", flags)
            }
        }
    }

    /// What `wasm-opt` must know of, besides [`WASM_FEATURES`].
    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Relaxed => &["--enable-relaxed-simd"],
            Self::Threads => &["--enable-relaxed-simd", "--enable-threads"],
        }
    }
}

const fn trainer(folder: &'static str, instructions: Instructions, devices: Devices) -> Module {
    Module {
        package: "unsaid-trainer",
        name: "unsaid_trainer",
        folder,
        instructions,
        devices,
    }
}

const MODULES: [Module; 9] = [
    Module {
        package: "unsaid",
        name: "unsaid",
        folder: "wasm",
        instructions: Instructions::Plain,
        devices: Devices::All,
    },
    trainer("trainer/plain", Instructions::Plain, Devices::Cpu),
    trainer("trainer/relaxed", Instructions::Relaxed, Devices::Cpu),
    trainer("trainer/threads", Instructions::Threads, Devices::Cpu),
    trainer("trainer/gpu-plain", Instructions::Plain, Devices::All),
    trainer("trainer/gpu-relaxed", Instructions::Relaxed, Devices::All),
    trainer("trainer/gpu-threads", Instructions::Threads, Devices::All),
    Module {
        package: "unsaid-accountant",
        name: "unsaid_accountant",
        folder: "accountant",
        instructions: Instructions::Plain,
        devices: Devices::All,
    },
    Module {
        package: INVERSION,
        name: "unsaid_inversion",
        folder: "inversion",
        instructions: Instructions::Plain,
        devices: Devices::All,
    },
];

impl Module {
    fn folder(&self, place: &Place) -> PathBuf {
        place.root.join("pkg/dist").join(self.folder)
    }

    /// The glue, its types and the wasm.
    fn outputs(&self, place: &Place) -> [PathBuf; 3] {
        let file = |end: &str| self.folder(place).join(format!("{}{end}", self.name));
        [file(".js"), file(".d.ts"), file("_bg.wasm")]
    }

    fn compile(&self, place: &Place, toolchain: &WasmToolchain) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "build",
            "--quiet",
            "-p",
            self.package,
            "--lib",
            "--target",
            TARGET,
        ]);
        toolchain.set(place, cargo.args(["--profile", "wasm-release"]));
        // The environment replaces what .cargo/config.toml says. A folder for each set of flags and features keeps all builds warm,
        // and apart: a module's file has the same name with any features. So the attack, which has the client in it as a library without
        // features, is not beside the client, or each would be built again after the other.
        let (name, mut flags) = self.instructions.flags();
        let mut name = name.to_owned();
        if self.devices == Devices::Cpu {
            cargo.arg("--no-default-features");
        }
        if self.devices == Devices::Cpu || self.package == INVERSION {
            name.push_str("-cpu");
        }
        if toolchain.has_library_source() {
            flags = format!("{flags} {LEAN}");
            cargo.args(OWN_LIBRARY).env("RUSTC_BOOTSTRAP", "1");
        }
        let folder = place.wasm_target().join(name);
        cargo.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", &folder);
        process::run(&mut cargo)?;
        let raw = folder
            .join(TARGET)
            .join("wasm-release")
            .join(format!("{}.wasm", self.name));
        if !raw.is_file() {
            bail!("the build left no {}", raw.display());
        }
        Ok(raw)
    }

    fn build(&self, place: &Place, packages: &Packages, toolchain: &WasmToolchain) -> Result<()> {
        println!("==> {}: building", self.folder);
        let raw = self.compile(place, toolchain)?;
        let optimiser =
            fs::read_to_string(packages.folder("binaryen").join("package.json")).unwrap_or_default();
        let features = [&WASM_FEATURES, self.instructions.features()].concat().concat();
        let pinned = place.pinned("wasm-bindgen")?;
        let parts = [
            self.folder,
            &pinned,
            &optimiser,
            WASM_OPT_LEVEL,
            WASM_OPT_INLINING,
            &features,
            "short imports",
        ];
        let stamp_name = self.folder.replace('/', "-");
        let stamp = Stamp::new(place, &stamp_name, Inputs::new(&parts).add(&raw)?.hex());
        let outputs = self.outputs(place);
        let [glue, types, shipped] = &outputs;
        if stamp.holds(&[glue, types, shipped]) {
            return Ok(());
        }
        stamp.forget();
        let mut bindgen = Command::new(tools::wasm_bindgen(place)?.join("wasm-bindgen"));
        bindgen.args(["--target", "web", "--out-name", self.name, "--out-dir"]);
        process::run(bindgen.arg(self.folder(place)).arg(&raw))?;
        println!("==> wasm-opt {WASM_OPT_LEVEL}");
        let optimised = shipped.with_extension("wasm.new");
        let mut opt = Command::new("node");
        opt.arg(packages.program("wasm-opt")?)
            .args([WASM_OPT_LEVEL, WASM_OPT_INLINING])
            .args(["--converge", "--strip-debug", "--strip-producers"])
            .args(WASM_FEATURES)
            .args(self.instructions.features());
        process::run(opt.arg(shipped).arg("-o").arg(&optimised))?;
        fs::rename(&optimised, shipped).context("the optimised wasm cannot be moved into place")?;
        wasm_imports::shorten(glue, shipped)?;
        stamp.set()
    }
}

/// Builds every module into `pkg/dist`.
pub(crate) fn build(place: &Place, packages: &Packages) -> Result<()> {
    let toolchain = wasm_target::find_or_install(place)?.with_library_source(place);
    for module in &MODULES {
        // The library that comes with the compiler was not compiled for shared memory.
        if module.instructions == Instructions::Threads && !toolchain.has_library_source() {
            println!(
                "==> {}: left out, since it needs the standard library's source",
                module.folder
            );
            let _ = fs::remove_dir_all(module.folder(place));
            continue;
        }
        module.build(place, packages, &toolchain)?;
    }
    same_glue(place)
}

/// Every file that [`build`] makes.
pub(crate) fn outputs(place: &Place) -> Vec<PathBuf> {
    let built =
        |module: &&Module| module.instructions != Instructions::Threads || module.folder(place).is_dir();
    MODULES
        .iter()
        .filter(built)
        .flat_map(|module| module.outputs(place))
        .collect()
}

/// The builds of the trainer with and without relaxed SIMD are loaded by one file of JavaScript, so theirs must be the same.
fn same_glue(place: &Place) -> Result<()> {
    let read = |folder: &str| {
        let glue = place
            .root
            .join("pkg/dist/trainer")
            .join(folder)
            .join("unsaid_trainer.js");
        fs::read(&glue).with_context(|| format!("{} cannot be read", glue.display()))
    };
    for [plain, relaxed] in [["plain", "relaxed"], ["gpu-plain", "gpu-relaxed"]] {
        if read(plain)? != read(relaxed)? {
            bail!("the trainer's JavaScript differs between {plain} and {relaxed}");
        }
    }
    Ok(())
}

/// Prints the sizes of what is shipped; an error where one is above its budget.
pub(crate) fn check_size(place: &Place) -> Result<()> {
    wasm_size::check(place, Path::new("pkg/dist"))
}
