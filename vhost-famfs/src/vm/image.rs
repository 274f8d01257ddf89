// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of an appliance image.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a guest's root file system is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Root {
    /// On a virtio disk, as a compressed image (profile `default`).
    #[default]
    Disk,
    /// In an image that QEMU maps into the guest as read-only memory (profile `dax`): all VMs run
    /// their programs from the same pages of the host.
    Memory,
    /// In the initrd, without systemd (profile `diskless`).
    Initrd,
    /// On a disk whose contents are verified by hashes (profile `verity`).
    Verity,
    /// On a block device of the host that has the writes of one VM: only of a guest of the user's
    /// own.
    Ublk,
}

impl Root {
    /// The name of the variant in cluster files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Initrd => "initrd",
            Self::Verity => "verity",
            Self::Ublk => "ublk",
        }
    }

    /// The profile of the image that has it, for the user.
    #[must_use]
    pub fn profile(self) -> &'static str {
        match self {
            Self::Disk | Self::Ublk => "default",
            Self::Memory => "dax",
            Self::Initrd => "diskless",
            Self::Verity => "verity",
        }
    }
}

/// An appliance image: a directory with the files that `mkosi build` (`cargo xtask image`) creates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    dir: PathBuf,
    kernel: Option<PathBuf>,
    /// Size in bytes of the root in memory, if the image has one.
    memory_root: Option<u64>,
    /// The root hash in hexadecimal, if the image has a verified root.
    root_hash: Option<String>,
}

/// A directory is not an appliance image, or its image lacks what was requested.
#[derive(Debug, thiserror::Error)]
#[error("no appliance image in {}: {file} is missing; install the package vhost-famfs-image, or build one with: cargo xtask image", dir.display())]
pub struct ImageError {
    /// The directory.
    pub dir: PathBuf,
    /// The first file that is missing.
    pub file: &'static str,
}

impl Image {
    const KERNEL: &str = "vmlinux";
    const INITRD: &str = "initrd.cpio";
    const ROOT: &str = "root.erofs";
    const MEMORY_ROOT: &str = "root-dax.erofs";
    const DISKLESS_INITRD: &str = "initrd-diskless.cpio";
    const VERITY_ROOT: &str = "root-verity.raw";
    const ROOT_HASH: &str = "root-verity.roothash";

    /// Opens a directory as an image.
    ///
    /// # Errors
    /// The first missing file of those that every image has.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir = dir.into();
        match [Self::KERNEL, Self::INITRD, Self::ROOT]
            .into_iter()
            .find(|file| !dir.join(file).is_file())
        {
            Some(file) => Err(ImageError { dir, file }),
            None => Ok(Self {
                memory_root: fs::metadata(dir.join(Self::MEMORY_ROOT)).ok().map(|file| file.len()),
                root_hash: fs::read_to_string(dir.join(Self::ROOT_HASH))
                    .ok()
                    .map(|hash| hash.trim().to_owned()),
                kernel: None,
                dir,
            }),
        }
    }

    /// Checks that the image has this kind of root.
    ///
    /// # Errors
    /// The missing file.
    pub fn require(&self, root: Root) -> Result<(), ImageError> {
        let (there, file) = match root {
            Root::Disk | Root::Ublk => (true, Self::ROOT),
            Root::Memory => (self.memory_root.is_some(), Self::MEMORY_ROOT),
            Root::Initrd => (self.dir.join(Self::DISKLESS_INITRD).is_file(), Self::DISKLESS_INITRD),
            Root::Verity => (self.root_hash.is_some(), Self::ROOT_HASH),
        };
        if there { Ok(()) } else { Err(ImageError { dir: self.dir.clone(), file }) }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same image with another kernel, which needs a PVH entry point and must fit the modules
    /// in the image.
    #[must_use]
    pub fn with_kernel(mut self, kernel: PathBuf) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// The uncompressed kernel with its PVH entry point.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.kernel.clone().unwrap_or_else(|| self.dir.join(Self::KERNEL))
    }

    /// The uncompressed initrd: with `appliance-init` and the modules needed to reach the root, or
    /// with everything.
    #[must_use]
    pub fn initrd(&self, root: Root) -> PathBuf {
        self.dir.join(if root == Root::Initrd { Self::DISKLESS_INITRD } else { Self::INITRD })
    }

    /// The read-only root file system on a disk.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join(Self::ROOT)
    }

    /// The disk for a kind of root, if that kind is on a disk.
    #[must_use]
    pub fn disk(&self, root: Root) -> Option<PathBuf> {
        match root {
            Root::Disk | Root::Ublk => Some(self.root()),
            Root::Verity => Some(self.dir.join(Self::VERITY_ROOT)),
            Root::Memory | Root::Initrd => None,
        }
    }

    /// The root in memory and its size in bytes, if the image has one.
    #[must_use]
    pub fn memory_root(&self) -> Option<(PathBuf, u64)> {
        self.memory_root.map(|size| (self.dir.join(Self::MEMORY_ROOT), size))
    }

    /// The hash of the verified root in hexadecimal, if the image has one.
    #[must_use]
    pub fn root_hash(&self) -> Option<&str> {
        self.root_hash.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmlinux"), "").unwrap();
        let error = Image::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("initrd.cpio is missing") && error.ends_with("cargo xtask image"),
            "{error}"
        );
    }

    #[test]
    fn a_root_that_was_not_built_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let image = Image::open(dir.path()).unwrap();
        image.require(Root::Disk).unwrap();
        for (root, file) in [
            (Root::Memory, "root-dax.erofs is missing"),
            (Root::Initrd, "initrd-diskless.cpio is missing"),
            (Root::Verity, "root-verity.roothash is missing"),
        ] {
            let error = image.require(root).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
        }
        fs::write(dir.path().join("root-dax.erofs"), "12").unwrap();
        let image = Image::open(dir.path()).unwrap();
        image.require(Root::Memory).unwrap();
        assert_eq!(image.memory_root(), Some((dir.path().join("root-dax.erofs"), 2)));
    }
}
