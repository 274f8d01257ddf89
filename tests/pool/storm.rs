// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that are made by the host, mapped in every VM by a program (`mapper.c`) and deleted, group
//! after group, in a log that they would fill many times over.

use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vhost_famfs::vm::Disk;
use vm_tests::{Artifacts, Node, Pool, interrupt, mount_disk, pack_disk};

use super::{LIMIT, shell};

const SERIAL: &str = "mapper";
const MOUNT_POINT: &str = "/tmp/mapper";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pool/mapper.c");
/// Files of a group, which are seen and deleted together.
pub const FILES: u64 = 256;
const FILE: usize = 4096;
/// Pause between two looks at a console.
const PAUSE: Duration = Duration::from_millis(5);

/// How many cycles of making, mapping and deleting a file, and for how long at most.
#[derive(Clone, Copy)]
pub struct Length {
    pub cycles: u64,
    pub time: Duration,
}

/// Compiles the program so that it runs in any guest, and packs it into a disk in `scratch`.
pub fn disk(artifacts: &Artifacts, scratch: &Path) -> Result<Disk> {
    let dir = scratch.join("programs");
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let compiled = HostCommand::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", SOURCE, "-o"])
        .arg(dir.join("mapper"))
        .output()
        .context("cannot run cc")?;
    ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    pack_disk(artifacts, &dir, scratch.join("mapper.img"), SERIAL)
}

/// Each group is deleted when every VM has mapped it; the next one comes meanwhile. No command may
/// find the log full.
pub fn rage(pool: &Pool, nodes: &[&Node], length: Length) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    pool.famfs(["mkdir", "/storm"])?;
    for node in nodes {
        node.wait_for("[[ -d /mnt/famfs/storm ]]")?;
        mount_disk(node, SERIAL, MOUNT_POINT)?;
        let mapper = format!(
            "({MOUNT_POINT}/mapper /mnt/famfs/storm {FILES} || echo mapper: failed) \
             </dev/null &>/dev/console &"
        );
        shell(node, &mapper)?;
    }
    let (start, mut group, mut moves, mut entries) = (Instant::now(), 0, 0, 0);
    while group * FILES < length.cycles && start.elapsed() < length.time {
        group += 1;
        make(pool, dir.path(), group)?;
        if group > 1 {
            wait_and_delete(pool, nodes, group - 1)?;
        }
        let now = super::slots::entries(pool)?;
        moves += u64::from(now < entries);
        entries = now;
    }
    wait_and_delete(pool, nodes, group)?;
    let (cycles, seconds) = (group * FILES, start.elapsed().as_secs_f64());
    println!(
        "# {cycles} of {} cycles in {} VMs, {:.0} a second; entries moved {moves} times",
        length.cycles,
        nodes.len(),
        cycles as f64 / seconds
    );
    pool.famfs(["mkdir", "/storm/end"])?;
    nodes.iter().try_for_each(|node| wait_console(node, "mapper: done"))?;
    pool.famfs(["rm", "-r", "/storm"])?;
    ensure!(moves > 0, "entries moved only {moves} times in {cycles} cycles");
    pool.famfs(["fsck"]).map(drop)
}

fn make(pool: &Pool, dir: &Path, group: u64) -> Result<()> {
    for file in 0..FILES {
        let word = (group * 65536 + file).to_le_bytes();
        fs::write(dir.join(file.to_string()), word.repeat(FILE / word.len()))?;
    }
    let source = dir.to_str().context("a name that is not text")?;
    at_once(pool, &["cp", "-r", "--atomic", source, &format!("/storm/{group}")])
}

fn wait_and_delete(pool: &Pool, nodes: &[&Node], group: u64) -> Result<()> {
    nodes.iter().try_for_each(|node| wait_console(node, &format!("mapper: {group}.")))?;
    at_once(pool, &["rm", "-r", &format!("/storm/{group}")])
}

/// Runs a command of the host, which would wait for slots if the log were full.
fn at_once(pool: &Pool, words: &[&str]) -> Result<()> {
    let output = pool.famfs_command(words).output().context("cannot run famfs")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("log is full"), "{words:?}: {said}");
    Ok(())
}

/// Waits for what the mapper says.
fn wait_console(node: &Node, text: &str) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let console = fs::read(node.console_log()).context("cannot read the console")?;
        let console = String::from_utf8_lossy(&console);
        if console.contains(text) {
            return Ok(());
        }
        let name = &node.member.name;
        let failed = console.contains("mapper: failed");
        ensure!(!failed, "VM {name}: a file has other bytes:\n{console}");
        interrupt::check()?;
        if Instant::now() > end {
            bail!("VM {name}: {text:?} is not on the console:\n{console}");
        }
        thread::sleep(PAUSE);
    }
}
