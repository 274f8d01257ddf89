// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask clean`: removes build results, and with `--cache` also downloads.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use vm_tests::interrupt;

use crate::args::CleanArgs;
use crate::build::GUEST_TARGET;
use crate::paths;

/// What xtask creates under target/.
const BUILT: &[&str] = &[
    "bench",
    "completions",
    GUEST_TARGET,
    "image",
    "image-again",
    "image-debug",
    "image-debug-kernel",
    "image-lts",
    "image-with",
    "kmod",
    "kmod-check",
    "kmod-debug",
    "kmod-lts",
    "kmod-tests",
    "log",
    "man",
    "mkosi",
    "package",
    "release",
    "vm",
];

/// Removes target/, except xtask itself, which cargo is running, and the cache if requested.
pub fn run(args: &CleanArgs) -> Result<()> {
    for name in BUILT {
        remove(&paths::target().join(name))?;
    }
    if args.cache {
        remove(&paths::cache()?)?;
    }
    Ok(())
}

/// Removes a directory tree and prints that; it is not an error if it does not exist.
fn remove(dir: &Path) -> Result<()> {
    interrupt::check()?;
    match fs::remove_dir_all(dir) {
        Ok(()) => eprintln!("removed {}", dir.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
        }
    }
    Ok(())
}
