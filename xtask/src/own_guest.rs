// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk of a Debian with our packages, as users have one, for the cluster suite.
//!
//! ```text
//! a system of the cache, our packages --tests/own-guest/make.sh--> disk.raw, vmlinuz, initrd,
//!                                                                  firmware
//! disk.raw --qemu-img--> disk.qcow2
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::chroot::{self, Release};
use crate::hash::Key;
use crate::image::Imaged;
use crate::package::{self, Package};
use crate::{exec, packages, paths};

/// What makes the disk in the system.
const SCRIPT: &str = "make.sh";

/// The file that identifies what a disk was made of.
const STAMP: &str = "inputs";

/// What a user installs, see docs/using/own-guests.md.
const PACKAGES: [Package; 3] = [Package::Tools, Package::Dkms, Package::Guest];

/// A system that boots, with what the packages depend on and what makes a disk of it.
const RELEASE: Release = Release {
    name: "Debian 13 and a kernel",
    id: "own-guest",
    suite: "trixie",
    more: &["trixie-updates", "trixie-backports"],
    packages: &[
        "dkms",
        "dosfstools",
        "e2fsprogs",
        "fdisk",
        "initramfs-tools",
        "kmod",
        "linux-headers-cloud-amd64/trixie-backports",
        "linux-image-cloud-amd64/trixie-backports",
        "mtools",
        "openssl",
        "ovmf",
        "syslinux",
        "syslinux-common",
        "systemd-boot-efi",
        "systemd-sysv",
        "systemd-ukify",
        "udev",
        "zstd",
    ],
};

/// The directory with the disk and what boots it; makes it unless it is up to date.
pub fn make(imaged: &Imaged) -> Result<PathBuf> {
    packages::install_missing_for_packages(false)?;
    let packaged = package::some(imaged, &PACKAGES, &paths::target().join("own-guest-packages"))?;
    let script = paths::root().join("tests/own-guest").join(SCRIPT);
    let key = packaged.iter().try_fold(Key::default(), |key, deb| key.path(deb))?.path(&script)?;
    let key = key.text(&RELEASE.packages.join(" ")).finish();
    let dir = paths::target().join("own-guest");
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|there| there == key) {
        return Ok(dir);
    }
    let system = chroot::get(RELEASE)?;
    let dir = paths::new_directory("own-guest")?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for file in packaged.iter().chain([&script]) {
        let name = file.file_name().context("a file without a name")?;
        fs::copy(file, dir.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    exec::step("own-guest", "Making the disk of a Debian", &mut system.command(&dir, SCRIPT))?;
    qcow2(imaged, &dir)?;
    fs::write(dir.join(STAMP), key).context("cannot write the stamp")?;
    Ok(dir)
}

/// The same disk in QEMU's format.
fn qcow2(imaged: &Imaged, dir: &Path) -> Result<()> {
    let mut convert = imaged.built.tools.command("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
    convert.arg(dir.join("disk.raw")).arg(dir.join("disk.qcow2"));
    exec::output(&mut convert).map(drop)
}
