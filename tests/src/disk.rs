// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Passes a directory of the host to a guest as a read-only disk.

use std::path::{Path, PathBuf};
use std::process::Command as HostCommand;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::{Command, Disk};

use crate::{Artifacts, Node};

/// How long a guest may take to mount a disk.
const MOUNT: Duration = Duration::from_secs(180);

/// Packs `dir` into the disk image `path`, which the guest finds by its serial number.
pub fn pack_disk(artifacts: &Artifacts, dir: &Path, path: PathBuf, serial: &str) -> Result<Disk> {
    let made = HostCommand::new(&artifacts.mkfs_erofs)
        .arg("--quiet")
        .arg(&path)
        .arg(dir)
        .output()
        .context("cannot run mkfs.erofs")?;
    ensure!(made.status.success(), "mkfs.erofs: {}", String::from_utf8_lossy(&made.stderr));
    Ok(Disk { path, serial: serial.to_owned() })
}

/// Mounts the disk with that serial number in the guest.
pub fn mount_disk(node: &Node, serial: &str, mount_point: &str) -> Result<()> {
    let script = format!(
        "for disk in /sys/block/vd*; do
            if [[ $(< $disk/serial) == {serial} ]]; then
                mkdir -p {mount_point}
                mount -t erofs -o ro /dev/${{disk##*/}} {mount_point} && exit 0
            fi
        done
        echo 'no disk {serial}' >&2; exit 1"
    );
    node.run(&Command::shell(&script), MOUNT).map(|_| ())
}
