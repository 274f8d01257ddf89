// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decides what a VM boots: an appliance image, or a guest of the user's own.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::PlanError;
use crate::cluster::host::Host;
use crate::cluster::spec::VmSpec;
use crate::vm::{DiskFormat, Image, OwnGuest, QemuVersion, Root, Start, System};

/// What the VM boots, and its root.
pub(super) fn plan(spec: &VmSpec, host: &Host) -> Result<(System, Root), PlanError> {
    let name = || spec.name.clone();
    let path = spec.image.as_ref().or(host.image.as_ref());
    let path = path.ok_or_else(|| PlanError::NoImage(name()))?;
    if path.is_file() || is_block_device(path) {
        let root = spec.root.filter(|root| *root == Root::Ublk).unwrap_or(Root::Disk);
        return Ok((own(spec, path)?.into(), root));
    }
    if !path.is_dir() {
        let found = if path.exists() { "neither of them" } else { "nothing" };
        return Err(PlanError::NeitherImage { name: name(), path: path.clone(), found });
    }
    let image = appliance(spec, path)?;
    let root = root(spec, host, &image)?;
    Ok((image.into(), root))
}

fn is_block_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// An appliance image, with the user's kernel if there is one.
fn appliance(spec: &VmSpec, dir: &Path) -> Result<Image, PlanError> {
    if spec.root == Some(Root::Ublk) {
        let why = "the root of an appliance is never written, so a block device of its own is of \
                   no use; omit it, or name a disk image of your own";
        return Err(refused(spec, "root", why));
    }
    let only_own = [
        ("initrd", spec.initrd.is_some()),
        ("append", spec.append.is_some()),
        ("firmware", spec.firmware.is_some()),
    ];
    if let Some((key, _)) = only_own.into_iter().find(|(_, given)| *given) {
        let why = "an appliance image has its own; this key is for a disk image of your own";
        return Err(refused(spec, key, why));
    }
    let image =
        Image::open(dir).map_err(|source| PlanError::Image { name: spec.name.clone(), source })?;
    match file(spec, "kernel", spec.kernel.as_ref())? {
        None => Ok(image),
        Some(path) => Ok(image.with_kernel(path)),
    }
}

/// The requested root; by default, the one that VMs share, if image and QEMU support it.
fn root(spec: &VmSpec, host: &Host, image: &Image) -> Result<Root, PlanError> {
    let recent = host.qemu_version >= QemuVersion::READ_ONLY_MEMORY;
    let there = image.require(Root::Memory);
    match (spec.root, there) {
        (Some(Root::Memory), Err(source)) => {
            Err(PlanError::Image { name: spec.name.clone(), source })
        }
        (Some(Root::Memory), Ok(())) if !recent => Err(PlanError::Root {
            name: spec.name.clone(),
            qemu: host.qemu.clone(),
            found: host.qemu_version,
        }),
        (Some(root), _) => Ok(root),
        (None, Ok(())) if recent => Ok(Root::Memory),
        (None, _) => Ok(Root::Disk),
    }
}

/// A guest of the user's own.
fn own(spec: &VmSpec, disk: &Path) -> Result<OwnGuest, PlanError> {
    if spec.root.is_some_and(|root| !matches!(root, Root::Disk | Root::Ublk)) {
        let why = "only appliance images have such a root; omit it, as this one is on the disk";
        return Err(refused(spec, "root", why));
    }
    if spec.shell {
        let why = "only appliances have a shell there; omit it: `console` shows the login of the \
                   guest";
        return Err(refused(spec, "shell", why));
    }
    let format = DiskFormat::of(disk)
        .map_err(|source| PlanError::Disk { name: spec.name.clone(), source })?;
    if spec.root == Some(Root::Ublk) && format == DiskFormat::Qcow2 {
        let why = "the device shows the bytes of the image, which is qcow2; make a raw one of it, \
                   with `qemu-img convert -O raw`";
        return Err(refused(spec, "root", why));
    }
    Ok(OwnGuest { disk: disk.to_owned(), format, start: start(spec)?, writable: false })
}

/// Where the kernel of the user's own guest comes from.
fn start(spec: &VmSpec) -> Result<Start, PlanError> {
    let firmware = file(spec, "firmware", spec.firmware.as_ref())?;
    let initrd = file(spec, "initrd", spec.initrd.as_ref())?;
    match (file(spec, "kernel", spec.kernel.as_ref())?, &spec.append) {
        (None, Some(_)) => {
            let why = "without kernel, the disk's boot loader decides this; add kernel, or omit it";
            Err(refused(spec, "append", why))
        }
        (None, None) if initrd.is_some() => {
            let why = "without kernel, the disk's boot loader decides this; add kernel, or omit it";
            Err(refused(spec, "initrd", why))
        }
        (None, None) => Ok(Start::Firmware(firmware)),
        (Some(_), _) if firmware.is_some() => {
            let why = "with kernel, nothing is booted from the disk; omit one of the two";
            Err(refused(spec, "firmware", why))
        }
        (Some(_), None) => {
            let why = "it needs to know its root; add append = \"root=/dev/vda1\", or whichever \
                       partition that is";
            Err(refused(spec, "kernel", why))
        }
        (Some(kernel), Some(append)) => {
            Ok(Start::Kernel { kernel, initrd, append: append.clone() })
        }
    }
}

/// The file that a key names.
fn file(
    spec: &VmSpec,
    key: &'static str,
    path: Option<&PathBuf>,
) -> Result<Option<PathBuf>, PlanError> {
    match path {
        Some(path) if !path.is_file() => {
            Err(PlanError::NoFile { name: spec.name.clone(), key, path: path.clone() })
        }
        path => Ok(path.cloned()),
    }
}

fn refused(spec: &VmSpec, key: &'static str, why: &str) -> PlanError {
    PlanError::Key { name: spec.name.clone(), key, why: why.to_owned() }
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
