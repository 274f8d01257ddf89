// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Creates a pool: completely or not at all, and never over an existing file.
//!
//! The file has no name (O_TMPFILE) until it is complete, and linking it never replaces an existing
//! file. If the program ends before that, the kernel frees the file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use famfs::format::view::{INFO_BLOCK_OFFSET, InfoBlock, View, ViewError};
use famfs::media::Media;
use famfs::store::mkfs::{self, MkfsError};
use famfs::store::role;
use famfs::store::superblock::default_log_len;
use famfs::system::parent;
use famfs::text::units::{About, Bytes};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;
use zerocopy::IntoBytes;

use super::allocation::{self, MemoryError, Progress};
use super::bytes::{PoolBytes, PoolMedia};
use super::kind::{Facts, kind_of};
use super::{ALIGNMENT, Kind, MIN_SIZE, PoolError, PoolReport, inspect, own};

/// How often to create the directory for this user's pools, if others keep removing it.
const ATTEMPTS: u32 = 8;

/// What pool to create.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Path of the new file.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Size of the file, if it has room for the file system to grow into: more than `size`.
    pub max: Option<u64>,
    /// Which device guests will see.
    pub view: View,
    /// Identity of the devdax info block; random if `None`. Not used in the raw view.
    pub uuid: Option<Uuid>,
    /// Whether to create an empty famfs in it.
    pub mkfs: bool,
    /// NUMA node for its memory.
    pub numa: Option<u32>,
    /// Whether to allocate all memory now.
    pub prefault: bool,
    /// Whether its directory is the one for this user's pools, to be created if missing.
    pub own: bool,
}

impl CreateOptions {
    /// Options for a pool with default settings.
    pub fn new(path: PathBuf, size: u64, view: View) -> Self {
        Self {
            path,
            size,
            max: None,
            view,
            uuid: None,
            mkfs: false,
            numa: None,
            prefault: false,
            own: false,
        }
    }

    /// Size of the file in bytes.
    pub fn file_size(&self) -> u64 {
        self.max.unwrap_or(self.size)
    }
}

