// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The image that VMs of clusters boot.

use std::path::PathBuf;

use super::{Finding, Status};
use crate::vm::{DiskFormat, Image, Root};

const FIX: &str = "install the package vhost-famfs-image, or run: cargo xtask image; or name one with \
                   $VHOST_FAMFS_IMAGE, --image, or image = \"...\"";

/// Checks the image that `up` would take.
pub(super) fn examine(found: Option<PathBuf>) -> Finding {
    const CHECK: &str = "image";
    let Some(dir) = found else {
        // VMs may have images of their own, and emitted clusters other kernels.
        return Finding::with(CHECK, Status::Warning, "no appliance image for `up`", FIX);
    };
    if dir.is_file() {
        return match DiskFormat::of(&dir) {
            Ok(format) => {
                let (dir, format) = (dir.display(), format.name());
                Finding::ok(CHECK, format!("{dir}, a disk ({format}) of your own"))
            }
            Err(error) => Finding::with(CHECK, Status::Failed, error.to_string(), FIX),
        };
    }
    match Image::open(&dir) {
        Ok(image) => {
            let all = [Root::Memory, Root::Disk, Root::Initrd, Root::Verity];
            let roots = all.into_iter().filter(|root| image.require(*root).is_ok());
            let roots: Vec<_> = roots.map(Root::name).collect();
            Finding::ok(CHECK, format!("{}, with root: {}", dir.display(), roots.join(", ")))
        }
        Err(error) => Finding::with(CHECK, Status::Failed, error.to_string(), FIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_with_the_roots_that_it_has() {
        assert_eq!(examine(None).status, Status::Warning);
        let dir = tempfile::tempdir().unwrap();
        let finding = || examine(Some(dir.path().to_owned()));
        assert_eq!(finding().status, Status::Failed);
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        // The variable may name a disk.
        let disk = dir.path().join("disk");
        std::fs::write(&disk, "no disk").unwrap();
        assert_eq!(examine(Some(disk.clone())).status, Status::Failed);
        std::fs::write(&disk, [" ".repeat(512).as_str(), "EFI PART"].concat()).unwrap();
        assert!(examine(Some(disk)).found.ends_with("/disk, a disk (raw) of your own"));
        let finding = finding();
        assert_eq!(finding.status, Status::Ok);
        assert!(finding.found.ends_with(", with root: disk"), "{finding:?}");
    }
}
