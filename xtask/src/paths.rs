// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The paths that xtask uses.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_else(|| PathBuf::from("."))
}

/// Cargo's target directory, which also contains all other build results.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The project's part of the user's cache directory (`XDG_CACHE_HOME`, else `~/.cache`).
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = env::var_os("HOME").context(
                "no cache directory: neither XDG_CACHE_HOME nor HOME is set; set one of them",
            )?;
            Path::new(&home).join(".cache")
        }
    };
    Ok(base.join("vhost-famfs"))
}

/// A directory for files that exist only during a run: `XDG_RUNTIME_DIR`, else the temporary
/// directory.
pub fn runtime() -> PathBuf {
    env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| Path::new(dir).is_dir())
        .map_or_else(env::temp_dir, PathBuf::from)
}

/// A directory of the build whose former contents are removed.
pub fn new_directory(name: &str) -> Result<PathBuf> {
    let dir = target().join(name);
    match fs::remove_dir_all(&dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(dir),
    }
}
