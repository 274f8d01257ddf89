// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program for guests that stores into memory and devices, bypassing all file systems (`poke.c`).

use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::{Command, Disk};
use vm_tests::{Artifacts, Node, mount_disk, pack_disk};

use super::{SHORT, text};

/// What it stores at the start of each page.
pub const WORD: u64 = 0x05ca_1ab1_e0dd_ba11;

const SERIAL: &str = "poke";
const MOUNT_POINT: &str = "/tmp/poke";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/device/poke.c");

/// Compiles the program so that it runs in any guest, and packs it into a disk in `scratch`.
pub fn disk(artifacts: &Artifacts, scratch: &Path) -> Result<Disk> {
    let dir = scratch.join("programs");
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let compiled = HostCommand::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", SOURCE, "-o"])
        .arg(dir.join("poke"))
        .output()
        .context("cannot run cc")?;
    ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    pack_disk(artifacts, &dir, scratch.join("poke.img"), SERIAL)
}

/// Stores through a mapping of the device itself.
pub fn device(node: &Node, device: &str, length: u64) -> Result<()> {
    run(node, device, "0", length)
}

/// Stores through /dev/mem at an offset of the pool, while no driver of the guest claims the pool's
/// addresses. The virtio driver stays loaded: without it, QEMU would remove the window.
pub fn memory(node: &Node, offset: u64, length: u64) -> Result<()> {
    let start = text(node, "cat /sys/bus/nd/devices/region0/resource")?;
    let digits = start.strip_prefix("0x").unwrap_or_default();
    let start = u64::from_str_radix(digits, 16).with_context(|| format!("address {start:?}"))?;
    text(
        node,
        "cd /sys/bus/nd/drivers/nd_pmem && basename namespace* > /tmp/namespace &&
        cat /tmp/namespace > unbind",
    )?;
    let stored = run(node, "/dev/mem", &format!("{:#x}", start + offset), length);
    text(node, "cat /tmp/namespace > /sys/bus/nd/drivers/nd_pmem/bind; [[ -b /dev/pmem0 ]]")?;
    stored
}

/// Runs it. If the mapping fails, that is an error, because nothing would have been tested.
fn run(node: &Node, file: &str, offset: &str, length: u64) -> Result<()> {
    if !node.vm.exec(&Command::new(["mountpoint", "-q", MOUNT_POINT]), SHORT)?.status.success() {
        mount_disk(node, SERIAL, MOUNT_POINT)?;
    }
    let poke = format!("{MOUNT_POINT}/poke");
    let poke = [poke.as_str(), file, offset, &length.to_string()];
    let said = node.run(&Command::new(poke), SHORT)?;
    println!("# {file} at {offset}: {}", String::from_utf8_lossy(&said.stdout).trim());
    Ok(())
}