/// Why no pool was created. Nothing is left behind, except with [`CreateError::Pool`].
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The size is not one that a guest can map.
    #[error("{found}: a pool needs at least 16 MiB, in steps of {unit}; did you mean {near}?")]
    Size {
        /// The requested size.
        found: Bytes,
        /// What it must be a multiple of: 2 MiB, or the size of its pages.
        unit: Bytes,
        /// The nearest valid size.
        near: Bytes,
    },
    /// The room is not more than what the pool has at first.
    #[error("--max {max}: expected more than --size {size}")]
    Max {
        /// The requested size of the file.
        max: Bytes,
        /// The requested size.
        size: Bytes,
    },
    /// Huge pages are reserved for all that is mapped.
    #[error(
        "pool {}: --max: a pool in huge pages cannot have room to grow, because the kernel reserves \
         pages for all of it when a VM maps it; use a directory in tmpfs, or leave out --max", .0.display()
    )]
    NoRoom(PathBuf),
    /// The path already exists.
    #[error("pool {}: exists already, and is not replaced; remove it first if its data is no \
             longer needed", .0.display())]
    Exists(PathBuf),
    /// The directory does not exist.
    #[error("pool {}: the directory {} does not exist", .pool.display(), .directory.display())]
    NoDirectory {
        /// The pool.
        pool: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The user may not write to the directory.
    #[error("pool {}: no permission to create a file in {}", .pool.display(), .directory.display())]
    Permission {
        /// The pool.
        pool: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The directory for this user's pools cannot be used.
    #[error(transparent)]
    Directory(PoolError),
    /// The file system does not support files without a name.
    #[error(
        "pool {}: the file system of {} does not support unnamed files (O_TMPFILE); use a \
         directory in tmpfs, ext4, xfs or btrfs", .pool.display(), .directory.display()
    )]
    NoTmpfile {
        /// The pool.
        pool: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The file system has too little free space.
    #[error("pool {}: needs {needed}, but {} has only {} free", .pool.display(), .directory.display(), About(*.free))]
    Space {
        /// The pool.
        pool: PathBuf,
        /// Its directory.
        directory: PathBuf,
        /// Size of the pool.
        needed: Bytes,
        /// Free bytes of the file system.
        free: u64,
    },
    /// The info block cannot be created.
    #[error("pool {}: cannot create the devdax view", .pool.display())]
    View {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: ViewError,
    },
    /// The memory cannot be allocated.
    #[error("pool {}", .pool.display())]
    Memory {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: MemoryError,
    },
    /// The famfs cannot be created.
    #[error("pool {}: cannot make a famfs", .pool.display())]
    Mkfs {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: MkfsError,
    },
    /// This system has no identity that could become the famfs's master.
    #[error("pool {}: cannot make a famfs", .pool.display())]
    Role {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: role::RoleError,
    },
    /// A system call failed.
    #[error("pool {}: cannot {action}", .pool.display())]
    Io {
        /// The pool.
        pool: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pool was created, but cannot be read back.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Creates a pool; calls `progress` while memory is allocated.
///
/// On disk its blocks are reserved, and in hugetlbfs its pages, so that no store of a guest can hit
/// a full file system (which would end the VM with SIGBUS). In tmpfs, memory is allocated when it
/// is first touched, unless `prefault` is set. Whether there is enough memory is checked now, but
/// not guaranteed for later.
pub fn create(options: &CreateOptions, progress: Progress<'_>) -> Result<PoolReport, CreateError> {
    let maker = Maker::new(options);
    maker.make_directory()?;
    let made = make(&maker, options, progress);
    if made.is_err() && options.own {
        own::tidy_own_directory(maker.directory);
    }
    made
}

fn make(
    maker: &Maker<'_>,
    options: &CreateOptions,
    progress: Progress<'_>,
) -> Result<PoolReport, CreateError> {
    let path = &options.path;
    let (file, kind, page_size) = maker.open(options)?;
    maker.allocate(&file, kind, page_size, options, progress)?;
    let facts = Facts::of(&file, path)?;
    if options.view == View::Devdax {
        let block =
            InfoBlock::build(options.file_size(), options.uuid.unwrap_or_else(Uuid::new_v4))
                .map_err(|source| CreateError::View { pool: path.clone(), source })?;
        PoolBytes { file: &file, facts }
            .write(INFO_BLOCK_OFFSET, block.as_bytes())
            .map_err(|source| maker.io("write the devdax info block", source))?;
    }
    if options.mkfs {
        let media = PoolMedia::new(&file, facts, path, options.view);
        maker.mkfs(&media, options.size - media.origin())?;
    }
    file.sync_all().map_err(|source| maker.io("sync it", source))?;
    maker.link(&file)?;
    Ok(inspect(path)?)
}

/// Checks whether [`create`] would have enough room, without creating anything.
pub fn check_room(options: &CreateOptions) -> Result<(), CreateError> {
    let mut maker = Maker::new(options);
    if options.own && !own::check_own_directory(maker.directory).map_err(CreateError::Directory)? {
        // The pool will be in the file system of the parent directory.
        maker.directory = parent::of(maker.directory);
    }
    let (file, kind, page_size) = maker.open(options)?;
    maker.check_room(&file, kind, page_size, options)
}

/// The default length of the log for all that the file system can become, or for what it is at
/// first if that is less than 16 times such a log.
fn log_len(len: u64, device_len: u64) -> u64 {
    let most = 1 << (len / 16).max(1).ilog2();
    default_log_len(device_len).min(most).max(default_log_len(len))
}

fn check_size(size: u64, unit: u64) -> Result<(), CreateError> {
    if size >= MIN_SIZE && size.is_multiple_of(unit) {
        return Ok(());
    }
    let least = MIN_SIZE.next_multiple_of(unit);
    let near = size.checked_next_multiple_of(unit).unwrap_or(least).max(least);
    Err(CreateError::Size { found: Bytes(size), unit: Bytes(unit), near: Bytes(near) })
}

struct Maker<'a> {
    path: &'a Path,
    directory: &'a Path,
    size: u64,
    own: bool,
}

impl<'a> Maker<'a> {
    fn new(options: &'a CreateOptions) -> Self {
        let path = options.path.as_path();
        Self { path, directory: parent::of(path), size: options.size, own: options.own }
    }

    fn make_directory(&self) -> Result<(), CreateError> {
        if self.own {
            own::make_own_directory(self.directory).map_err(CreateError::Directory)?;
        }
        Ok(())
    }

    /// Opens a file without a name; returns it with its kind and page size.
    fn open(&self, options: &CreateOptions) -> Result<(File, Kind, u64), CreateError> {
        check_size(options.size, ALIGNMENT)?;
        let file = self.open_unnamed()?;
        let (kind, page_size) = kind_of(&file, self.path)?;
        check_size(options.size, page_size.max(ALIGNMENT))?;
        if let Some(max) = options.max {
            check_size(max, page_size.max(ALIGNMENT))?;
            if max <= options.size {
                return Err(CreateError::Max { max: Bytes(max), size: Bytes(options.size) });
            }
            if kind == Kind::Hugetlbfs {
                return Err(CreateError::NoRoom(self.path.to_owned()));
            }
        }
        Ok((file, kind, page_size))
    }

    fn open_unnamed(&self) -> Result<File, CreateError> {
        // The link below is what decides; this check saves work and gives a better message.
        if self.path.symlink_metadata().is_ok() {
            return Err(CreateError::Exists(self.path.to_owned()));
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (pool, directory) = (self.path.to_owned(), self.directory.to_owned());
        match rustix::fs::open(self.directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(CreateError::NoDirectory { pool, directory }),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                Err(CreateError::Permission { pool, directory })
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Err(CreateError::NoTmpfile { pool, directory }),
            Err(errno) => Err(self.io("create it", errno.into())),
        }
    }

    /// Gives the file its size and, if its kind or the options require it, its memory.
    fn allocate(
        &self,
        file: &File,
        kind: Kind,
        page_size: u64,
        options: &CreateOptions,
        progress: Progress<'_>,
    ) -> Result<(), CreateError> {
        let memory = |source| CreateError::Memory { pool: self.path.to_owned(), source };
        self.check_room(file, kind, page_size, options)?;
        if kind != Kind::File || options.max.is_some() {
            file.set_len(options.file_size()).map_err(|source| self.io("set its size", source))?;
        }
        if let Some(node) = options.numa {
            allocation::bind(file, options.file_size(), node).map_err(memory)?;
        }
        if options.prefault || matches!(kind, Kind::File | Kind::Hugetlbfs) {
            allocation::take(file, page_size, 0, self.size, progress).map_err(
                |errno| match errno {
                    Errno::NOSPC | Errno::DQUOT => self.no_space(file),
                    errno => self.io("allocate its memory or storage", errno.into()),
                },
            )?;
        }
        Ok(())
    }

    /// Checks whether the memory or storage that the options require is available.
    fn check_room(
        &self,
        file: &File,
        kind: Kind,
        page_size: u64,
        options: &CreateOptions,
    ) -> Result<(), CreateError> {
        let memory = |source| CreateError::Memory { pool: self.path.to_owned(), source };
        if let Some(node) = options.numa {
            allocation::check_node(kind, node).map_err(memory)?;
        }
        self.check_space(file)?;
        if kind == Kind::Hugetlbfs || (options.prefault && kind != Kind::File) {
            allocation::check_free(kind, page_size, self.size, options.numa).map_err(memory)?;
        }
        Ok(())
    }

    fn check_space(&self, file: &File) -> Result<(), CreateError> {
        let free = allocation::free_space(file)
            .map_err(|errno| self.io("determine the free space", errno.into()))?;
        if free.is_some_and(|free| free < self.size) {
            return Err(self.no_space(file));
        }
        Ok(())
    }

    fn no_space(&self, file: &File) -> CreateError {
        let free = allocation::free_space(file).ok().flatten().unwrap_or(0);
        CreateError::Space {
            pool: self.path.to_owned(),
            directory: self.directory.to_owned(),
            needed: Bytes(self.size),
            free,
        }
    }

    /// Makes a file system in the first `len` bytes of the device.
    fn mkfs(&self, media: &PoolMedia<'_>, len: u64) -> Result<(), CreateError> {
        let pool = || self.path.to_owned();
        // Creating the pool does not make the host the master; the guest whose system UUID this is
        // becomes the master.
        let system = role::known_system_uuid()
            .map_err(|source| CreateError::Role { pool: pool(), source })?;
        let options = mkfs::Options {
            log_len: Some(log_len(len, media.len())),
            extensions: true,
            force: false,
            fs_uuid: Uuid::new_v4(),
            dev_uuid: Uuid::new_v4(),
            system_uuid: system.unwrap_or_else(Uuid::new_v4),
            dev_name: self.path.display().to_string(),
        };
        mkfs::mkfs_within(media, &options, len)
            .map_err(|source| CreateError::Mkfs { pool: pool(), source })?;
        Ok(())
    }

    fn link(&self, file: &File) -> Result<(), CreateError> {
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = || rustix::fs::linkat(CWD, &unnamed, CWD, self.path, AtFlags::SYMLINK_FOLLOW);
        let mut linked = link();
        // Whoever removed the last pool may also have removed the directory.
        for _ in 0..ATTEMPTS {
            if !self.own || linked != Err(Errno::NOENT) {
                break;
            }
            self.make_directory()?;
            linked = link();
        }
        match linked {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(CreateError::Exists(self.path.to_owned())),
            Err(errno) => Err(self.io("give it its name", errno.into())),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> CreateError {
        CreateError::Io { pool: self.path.to_owned(), action, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: PathBuf, view: View) -> CreateOptions {
        CreateOptions::new(path, 16 << 20, view)
    }

    fn make(options: &CreateOptions) -> Result<PoolReport, CreateError> {
        create(options, &mut |_, _| ())
    }

    #[test]
    fn makes_both_views() {
        let dir = tempfile::tempdir().unwrap();
        for view in [View::Devdax, View::Raw] {
            let report = make(&options(dir.path().join(view.name()), view)).unwrap();
            assert_eq!(report.view, view.name());
            assert_eq!(report.size, 16 << 20);
        }
    }

    #[test]
    fn never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        std::fs::write(&path, "precious").unwrap();
        let err = make(&options(path.clone(), View::Raw)).unwrap_err();
        assert!(matches!(err, CreateError::Exists(_)), "{err}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn leaves_nothing_behind_on_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        let result = make(&CreateOptions { size: 1 << 62, ..options(path, View::Raw) });
        assert!(matches!(result, Err(CreateError::Space { .. })), "{result:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn proposes_a_size_that_works() {
        for (size, near) in [(0, 16), (1, 16), (15 << 20, 16), ((17 << 20) + 1, 18)] {
            let Err(CreateError::Size { near: found, .. }) = check_size(size, ALIGNMENT) else {
                panic!("{size} was accepted")
            };
            assert_eq!(found, Bytes(near << 20));
        }
    }

    #[test]
    fn can_hold_a_famfs_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for view in [View::Devdax, View::Raw] {
            let options = options(dir.path().join(view.name()), view);
            let report = make(&CreateOptions { mkfs: true, ..options }).unwrap();
            let famfs = report.famfs.unwrap();
            assert_eq!((famfs.files, famfs.problem), (0, None));
        }
    }

    #[test]
    fn takes_all_memory_if_asked_to() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let options = CreateOptions {
            size: 130 << 20,
            prefault: true,
            numa: Some(0),
            ..options(dir.path().join("pool"), View::Devdax)
        };
        let mut steps = Vec::new();
        let report = create(&options, &mut |done, all| steps.push((done, all))).unwrap();
        assert_eq!(report.allocated, 130 << 20);
        let mib = |n: u64| n << 20;
        assert_eq!(steps, [(mib(64), mib(130)), (mib(128), mib(130)), (mib(130), mib(130))]);
    }

    #[test]
    fn memory_that_is_not_there_is_not_taken() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("pool");
        let options = CreateOptions { numa: Some(999), ..options(path.clone(), View::Raw) };
        let err = make(&options).unwrap_err();
        assert!(
            matches!(err, CreateError::Memory { source: MemoryError::Node { .. }, .. }),
            "{err}"
        );
        assert!(!path.exists());
    }
}
