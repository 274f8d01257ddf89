// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs emitted domains under a real libvirt, in a system of its own.

use std::fs;

use anyhow::{Context, Result};

use super::in_system;
use super::run::Run;
use crate::chroot::Release;
use crate::{image, paths};

/// What runs in the system.
const SCRIPT: &str = "life.sh";

/// A system with libvirt and QEMU 11.1.
const RELEASE: Release = Release {
    name: "Debian 13",
    id: "libvirt",
    suite: "trixie",
    more: &["trixie-updates", "trixie-backports"],
    packages: &[
        "libvirt-clients",
        "libvirt-daemon",
        "libvirt-daemon-driver-qemu",
        "libxml2-utils",
        "procps",
        "qemu-system-common/trixie-backports",
        "qemu-system-data/trixie-backports",
        "qemu-system-x86/trixie-backports",
        "seabios/trixie-backports",
    ],
};

/// The files of the image that VMs use here: they boot from a disk.
const IMAGE: [&str; 3] = ["vmlinux", "initrd.cpio", "root.erofs"];

/// Runs the script.
pub fn run(run: &mut Run) -> Result<()> {
    let imaged = image::run()?;
    // In the same file system as the image, for hard links.
    let given = paths::new_directory("libvirt")?;
    let image = given.join("image");
    fs::create_dir_all(&image).with_context(|| format!("cannot create {}", image.display()))?;
    for name in IMAGE {
        fs::hard_link(imaged.dir.join(name), image.join(name)).context("cannot link the image")?;
    }
    for name in ["vhost-famfs", "famfs"] {
        fs::copy(imaged.built.host.join(name), given.join(name)).context("cannot copy programs")?;
    }
    let script = paths::root().join("tests/libvirt").join(SCRIPT);
    fs::copy(script, given.join(SCRIPT)).context("cannot copy the script")?;
    in_system::run("libvirt", RELEASE, &given, SCRIPT, run)?;
    fs::remove_dir_all(&given).with_context(|| format!("cannot remove {}", given.display()))
}
