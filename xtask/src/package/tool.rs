// SPDX-License-Identifier: Apache-2.0 OR MIT
//! cargo-deb, which writes the packages: built once, and kept in the cache.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{build, cache, exec, paths};

/// Its version. Another one may write other bytes.
pub const VERSION: &str = "3.8.0";

/// How much space its build needs.
const BUILD_BYTES: u64 = 500 << 20;

/// The program; builds it if the cache has none of this version.
pub fn cargo_deb() -> Result<PathBuf> {
    let cache = paths::cache()?;
    let dir = cache.join(format!("cargo-deb-{VERSION}"));
    let program = dir.join("bin/cargo-deb");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = cache::lock(&cache, "cargo-deb.lock")?;
    if program.exists() {
        return Ok(program);
    }
    cache::remove_others(&cache, "cargo-deb-", &[])?;
    cache::check_space(&cache, "cargo-deb", BUILD_BYTES)?;
    let work = cache.join("cargo-deb.part");
    exec::step(
        "cargo-deb",
        &format!("Building cargo-deb {VERSION} (2 minutes, once)"),
        build::cargo()
            .args(["install", "cargo-deb", "--version", VERSION, "--locked"])
            // With a compressor of its own, so that the host's does not matter.
            .args(["--no-default-features", "--features", "static-lzma"])
            .arg("--target-dir")
            .arg(work.join("target"))
            .arg("--root")
            .arg(&work)
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    fs::remove_dir_all(work.join("target"))
        .and_then(|()| fs::rename(&work, &dir))
        .with_context(|| format!("cannot move cargo-deb to {}", dir.display()))?;
    Ok(program)
}
