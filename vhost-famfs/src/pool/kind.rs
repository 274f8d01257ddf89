// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Determines what a file is as a pool: its kind, size, alignment and identity.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use famfs::system::parent;
use famfs::text::units::Bytes;
use rustix::fs::{FileType, major, minor};
use serde::{Deserialize, Serialize};

use super::own::is_own_directory;
use super::{ALIGNMENT, MIN_SIZE, PoolError};

/// What a pool is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// An anonymous memory file, inherited as a descriptor.
    Memfd,
    /// A file in tmpfs, such as /dev/shm.
    Tmpfs,
    /// A file in hugetlbfs, or a memfd with huge pages: memory in pages of one size, 2 MiB or 1
    /// GiB.
    Hugetlbfs,
    /// A regular file in a file system on disk.
    File,
    /// A device-dax character device, /dev/daxX.Y.
    Devdax,
}

impl Kind {
    /// The kind's name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Tmpfs => "tmpfs",
            Self::Hugetlbfs => "hugetlbfs",
            Self::File => "file",
            Self::Devdax => "devdax",
        }
    }

    /// Whether a flush has to write anything to storage.
    pub fn has_storage(self) -> bool {
        match self {
            Self::Memfd | Self::Tmpfs | Self::Hugetlbfs | Self::Devdax => false,
            Self::File => true,
        }
    }

    /// Whether read(2) works; write(2) works with the same kinds, except hugetlbfs.
    pub fn has_read(self) -> bool {
        self != Self::Devdax
    }

    /// Whether write(2) works.
    pub fn has_write(self) -> bool {
        !matches!(self, Self::Hugetlbfs | Self::Devdax)
    }
}

/// Identifies the file of a pool, even if it is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device number of the file system; for a device, its own.
    pub dev: u64,
    /// Inode number; 0 for a device, which can have many nodes.
    pub ino: u64,
}

impl Identity {
    /// The identity of an open file. A back-end calls this in its sandbox, where only `fstat` is
    /// allowed.
    pub fn of(file: &File) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        Ok(if is_device {
            Self { dev: stat.st_rdev, ino: 0 }
        } else {
            Self { dev: stat.st_dev, ino: stat.st_ino }
        })
    }

    /// The identity from the result of `stat`.
    pub fn from_metadata(meta: &Metadata) -> Self {
        if meta.file_type().is_char_device() {
            Self { dev: meta.rdev(), ino: 0 }
        } else {
            Self { dev: meta.dev(), ino: meta.ino() }
        }
    }
}

/// The properties of a file that can be a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub identity: Identity,
    pub size: u64,
    pub kind: Kind,
    /// Size of its memory pages; windows begin and end on a page boundary.
    pub page_size: u64,
}

impl Facts {
    /// Refuses files that cannot be pools.
    pub fn of(file: &File, path: &Path) -> Result<Self, PoolError> {
        let io = |action| move |source| PoolError::Io { pool: path.to_owned(), action, source };
        let meta = file.metadata().map_err(io("read its size"))?;
        let identity = Identity::from_metadata(&meta);
        let facts = if meta.file_type().is_char_device() {
            let DaxDevice { size, align } = DaxDevice::find(Path::new("/sys"), meta.rdev())
                .map_err(io("read its size and alignment"))?
                .ok_or_else(|| wrong_type(path, "a character device"))?;
            Self { identity, size, kind: Kind::Devdax, page_size: align }
        } else if let Some(found) = not_a_file(&meta) {
            return Err(wrong_type(path, found));
        } else {
            let (kind, page_size) = kind_of(file, path)?;
            Self { identity, size: meta.len(), kind, page_size }
        };
        facts.check_size(path)
    }

    /// The unit of a window's offset and length, in bytes.
    pub fn unit(&self) -> u64 {
        self.page_size.max(ALIGNMENT)
    }

    fn check_size(self, path: &Path) -> Result<Self, PoolError> {
        if self.size < MIN_SIZE || !self.size.is_multiple_of(ALIGNMENT) {
            return Err(PoolError::Size { pool: path.to_owned(), found: Bytes(self.size) });
        }
        Ok(self)
    }
}

fn wrong_type(path: &Path, found: &'static str) -> PoolError {
    PoolError::Type { pool: path.to_owned(), found }
}

