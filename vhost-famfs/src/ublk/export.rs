// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device shows: an image, an image with an overlay, or a pool.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use famfs::view::View;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::base::{Base, BaseError};
use super::overlay::{self, BaseIdentity, Overlay, OverlayError, SECTOR, Storage};
use crate::pool::{Pool, PoolError};

/// Identifies the boot, and changes with each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Between two tries to lock an overlay that a dying server still holds.
const LOCK_TICK: Duration = Duration::from_millis(20);

/// What a device is to show, as the user names it. Kept for `recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Source {
    /// An image.
    Image {
        /// The image, absolute.
        image: PathBuf,
        /// Where changes go.
        changes: Changes,
    },
    /// What guests see of a pool.
    Pool {
        /// The pool, absolute.
        pool: PathBuf,
        /// No writes.
        read_only: bool,
    },
}

/// Where changes to an image go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changes {
    /// There are none: the device is read-only.
    None,
    /// Into this overlay file, absolute, which is made if it is not there.
    Overlay(PathBuf),
    /// The device is read-only and shows what is in this overlay file.
    Frozen(PathBuf),
    /// Into a file without a name in this directory, which is gone when the device is.
    Ephemeral(PathBuf),
}

/// Why something cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image is not usable.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The pool is not usable.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The overlay is not usable.
    #[error("overlay {}", .path.display())]
    Overlay {
        /// The overlay.
        path: PathBuf,
        /// Why.
        #[source]
        source: OverlayError,
    },
    /// Another device has it.
    #[error(
        "overlay {path}: busy, another device writes to it (`vhost-famfs ublk list` names it); \
         an overlay serves one device", path = .0.display()
    )]
    Busy(PathBuf),
    /// A read-only device makes no overlay.
    #[error("overlay {}: no such file, and a read-only device does not make one", .0.display())]
    Missing(PathBuf),
    /// A system call on the overlay failed.
    #[error("overlay {}: cannot {action} it", .path.display())]
    Io {
        /// The overlay, or the directory of an ephemeral one.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pool's info block is damaged.
    #[error("pool {}: cannot tell its view", .pool.display())]
    View {
        /// The pool.
        pool: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No read(2) or write(2) there.
    #[error(
        "pool {}: is {kind}, which has no write(2); a pool in tmpfs or in a file can be exported",
        .pool.display()
    )]
    PoolKind {
        /// The pool.
        pool: PathBuf,
        /// Its kind.
        kind: &'static str,
    },
    /// The kernel does not tell which boot this is.
    #[error("cannot read the boot's identity from {BOOT_ID}")]
    Boot(#[source] io::Error),
}

/// What serves the requests of a device.
#[derive(Debug)]
pub enum Export {
    /// An image alone.
    Image(Base),
    /// An image below an overlay.
    Overlaid(Base, Overlay<File>),
    /// A pool, from the byte on where its view begins.
    Pool(Pool, u64),
}

impl Source {
    /// Opens it. A lock that a dying server still holds is waited for until `patience` is over;
    /// `progress` is told how much of an image was read to check it, and how much there is.
    pub fn open(
        &self,
        patience: Duration,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Export, ExportError> {
        match self {
            Self::Pool { pool, .. } => open_pool(pool),
            Self::Image { image, changes } => {
                let base = Base::open(image)?;
                let overlay = match changes {
                    Changes::None => return Ok(Export::Image(base)),
                    Changes::Ephemeral(dir) => open_ephemeral(dir, base.size())?,
                    Changes::Overlay(path) => open_overlay(path, &base, true, patience, progress)?,
                    Changes::Frozen(path) => open_overlay(path, &base, false, patience, progress)?,
                };
                Ok(Export::Overlaid(base, overlay))
            }
        }
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Image { changes, .. } => matches!(changes, Changes::None | Changes::Frozen(_)),
            Self::Pool { read_only, .. } => *read_only,
        }
    }

