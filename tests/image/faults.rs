// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the large files of a root in memory are mapped, counted by a program in the guest
//! (`faults.c`).

use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vhost_famfs::vm::{Command, Disk};
use vm_tests::{Artifacts, Node, mount_disk, pack_disk};

const SERIAL: &str = "faults";
const MOUNT_POINT: &str = "/tmp/faults";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/image/faults.c");
const LIMIT: Duration = Duration::from_secs(180);

const PAGE: u64 = 4096;
/// How much of a large file one fault maps.
const HUGE: u64 = 2 << 20;

/// The files of the root that contain a huge page. Files with several names are not listed.
const LARGE: &str = "find /usr -xdev -type f -links 1 -size +2097151c";

/// Compiles the program so that it runs in any guest, and packs it into a disk in `scratch`.
pub fn disk(artifacts: &Artifacts, scratch: &Path) -> Result<Disk> {
    let dir = scratch.join("programs");
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let compiled = HostCommand::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", SOURCE, "-o"])
        .arg(dir.join("faults"))
        .output()
        .context("cannot run cc")?;
    ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    pack_disk(artifacts, &dir, scratch.join("faults.img"), SERIAL)
}

/// Maps every large file of the root: one fault per 2 MiB, then one per page after the last 2 MiB.
pub fn check(node: &Node) -> Result<()> {
    mount_disk(node, SERIAL, MOUNT_POINT)?;
    let command = Command::shell(&format!("{MOUNT_POINT}/faults $({LARGE})"));
    let counts = String::from_utf8(node.run(&command, LIMIT)?.stdout)?;
    print!("{counts}");
    ensure!(counts.lines().count() >= 3, "the root has few large files: {counts:?}");
    for line in counts.lines() {
        let mut words = line.split(' ').map(str::parse::<u64>);
        let (Some(Ok(faults)), Some(Ok(size))) = (words.next(), words.next()) else {
            bail!("unexpected: {line:?}");
        };
        let expected = size / HUGE + (size % HUGE).div_ceil(PAGE);
        ensure!(faults == expected, "{line}: expected {expected} faults");
    }
    Ok(())
}
