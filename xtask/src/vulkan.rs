//! A Vulkan driver for the native tests of the GPU kernels: a real one, or Mesa's, which emulates one on the CPU.

use std::{env, fs, path::Path};

use anyhow::Result;

use crate::apt;

/// Folders in which drivers are registered (Vulkan loader, "Linux driver discovery").
const REGISTRIES: [&str; 3] = [
    "/etc/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/usr/share/vulkan/icd.d",
];

/// Whether there is a driver; installs Mesa's where that needs no asking.
pub(crate) fn find_or_install() -> Result<bool> {
    if registered() {
        return Ok(true);
    }
    if apt::usable() {
        println!("==> a Vulkan driver for the tests of the GPU kernels: installing");
        apt::install(&["mesa-vulkan-drivers", "libvulkan1"])?;
    }
    Ok(registered())
}

fn registered() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
    // A driver that is registered without its hardware, as in containers, finds no adapter; Mesa's needs none.
    let has_hardware = Path::new("/dev/dri").exists() || Path::new("/dev/nvidiactl").exists();
    let usable = |name: &str| has_hardware || name.starts_with("lvp_icd");
    let has_usable = |folder: &str| {
        fs::read_dir(folder).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_str().is_some_and(usable))
        })
    };
    named.iter().any(|name| env::var_os(name).is_some()) || REGISTRIES.iter().any(|folder| has_usable(folder))
}
