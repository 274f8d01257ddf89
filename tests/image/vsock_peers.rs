// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may connect to the agent over vsock. A guest cannot be its own host, so this shows only that
//! others are refused: its own programs, by the kernel's loopback (`vsock_loopback`).

use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::exec::{CONNECTIONS, VSOCK_PORT};
use vhost_famfs::vm::{Command, Disk};
use vm_tests::{Artifacts, Node, mount_disk, pack_disk};

const SERIAL: &str = "peers";
const MOUNT_POINT: &str = "/tmp/peers";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/image/vsock_peer.c");
const MODULE: &str = "vsock_loopback.ko";
const LIMIT: Duration = Duration::from_secs(180);

/// A port on which nobody listens.
const NOBODY: u32 = VSOCK_PORT + 1;

/// Compiles the program so that it runs in any guest, and packs it and the loopback into a disk in
/// `scratch`.
pub fn disk(artifacts: &Artifacts, scratch: &Path) -> Result<Disk> {
    let dir = scratch.join("peers");
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let compiled = HostCommand::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", SOURCE, "-o"])
        .arg(dir.join("peer"))
        .output()
        .context("cannot run cc")?;
    ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    let module = artifacts.image.join("test-modules").join(MODULE);
    fs::copy(&module, dir.join(MODULE))
        .with_context(|| format!("cannot copy {}", module.display()))?;
    pack_disk(artifacts, &dir, scratch.join("peers.img"), SERIAL)
}

/// A program of the guest greets the agent, more often than there are connections.
pub fn refused(node: &Node) -> Result<()> {
    mount_disk(node, SERIAL, MOUNT_POINT)?;
    let insert = format!("insmod {MOUNT_POINT}/{MODULE}");
    node.run(&Command::shell(&insert), LIMIT).context("cannot load the loopback")?;
    let connect = |port: u32, times: usize| -> Result<String> {
        let peer = format!("{MOUNT_POINT}/peer {port} {times}");
        let output = node.run(&Command::shell(&peer), LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let times = 2 * CONNECTIONS + 1;
    let said = connect(VSOCK_PORT, times)?;
    ensure!(said == format!("{times} closed without a word"), "{said}");
    // So it was the agent that closed them.
    let said = connect(NOBODY, 1)?;
    ensure!(said == "no connection: Connection reset by peer", "{said}");
    node.wait_console("closed a connection from Some(Address { cid: 1,")?;
    Ok(())
}
