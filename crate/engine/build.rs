//! Takes the comments and the spaces out of the shaders: they are for readers, and would be downloaded by every browser.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    println!("cargo::rerun-if-changed=src");
    strip_folder(&root.join("src"), &out)
}

fn strip_folder(folder: &Path, out: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            strip_folder(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            let name = path
                .file_name()
                .ok_or_else(|| io::Error::other("a file without a name"))?;
            fs::write(out.join(name), strip(&fs::read_to_string(&path)?))?;
        }
    }
    Ok(())
}

/// WGSL has no string literals, so `//` always begins a comment. Lines stay lines, so a compiler's error still names the right one.
fn strip(source: &str) -> String {
    source
        .lines()
        .map(|line| squeeze(line.split("//").next().unwrap_or("").trim()) + "\n")
        .collect()
}

/// Leaves spaces out beside what cannot become part of another token.
fn squeeze(line: &str) -> String {
    let is_alone = |c: char| "{}();,:+*/|&".contains(c);
    let mut out = String::new();
    for c in line.chars() {
        if is_alone(c) && out.ends_with(' ') {
            out.pop();
        }
        if c != ' ' || !out.ends_with(is_alone) {
            out.push(c);
        }
    }
    out
}
