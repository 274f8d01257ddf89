// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of an appliance image.

use std::path::{Path, PathBuf};

/// An appliance image: a directory with the files that `image/build.sh` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    dir: PathBuf,
    kernel: Option<PathBuf>,
}

/// A directory is not an appliance image.
#[derive(Debug, thiserror::Error)]
#[error("no appliance image in {}: {file} is missing; build one with: cargo xtask image", dir.display())]
pub struct ImageError {
    /// The directory.
    pub dir: PathBuf,
    /// The first file that is not there.
    pub file: &'static str,
}

impl Image {
    const KERNEL: &str = "vmlinux";
    const INITRD: &str = "initrd.img";
    const ROOT: &str = "root.erofs";

    /// Takes a directory as an image.
    ///
    /// # Errors
    /// Names the first file that is missing.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir = dir.into();
        match [Self::KERNEL, Self::INITRD, Self::ROOT]
            .into_iter()
            .find(|file| !dir.join(file).is_file())
        {
            Some(file) => Err(ImageError { dir, file }),
            None => Ok(Self { dir, kernel: None }),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same image with another kernel: one with a PVH entry point, that fits the modules in it.
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

    /// The initial RAM file system: `appliance-init` and the modules that reach the root.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.dir.join(Self::INITRD)
    }

    /// The read-only root file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join(Self::ROOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vmlinux"), "").unwrap();
        let error = Image::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("initrd.img is missing; build one with: cargo xtask image"),
            "{error}"
        );
    }
}
