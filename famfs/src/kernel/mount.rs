// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A famfs of the kernel: makes one for a device, mounted or not, and works on its files.
//!
//! The kernel's file system starts empty. The superblock and the log become files of it
//! (`.meta/.superblock`, `.meta/.log`), because a devdax device can be reached in no other way.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::format::map::{Extent, FileMap};
use crate::format::path::META_DIR;
use crate::format::{ALLOC_UNIT, LOG_OFFSET};
use crate::kernel::beneath::Root;
use crate::media::{MediaError, MetaFiles};
use crate::store::superblock::SuperblockError;
use crate::sys::dax::{Access, Mapping};
use crate::sys::ioctl::{self, FileType};
use crate::sys::mount_attr::{self, Refusal};
use crate::system::lock::LockError;

/// Name of the superblock's file in [`META_DIR`].
pub const SUPERBLOCK_FILE: &str = ".superblock";
/// Name of the log's file in [`META_DIR`].
pub const LOG_FILE: &str = ".log";

/// Why a device cannot be mounted, or a mounted one cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no famfs.
    #[error("the kernel has no famfs file system; load its module with `modprobe famfs`")]
    NoModule,
    /// The kernel refused the device.
    #[error("cannot mount {}{}", device.display(), if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
    Device {
        /// The device.
        device: PathBuf,
        /// What the file system says about it.
        detail: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The new file system could not be attached to its directory.
    #[error("cannot mount on {}", mount_point.display())]
    Attach {
        /// The directory.
        mount_point: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The files of superblock and log could not be made or used.
    #[error("cannot {action} {META_DIR}/{name}")]
    Meta {
        /// The action that failed.
        action: &'static str,
        /// The file.
        name: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no usable superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// Another process holds a lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The meta files could not be read.
    #[error(transparent)]
    Media(#[from] MediaError),
}

impl MountError {
    /// The kernel's error number, if it refused the device.
    pub fn device_errno(&self) -> Option<i32> {
        match self {
            Self::Device { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A famfs of the kernel, through its root directory. A detached one vanishes when dropped.
#[derive(Debug)]
pub struct Mounted {
    root: Root,
    /// Makes this process an editor of the mount, as long as it is open.
    editor: Option<OwnedFd>,
    device: PathBuf,
    /// Receives messages about what is waited for.
    tell: fn(&str),
}

impl AsFd for Mounted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Mounted {
    /// The file system whose root is open.
    fn new(root: OwnedFd, device: &Path) -> Self {
        let editor = become_editor(&root);
        let tell = |_: &str| {};
        Self { root: Root::new(root), editor, device: device.to_owned(), tell }
    }

    /// Makes a file system for a device, without a mount point. It is strict if the kernel's famfs
    /// can be: then only these tools change its names and attributes. Programs run from it, without
    /// the privileges of set-ID bits.
    pub fn detached(device: &Path) -> Result<Self, MountError> {
        let context = match fsopen("famfs", FsOpenFlags::FSOPEN_CLOEXEC) {
            Err(Errno::NODEV) => return Err(MountError::NoModule),
            context => context,
        };
        let error = |context: Option<&OwnedFd>, err: Errno| MountError::Device {
            device: device.to_owned(),
            detail: context.map(context_message).unwrap_or_default(),
            source: err.into(),
        };
        let context = context.map_err(|err| error(None, err))?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOATIME;
        if fsconfig_set_flag(&context, "strict").is_err() {
            // Its complaint would be taken for one about the device.
            context_message(&context);
        }
        let root = fsconfig_set_string(&context, "source", device)
            .and_then(|()| fsconfig_create(&context))
            .and_then(|()| fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags))
            .map_err(|err| error(Some(&context), err))?;
        Ok(Self::new(root, device))
    }

    /// Opens the file system that is mounted at a directory.
    pub fn at(mount_point: &Path, device: &Path) -> Result<Self, MountError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(mount_point, flags, Mode::empty()).map_err(|err| {
            MountError::Attach { mount_point: mount_point.to_owned(), source: err.into() }
        })?;
        Ok(Self::new(root, device))
    }

    /// Reports to `tell` what is waited for, if that takes long.
    pub fn telling(mut self, tell: fn(&str)) -> Self {
        self.tell = tell;
        self
    }

    /// Opens a mounted file system to make its files appear, even in a read-only mount: there
    /// through its own mount, which ends with this value.
    pub fn for_play(mount_point: &Path, device: &Path) -> Result<Self, MountError> {
        let mounted = Self::at(mount_point, device)?;
        if !mounted.is_read_only()? {
            return Ok(mounted);
        }
        let error = |err: io::Error| MountError::Attach {
            mount_point: mount_point.to_owned(),
            source: err,
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let own = rustix::mount::open_tree(rustix::fs::CWD, mount_point, flags)
            .map_err(|err| error(err.into()))?;
        mount_attr::set(&own, Refusal::Writing, false).map_err(error)?;
        Ok(Self::new(own, device))
    }

    /// Whether files of this mount cannot be written.
    pub fn is_read_only(&self) -> Result<bool, MountError> {
        match rustix::fs::fstatvfs(&self.root) {
            Ok(stat) => Ok(stat.f_flag.contains(StatVfsMountFlags::RDONLY)),
            Err(err) => Err(self.device_error("checking whether it is read-only", err.into())),
        }
    }

    /// Makes this mount read-only, or writable; nothing changes for other mounts of the file
    /// system.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), MountError> {
        mount_attr::set(&self.root, Refusal::Writing, read_only)
            .map_err(|err| self.device_error("changing read-only", err))
    }

    /// Keeps programs from running from this mount, or lets them run.
    pub fn set_noexec(&self, noexec: bool) -> Result<(), MountError> {
        mount_attr::set(&self.root, Refusal::Running, noexec)
            .map_err(|err| self.device_error("changing noexec", err))
    }

    /// The device.
    pub fn device(&self) -> PathBuf {
        self.device.clone()
    }

    /// The root directory.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Whether the kernel's module is ours, and this process may change names and attributes.
    pub fn is_edited(&self) -> bool {
        self.editor.is_some()
    }

    /// Reports what is waited for, if that takes long.
    pub fn tell(&self, text: &str) {
        (self.tell)(text);
    }

    fn device_error(&self, detail: &str, source: io::Error) -> MountError {
        MountError::Device { device: self.device.clone(), detail: detail.to_owned(), source }
    }

    /// Attaches a detached file system to a directory.
    pub fn attach(&self, mount_point: &Path) -> Result<(), MountError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.root, "", rustix::fs::CWD, mount_point, flags).map_err(|err| {
            MountError::Attach { mount_point: mount_point.to_owned(), source: err.into() }
        })
    }

    /// Size of the device in bytes.
    pub fn device_len(&self) -> Result<u64, MountError> {
        let stat =
            rustix::fs::fstatfs(&self.root).map_err(|err| self.device_error("", err.into()))?;
        let block = u64::try_from(stat.f_bsize).unwrap_or(0);
        Ok(stat.f_blocks.saturating_mul(block))
    }

    /// Gives access to superblock and a log of `log_len` bytes, for writing, whatever the device
    /// holds.
    pub fn raw_meta(&self, log_len: u64) -> Result<MetaFiles, MountError> {
        let superblock = self.map_meta(FileType::Superblock, Access::Write, ALLOC_UNIT, 0o444)?.1;
        let log = self.map_meta(FileType::Log, Access::Write, log_len, 0o644)?.1;
        Ok(MetaFiles::new(superblock, Some(log), self.device.clone(), self.device_len()?)?)
    }

    /// Gives access to the superblock only, for reading.
    pub fn superblock_media(&self) -> Result<MetaFiles, MountError> {
        let superblock = self.map_meta(FileType::Superblock, Access::Read, ALLOC_UNIT, 0o444)?.1;
        Ok(MetaFiles::new(superblock, None, self.device.clone(), self.device_len()?)?)
    }

    /// Gives access to the superblock's 2 MiB, for writing: for the master's lease.
    pub fn lease_media(&self) -> Result<MetaFiles, MountError> {
        let superblock = self.map_meta(FileType::Superblock, Access::Write, ALLOC_UNIT, 0o444)?.1;
        Ok(MetaFiles::new(superblock, None, self.device.clone(), self.device_len()?)?)
    }

    /// Opens the file of superblock or log, which must exist, for reading.
    pub fn meta_file(&self, kind: FileType) -> Result<File, MountError> {
        let (name, _) = meta_place(kind);
        let path = format!("{META_DIR}/{name}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        self.root
            .open(Path::new(&path), flags, Mode::empty())
            .map(File::from)
            .map_err(|err| meta_error("open", name, err))
    }

    /// Opens a meta file, makes it if it is missing, and maps it.
    pub(super) fn map_meta(
        &self,
        kind: FileType,
        access: Access,
        len: u64,
        mode: u32,
    ) -> Result<(File, Mapping), MountError> {
        let name = meta_place(kind).0;
        let error = |action| move |err| meta_error(action, name, err);
        // Modes are set again afterwards, because the umask must not matter.
        let dir_mode = Mode::from_raw_mode(0o755);
        match rustix::fs::mkdirat(&self.root, META_DIR, dir_mode) {
            Ok(()) => rustix::fs::chmodat(&self.root, META_DIR, dir_mode, AtFlags::empty())
                .map_err(error("set the mode of the directory of"))?,
            Err(Errno::EXIST) => {}
            Err(err) => return Err(meta_error("make the directory of", name, err)),
        }
        let path = format!("{META_DIR}/{name}");
        let path = Path::new(&path);
        let reopen = || self.root.open(path, OFlags::RDONLY, Mode::empty()).map(File::from);
        // A user without privileges may read what exists already.
        let there = match access {
            Access::Read => reopen().ok().filter(|file| ioctl::map_get(file).is_ok()),
            Access::Write => None,
        };
        let file = match (there, access) {
            (Some(file), _) => file,
            (None, Access::Write) => self.make_meta(kind, len, mode)?,
            (None, Access::Read) => {
                drop(self.make_meta(kind, len, mode)?);
                // A file that is open for writing keeps the mount from becoming read-only.
                reopen().map_err(error("open"))?
            }
        };
        let len = usize::try_from(len).map_err(|_| meta_error("map", name, Errno::OVERFLOW))?;
        let mapping = Mapping::new(&file, len, access).map_err(|source| MountError::Meta {
            action: "map",
            name,
            source,
        })?;
        Ok((file, mapping))
    }

    /// Opens a meta file for writing; makes and maps it if it is not.
    fn make_meta(&self, kind: FileType, len: u64, mode: u32) -> Result<File, MountError> {
        let (name, offset) = meta_place(kind);
        let error = |action| move |err| meta_error(action, name, err);
        let path = format!("{META_DIR}/{name}");
        let mode = Mode::from_raw_mode(mode);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.root.open(Path::new(&path), flags, mode).map_err(error("open"))?;
        let file = File::from(file);
        if ioctl::map_get(&file).is_err() {
            let map = FileMap::Simple(Extent { offset, len }.into());
            // Every famfs has the older interface for these files.
            ioctl::map_create_v42(&file, kind, len, &map).map_err(error("map"))?;
            rustix::fs::fchmod(&file, mode).map_err(error("set the mode of"))?;
        }
        Ok(file)
    }
}

/// Lets this process change a strict mount until the result is closed. The kernel refuses that to
/// users without privileges, who cannot make files anyway. A kernel without strict mounts refuses
/// no change.
fn become_editor(root: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(root, ".", flags, Mode::empty()).ok()?;
    ioctl::edit(&dir).ok().map(|()| dir)
}

/// Name of a meta file, and its offset on the device.
fn meta_place(kind: FileType) -> (&'static str, u64) {
    match kind {
        FileType::Log => (LOG_FILE, LOG_OFFSET),
        FileType::Superblock | FileType::Regular => (SUPERBLOCK_FILE, 0),
    }
}

pub(super) fn meta_error(action: &'static str, name: &'static str, err: Errno) -> MountError {
    MountError::Meta { action, name, source: err.into() }
}

/// The messages that the file system left in its context, "e famfs: ..." each.
fn context_message(context: &OwnedFd) -> String {
    let mut messages = Vec::new();
    let mut buf = [0; 1024];
    while let Ok(len) = rustix::io::read(context, &mut buf) {
        let text = String::from_utf8_lossy(&buf[..len]);
        messages.push(text.trim().trim_start_matches("e ").to_owned());
    }
    messages.join("; ")
}
