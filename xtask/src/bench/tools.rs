// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The famfs tools against plain file tools, on the host.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use vm_tests::{Pool, View, memory_dir};

use super::Measurement;
use super::measurement::Better;
use super::sample::medians;
use crate::{exec, image, paths};

/// Size of the file that is copied, and of the pool.
const FILE: u64 = 256 << 20;
const POOL: u64 = 512 << 20;

/// Copies a file into a pool and into a tmpfs.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-tools"))?;
    let dir = memory_dir(4 * FILE)?;
    let source = dir.path().join("source");
    let pool = Pool::create(&artifacts, POOL, FILE, View::Devdax)?;
    pool.mkfs(&[])?;
    pool.famfs(["creat", "--size", &FILE.to_string(), "--seed", "1", "/seeded"])?;
    // The pool's own data, so that no page of the source is a hole.
    exec::output(Command::new("dd").args(["bs=2M", "skip=6", "status=none"]).args([
        format!("if={}", pool.path().display()),
        format!("of={}", source.display()),
        format!("count={}", FILE >> 21),
    ]))?;
    let rate = |start: Instant| (FILE >> 20) as f64 / start.elapsed().as_secs_f64();
    let into_pool = || {
        pool.mkfs(&["--force"])?;
        let start = Instant::now();
        pool.famfs(["cp".as_ref(), source.as_os_str(), "/copy".as_ref()])?;
        Ok(rate(start))
    };
    let into_tmpfs = || {
        let copy = dir.path().join("copy");
        let start = Instant::now();
        exec::output(Command::new("cp").arg("--reflink=never").arg(&source).arg(&copy))?;
        let rate = rate(start);
        std::fs::write(&copy, "")?;
        Ok(rate)
    };
    let (value, peer) = medians(into_pool, into_tmpfs)?;
    Ok(vec![Measurement::new(
        "tools.cp",
        "famfs cp of one file into a pool",
        "MiB/s",
        value,
        ("cp to a file on tmpfs", peer),
        (Better::Higher, 0.9),
    )])
}