fn not_a_file(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_block_device() {
        Some("a block device")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else {
        Some("a socket or another special file")
    }
}

/// The kind of a regular file, and the size of its pages in bytes.
pub(super) fn kind_of(file: &File, path: &Path) -> Result<(Kind, u64), PoolError> {
    let stat = rustix::fs::fstatfs(file).map_err(|errno| PoolError::Io {
        pool: path.to_owned(),
        action: "find its file system",
        source: errno.into(),
    })?;
    let base = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
    Ok(match stat.f_type {
        libc::TMPFS_MAGIC if is_memfd(file) => (Kind::Memfd, base),
        libc::TMPFS_MAGIC => (Kind::Tmpfs, base),
        // The block size of hugetlbfs is the size of its pages.
        libc::HUGETLBFS_MAGIC => {
            (Kind::Hugetlbfs, u64::try_from(stat.f_bsize).unwrap_or(ALIGNMENT))
        }
        _ => (Kind::File, base),
    })
}

/// The kind of pool that a new file `path` would be; the directory for this user's pools need not
/// exist yet.
pub fn kind_for(path: &Path) -> Result<Kind, PoolError> {
    let mut directory = parent::of(path);
    if is_own_directory(directory) && !directory.exists() {
        directory = parent::of(directory);
    }
    let file = File::open(directory).map_err(|source| PoolError::Io {
        pool: path.to_owned(),
        action: "open its directory",
        source,
    })?;
    kind_of(&file, path).map(|(kind, _)| kind)
}

/// The kernel names a memfd `/memfd:NAME (deleted)`.
pub(super) fn is_memfd(fd: impl AsFd) -> bool {
    name_of(fd).as_os_str().as_encoded_bytes().starts_with(b"/memfd:")
}

/// The kernel's name for an open file.
pub(super) fn name_of(fd: impl AsFd) -> PathBuf {
    let number = fd.as_fd().as_raw_fd();
    fs::read_link(format!("/proc/self/fd/{number}"))
        .unwrap_or_else(|_| PathBuf::from(format!("descriptor {number}")))
}

/// A device-dax device as described by sysfs (Documentation/ABI/testing/sysfs-bus-dax).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DaxDevice {
    size: u64,
    align: u64,
}

impl DaxDevice {
    /// Finds the device with a device number; `None` if it is not a device-dax device.
    fn find(sysfs: &Path, rdev: u64) -> io::Result<Option<Self>> {
        let device = sysfs.join(format!("dev/char/{}:{}", major(rdev), minor(rdev)));
        let subsystem = fs::canonicalize(device.join("subsystem"));
        if !subsystem.is_ok_and(|path| path.ends_with("bus/dax")) {
            return Ok(None);
        }
        let number = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(device.join(name))?;
            text.trim().parse().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{name} is {:?}, expected a number", text.trim()),
                )
            })
        };
        Ok(Some(Self { size: number("size")?, align: number("align")? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with one device, in the layout of Linux 7.3.
    fn sysfs(subsystem: &str, align: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (bus, device) = (dir.path().join(subsystem), dir.path().join("devices/dax0.0"));
        for path in [&bus, &device, &dir.path().join("dev/char")] {
            fs::create_dir_all(path).unwrap();
        }
        symlink(&bus, device.join("subsystem")).unwrap();
        symlink(&device, dir.path().join("dev/char/251:3")).unwrap();
        fs::write(device.join("size"), "17177772032\n").unwrap();
        fs::write(device.join("align"), align).unwrap();
        dir
    }

    #[test]
    fn reads_size_and_alignment_of_a_dax_device() {
        let dir = sysfs("bus/dax", "1073741824\n");
        let rdev = rustix::fs::makedev(251, 3);
        let found = DaxDevice::find(dir.path(), rdev).unwrap().unwrap();
        assert_eq!(found, DaxDevice { size: 17_177_772_032, align: 1 << 30 });
        let facts = Facts {
            identity: Identity { dev: rdev, ino: 0 },
            size: found.size,
            kind: Kind::Devdax,
            page_size: found.align,
        };
        assert_eq!(facts.unit(), 1 << 30);
    }

    #[test]
    fn other_character_devices_are_not_pools() {
        let dir = sysfs("class/mem", "0\n");
        let rdev = rustix::fs::makedev(251, 3);
        assert_eq!(DaxDevice::find(dir.path(), rdev).unwrap(), None);
        assert_eq!(DaxDevice::find(dir.path(), rustix::fs::makedev(1, 3)).unwrap(), None);
        let dir = sysfs("bus/dax", "large\n");
        assert!(DaxDevice::find(dir.path(), rdev).unwrap_err().to_string().contains("large"));
    }
}