    /// Whether another process can take over where one was killed.
    pub fn is_recoverable(&self) -> bool {
        !matches!(self, Self::Image { changes: Changes::Ephemeral(_), .. })
    }
}

fn open_pool(path: &Path) -> Result<Export, ExportError> {
    let pool = Pool::open(path)?;
    if !pool.kind().has_write() {
        return Err(ExportError::PoolKind { pool: path.to_owned(), kind: pool.kind().name() });
    }
    let view = View::detect(pool.file(), pool.size())
        .map_err(|err| ExportError::View { pool: path.to_owned(), source: Box::new(err) })?;
    Ok(Export::Pool(pool, view.data_offset()))
}

fn open_ephemeral(dir: &Path, size: u64) -> Result<Overlay<File>, ExportError> {
    let io = |action| move |source| ExportError::Io { path: dir.to_owned(), action, source };
    let unnamed = OFlags::TMPFILE.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).mode(0o600).custom_flags(unnamed).open(dir);
    let file = file.map_err(io("make a file without a name in"))?;
    file.set_len(overlay::file_len(size)).map_err(io("set the size of a file in"))?;
    Ok(Overlay::ephemeral(file, size))
}

fn open_overlay(
    path: &Path,
    base: &Base,
    writable: bool,
    patience: Duration,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Overlay<File>, ExportError> {
    let io = |action| move |source| ExportError::Io { path: path.to_owned(), action, source };
    let refused = |source| ExportError::Overlay { path: path.to_owned(), source };
    let boot = boot()?;
    match OpenOptions::new().read(true).write(writable).open(path) {
        Ok(file) => {
            lock(&file, path, writable, patience)?;
            let len = file.metadata().map_err(io("look at"))?.len();
            let header = overlay::read_header(&file, len).map_err(refused)?;
            // The size first: it costs nothing.
            let known = BaseIdentity { size: base.size(), ..header.base() };
            overlay::check_base(&header, known).map_err(refused)?;
            overlay::check_base(&header, base.identity(progress)?).map_err(refused)?;
            Overlay::open(file, base.size(), boot, writable).map_err(refused)
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound && writable => {
            let identity = base.identity(progress)?;
            create(path, identity, boot)
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            Err(ExportError::Missing(path.to_owned()))
        }
        Err(err) => Err(io("open")(err)),
    }
}

/// Makes a new overlay; nothing is left of it if that fails.
fn create(path: &Path, base: BaseIdentity, boot: Uuid) -> Result<Overlay<File>, ExportError> {
    let io = |action| move |source| ExportError::Io { path: path.to_owned(), action, source };
    let refused = |source| ExportError::Overlay { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(io("make"))?;
    let fill = |file: File| {
        lock(&file, path, true, Duration::ZERO)?;
        file.set_len(overlay::file_len(base.size)).map_err(io("set the size of"))?;
        overlay::format(&file, base, Uuid::new_v4()).map_err(refused)?;
        sync_directory(path).map_err(io("make its name durable, sync the directory of"))?;
        Overlay::open(file, base.size, boot, true).map_err(refused)
    };
    fill(file).inspect_err(|_| {
        // What failed is worth telling, not that this did too.
        let _ = std::fs::remove_file(path);
    })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn lock(file: &File, path: &Path, alone: bool, patience: Duration) -> Result<(), ExportError> {
    let operation = if alone {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    let end = Instant::now() + patience;
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < end => thread::sleep(LOCK_TICK),
            Err(Errno::WOULDBLOCK) => return Err(ExportError::Busy(path.to_owned())),
            Err(errno) => {
                let path = path.to_owned();
                return Err(ExportError::Io { path, action: "lock", source: errno.into() });
            }
        }
    }
}

fn boot() -> Result<Uuid, ExportError> {
    let text = std::fs::read_to_string(BOOT_ID).map_err(ExportError::Boot)?;
    Uuid::try_parse(text.trim()).map_err(|err| ExportError::Boot(io::Error::other(err)))
}

impl Export {
    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        match self {
            Self::Image(base) | Self::Overlaid(base, _) => base.size(),
            Self::Pool(pool, origin) => pool.size() - origin,
        }
    }

    /// Fills `buf` from the device's byte `offset` on.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Image(base) => base.read_at(offset, buf),
            Self::Overlaid(base, overlay) => {
                overlay.read(offset, buf, |offset, part| base.read_at(offset, part))
            }
            Self::Pool(pool, origin) => pool.file().read_exact_at(buf, origin + offset),
        }
    }

    /// Writes `buf` to the device's byte `offset`.
    pub fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        match self {
            Self::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Self::Overlaid(_, overlay) => overlay.write(offset, buf),
            Self::Pool(pool, origin) => {
                self.check(offset, buf.len() as u64)?;
                pool.file().write_all_at(buf, origin + offset)
            }
        }
    }

    /// Makes a range read as zeros; `keep_space` asks that later writes to it find their space.
    pub fn write_zeros(&self, offset: u64, len: u64, keep_space: bool) -> io::Result<()> {
        match self {
            Self::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Self::Overlaid(_, overlay) => overlay.write_zeros(offset, len, keep_space),
            Self::Pool(pool, origin) => {
                self.check(offset, len)?;
                // Guests may have the pages mapped: they stay where they are.
                pool.file().zero(origin + offset, len)
            }
        }
    }

    /// Takes the hint that a range is not needed any more. A pool keeps its memory.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Image(_) | Self::Pool(..) => Ok(()),
            Self::Overlaid(_, overlay) => overlay.discard(offset, len),
        }
    }

    /// Returns when everything written before lasts.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Self::Image(_) => Ok(()),
            Self::Overlaid(_, overlay) => overlay.commit(),
            Self::Pool(pool, _) => pool.sync(),
        }
    }

    /// The kernel keeps to the device's size; a pool must not grow if it ever did not.
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= self.size());
        let whole = offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR);
        if end.is_none() || !whole {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self { dir: tempfile::tempdir().unwrap() };
            fs::write(files.image(), vec![5; 1 << 20]).unwrap();
            files
        }

        fn image(&self) -> PathBuf {
            self.dir.path().join("image")
        }

        fn overlay(&self) -> PathBuf {
            self.dir.path().join("overlay")
        }

        fn open(&self, changes: Changes) -> Result<Export, ExportError> {
            let source = Source::Image { image: self.image(), changes };
            source.open(Duration::ZERO, &mut |_, _| {})
        }

        fn changed(&self) -> Result<Export, ExportError> {
            self.open(Changes::Overlay(self.overlay()))
        }
    }

    fn byte(export: &Export, offset: u64) -> u8 {
        let mut buf = [0; 512];
        export.read(offset, &mut buf).unwrap();
        buf[0]
    }

    #[test]
    fn changes_are_in_the_overlay_and_the_image_stays() {
        let files = Files::new();
        let export = files.changed().unwrap();
        assert_eq!(export.size(), 1 << 20);
        export.write(4096, &[6; 1024]).unwrap();
        export.write_zeros(8192, 512, false).unwrap();
        export.flush().unwrap();
        drop(export);
        for changes in [Changes::Overlay(files.overlay()), Changes::Frozen(files.overlay())] {
            let again = files.open(changes).unwrap();
            assert_eq!([0, 4096, 4608, 5120, 8192].map(|at| byte(&again, at)), [5, 6, 6, 5, 0]);
        }
        assert!(fs::read(files.image()).unwrap().iter().all(|byte| *byte == 5));
        let space = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(files.overlay()).unwrap());
        assert!(space * 512 < 128 << 10, "{space} blocks for two changes");
    }

    #[test]
    fn a_frozen_overlay_is_read_and_never_written() {
        let files = Files::new();
        let export = files.changed().unwrap();
        export.write(512, &[6; 512]).unwrap();
        // As after a kill: nothing was flushed.
        drop(export);
        let before = fs::read(files.overlay()).unwrap();
        let frozen = files.open(Changes::Frozen(files.overlay())).unwrap();
        assert_eq!((byte(&frozen, 0), byte(&frozen, 512)), (5, 6));
        frozen.flush().unwrap();
        assert!(frozen.write(0, &[7; 512]).is_err());
        assert_eq!(fs::read(files.overlay()).unwrap(), before);
    }

    #[test]
    fn an_ephemeral_device_leaves_nothing() {
        let files = Files::new();
        let export = files.open(Changes::Ephemeral(files.dir.path().to_owned())).unwrap();
        export.write(512, &[6; 512]).unwrap();
        export.flush().unwrap();
        assert_eq!((byte(&export, 0), byte(&export, 512)), (5, 6));
        assert_eq!(fs::read_dir(files.dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_overlay_serves_one_device() {
        let files = Files::new();
        let _first = files.changed().unwrap();
        assert!(matches!(files.changed(), Err(ExportError::Busy(_))));
        assert!(matches!(files.open(Changes::Frozen(files.overlay())), Err(ExportError::Busy(_))));
    }

    #[test]
    fn an_overlay_of_another_image_is_refused() {
        let files = Files::new();
        drop(files.changed().unwrap());
        let refusal = || {
            let err = files.changed().unwrap_err();
            std::error::Error::source(&err).unwrap().to_string()
        };
        fs::write(files.image(), vec![4; 1 << 20]).unwrap();
        assert!(refusal().contains("another base: to one with SHA-256 "), "{}", refusal());
        fs::write(files.image(), vec![5; 512 << 10]).unwrap();
        assert!(refusal().contains("one of 1048576 bytes, the image has 524288"), "{}", refusal());
        fs::write(files.image(), vec![5; 1 << 20]).unwrap();
        assert!(files.changed().is_ok());
    }

    #[test]
    fn what_is_no_overlay_is_refused_and_left_alone() {
        let files = Files::new();
        for contents in [vec![], vec![0; 1 << 20], vec![1; 1 << 20]] {
            fs::write(files.overlay(), &contents).unwrap();
            assert!(matches!(files.changed(), Err(ExportError::Overlay { .. })));
            assert_eq!(fs::read(files.overlay()).unwrap(), contents);
        }
        fs::remove_file(files.overlay()).unwrap();
        let frozen = files.open(Changes::Frozen(files.overlay()));
        assert!(matches!(frozen, Err(ExportError::Missing(_))));
        assert!(!files.overlay().exists());
    }

    #[test]
    fn a_file_that_cannot_be_made_is_not_left() {
        let files = Files::new();
        let overlay = files.dir.path().join("no/overlay");
        let err = files.open(Changes::Overlay(overlay)).unwrap_err();
        assert!(matches!(err, ExportError::Io { action: "make", .. }), "{err}");
    }

    #[test]
    fn a_pool_is_shown_from_where_its_view_begins() {
        let dir = tempfile::tempdir().unwrap();
        let pool = dir.path().join("pool");
        fs::write(&pool, vec![1; 16 << 20]).unwrap();
        let source = Source::Pool { pool: pool.clone(), read_only: false };
        let export = source.open(Duration::ZERO, &mut |_, _| {}).unwrap();
        assert_eq!(export.size(), 16 << 20);
        export.write(512, &[2; 512]).unwrap();
        export.write_zeros(1024, 512, false).unwrap();
        assert!(export.write(16 << 20, &[2; 512]).is_err());
        assert!(export.write_zeros(0, u64::MAX, false).is_err());
        export.flush().unwrap();
        assert_eq!([0, 512, 1024].map(|at| byte(&export, at)), [1, 2, 0]);
        assert_eq!(fs::metadata(&pool).unwrap().len(), 16 << 20);
    }
}
