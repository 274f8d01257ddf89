// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this host provides to run a cluster: programs, image, directories.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use famfs::system::runtime::{self, NoRuntime};

use crate::vm::{Accelerator, Confinement, Image, Qemu, QemuVersion, SelectError, has_filter};

/// Environment variable that names the QEMU program.
pub const QEMU_VARIABLE: &str = "VHOST_FAMFS_QEMU";

/// Where packages install the appliance image.
pub const INSTALLED_IMAGE: &str = "/usr/share/vhost-famfs/image";

/// Environment variable that names the image.
pub const IMAGE_VARIABLE: &str = "VHOST_FAMFS_IMAGE";

/// Environment variable that names the program that makes root devices, with the arguments of
/// `vhost-famfs ublk add`.
pub const UBLK_VARIABLE: &str = "VHOST_FAMFS_UBLK";

/// Why this host cannot run a cluster.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no QEMU, or the named program is not QEMU.
    #[error("no QEMU to run VMs with; install it, or name one with --qemu or ${QEMU_VARIABLE}")]
    Qemu(#[source] SelectError),
    /// There is no directory for files that live as long as a cluster.
    #[error(transparent)]
    NoRuntime(#[from] NoRuntime),
    /// The path of this program is unknown.
    #[error("cannot determine the path of this program")]
    Program(#[source] io::Error),
}

/// What a cluster is run with.
#[derive(Debug, Clone)]
pub struct Host {
    /// The `vhost-famfs` program, for back-ends.
    pub program: PathBuf,
    /// The program that makes root devices, if it is another one: it needs no ublk driver.
    pub ublk: Option<PathBuf>,
    /// QEMU.
    pub qemu: PathBuf,
    /// Its version.
    pub qemu_version: QemuVersion,
    /// Whether it has a system call filter.
    pub qemu_filter: bool,
    /// How QEMU is confined here.
    pub confinement: Confinement,
    /// Why it is not confined further, in words.
    pub confinement_reason: &'static str,
    /// What runs guests.
    pub accelerator: Accelerator,
    /// Why that one.
    pub accelerator_reason: String,
    /// The image that VMs boot, if there is one: the directory of an appliance, or the user's disk.
    pub image: Option<PathBuf>,
    /// The directory of all clusters.
    pub runtime: PathBuf,
    /// The directory for pools in memory.
    pub memory: PathBuf,
}

impl Host {
    /// Looks for everything. Arguments that are given are used, not searched for.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn look(qemu: Option<&Path>, image: Option<&Path>) -> Result<Self, HostError> {
        let program = env::current_exe().map_err(HostError::Program)?;
        let named = non_empty(QEMU_VARIABLE).map(PathBuf::from);
        let Qemu { program: qemu, version: qemu_version, .. } =
            Qemu::select(qemu.or(named.as_deref())).map_err(HostError::Qemu)?;
        let (accelerator, accelerator_reason) = Accelerator::detect(&qemu);
        let (confinement, confinement_reason) = Confinement::strongest();
        Ok(Self {
            qemu_filter: has_filter(&qemu),
            confinement,
            confinement_reason,
            image: image
                .map(Path::to_owned)
                .or_else(|| find_image(&program, Path::new(INSTALLED_IMAGE)))
                .map(|path| std::path::absolute(&path).unwrap_or(path)),
            program,
            ublk: non_empty(UBLK_VARIABLE).map(PathBuf::from),
            qemu: from_anywhere(qemu),
            qemu_version,
            accelerator,
            accelerator_reason,
            runtime: runtime_dir()?,
            memory: PathBuf::from("/dev/shm"),
        })
    }
}

/// Makes a path absolute. The name of a program that is searched for in PATH stays as it is.
fn from_anywhere(path: PathBuf) -> PathBuf {
    let is_path = path.components().count() > 1;
    if is_path { std::path::absolute(&path).unwrap_or(path) } else { path }
}

/// The directory that holds all clusters of this user. It need not exist.
///
/// # Errors
/// There is no place for it.
pub fn runtime_dir() -> Result<PathBuf, HostError> {
    Ok(runtime::runtime_dir()?)
}

/// The image that this program would take if the user named none.
#[must_use]
pub fn image() -> Option<PathBuf> {
    find_image(&env::current_exe().ok()?, Path::new(INSTALLED_IMAGE))
}

/// Looks for the image: in the directory the variable names, below the prefix that the program is
/// installed in, next to the programs of a build, and where the package installs it.
fn find_image(program: &Path, installed: &Path) -> Option<PathBuf> {
    if let Some(dir) = non_empty(IMAGE_VARIABLE) {
        return Some(dir.into());
    }
    let prefix = program.parent()?.parent()?;
    let own = [prefix.join("share/vhost-famfs/image"), prefix.join("image")];
    own.into_iter().chain([installed.to_owned()]).find(|dir| Image::open(dir).is_ok())
}

fn non_empty(variable: &str) -> Option<std::ffi::OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

#[cfg(test)]
impl Host {
    /// A host that has everything; its directories, and an image of this name, are in `dir`.
    pub fn for_tests(dir: &Path, image: &str) -> Self {
        let image = dir.join(image);
        std::fs::create_dir_all(&image).unwrap();
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            std::fs::write(image.join(file), "").unwrap();
        }
        Self {
            program: "vhost-famfs".into(),
            ublk: None,
            qemu: "qemu".into(),
            qemu_version: QemuVersion::SHARED_MEMORY,
            qemu_filter: true,
            confinement: Confinement::Filter,
            confinement_reason: "it runs as you",
            accelerator: Accelerator::Tcg,
            accelerator_reason: "no reason".into(),
            image: Some(image),
            runtime: dir.join("run"),
            memory: dir.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_the_program_comes_before_the_installed_one() {
        let dir = tempfile::tempdir().unwrap();
        let (program, installed) = (dir.path().join("release/vhost-famfs"), dir.path().join("usr"));
        let found = || find_image(&program, &installed);
        assert_eq!(found(), None);
        for image in [installed.clone(), dir.path().join("image")] {
            std::fs::create_dir(&image).unwrap();
            for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
                std::fs::write(image.join(file), "").unwrap();
            }
            assert_eq!(found(), Some(image));
        }
    }
}
