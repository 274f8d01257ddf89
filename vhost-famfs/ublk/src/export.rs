// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device shows, with its files open: an image, an image with an overlay, or a pool.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use famfs::format::view::View;
use uuid::Uuid;
use vm_memory::VolatileSlice;

use crate::base::{Base, BaseError};
use crate::mapped::Mapped;
use crate::overlay::{Overlay, SECTOR, Side, Storage};
use crate::overlay_file::{self, NewFile, OverlayFileError};
use crate::source::Changes;

/// Why something cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image cannot be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The overlay cannot be used.
    #[error(transparent)]
    Overlay(#[from] OverlayFileError),
    /// The pool's info block is damaged.
    #[error("pool {}: cannot determine its view", .pool.display())]
    View {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Serves the requests of a device.
#[derive(Debug)]
pub enum Export {
    /// An image alone.
    Image(Base),
    /// An image with an overlay.
    Overlaid(Base, Overlay<File>),
    /// A pool.
    Pool {
        /// Its file, which supports read(2) and write(2).
        file: File,
        /// Its size in bytes.
        size: u64,
        /// Offset of the first byte of its view.
        origin: u64,
        /// Its bytes, if they are mapped.
        mapped: Option<Mapped>,
    },
}

/// Where a range of the device is, contiguous in one file.
#[derive(Clone, Copy, Debug)]
pub struct Place<'e> {
    /// The file.
    pub file: BorrowedFd<'e>,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The bytes, if they are mapped.
    pub bytes: Option<VolatileSlice<'e>>,
}

impl<'e> Place<'e> {
    fn new(file: BorrowedFd<'e>, mapped: Option<&'e Mapped>, offset: u64, len: u64) -> Self {
        Self { file, offset, bytes: mapped.and_then(|mapped| mapped.bytes(offset, len)) }
    }
}

/// The result of [`open`].
#[derive(Debug)]
pub struct Opened {
    /// What it is.
    pub export: Export,
    /// The identity of its overlay, if the overlay outlives the device.
    pub overlay: Option<Uuid>,
    /// The overlay, if it was newly created; to be kept once the device exists.
    pub new_overlay: Option<NewFile>,
}

impl From<Export> for Opened {
    /// An export without an overlay that outlives it.
    fn from(export: Export) -> Self {
        Self { export, overlay: None, new_overlay: None }
    }
}

/// Opens an image and its overlay. Waits up to `patience` for a lock that a dying server still
/// holds. Calls `progress` with the number of bytes of the image that were read to check it, and
/// the total.
pub fn open(
    image: &Path,
    changes: &Changes,
    patience: Duration,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Opened, ExportError> {
    let base = Base::open(image)?;
    let (path, writable) = match changes {
        Changes::None => return Ok(Export::Image(base).into()),
        Changes::Ephemeral(dir) => {
            let overlay = overlay_file::open_ephemeral(dir, base.size())?;
            return Ok(Export::Overlaid(base, overlay).into());
        }
        Changes::Overlay(path) => (path, true),
        Changes::Frozen(path) => (path, false),
    };
    let file = overlay_file::open(path, &base, writable, patience, progress)?;
    let export = Export::Overlaid(base, file.overlay);
    Ok(Opened { export, overlay: Some(file.uuid), new_overlay: file.new })
}

impl Export {
    /// The pool `path` of `size` bytes, which is open for reading and writing.
    pub fn pool(path: &Path, file: File, size: u64) -> Result<Self, ExportError> {
        let view = View::detect(&file, size)
            .map_err(|err| ExportError::View { pool: path.to_owned(), source: Box::new(err) })?;
        let mapped = Mapped::of(&file, size);
        Ok(Self::Pool { file, size, origin: view.data_offset(), mapped })
    }

    /// Size of the device in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Image(base) | Self::Overlaid(base, _) => base.size(),
            Self::Pool { size, origin, .. } => size - origin,
        }
    }

    /// Where a range of the device is, if one read of one file gets all of it.
    pub fn place(&self, offset: u64, len: u64) -> Option<Place<'_>> {
        self.check(offset, len).ok()?;
        Some(match self {
            Self::Image(base) => Place::new(base.as_fd(), base.mapped(), offset, len),
            Self::Overlaid(base, overlay) => match overlay.side(offset, len)? {
                Side::Base => Place::new(base.as_fd(), base.mapped(), offset, len),
                // It has holes, or gets them.
                Side::Overlay(offset) => Place::new(overlay.storage().as_fd(), None, offset, len),
            },
            Self::Pool { file, origin, mapped, .. } => {
                Place::new(file.as_fd(), mapped.as_ref(), origin + offset, len)
            }
        })
    }

    /// Fills `buf` with the data at `offset` of the device.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Image(base) => base.read_at(offset, buf),
            Self::Overlaid(base, overlay) => {
                overlay.read(offset, buf, |offset, part| base.read_at(offset, part))
            }
            Self::Pool { file, origin, .. } => file.read_exact_at(buf, origin + offset),
        }
    }

    /// Writes `buf` to `offset` of the device.
    pub fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        match self {
            Self::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Self::Overlaid(_, overlay) => overlay.write(offset, buf),
            Self::Pool { file, origin, .. } => {
                self.check(offset, buf.len() as u64)?;
                file.write_all_at(buf, origin + offset)
            }
        }
    }

    /// Makes a range read as zeros. With `keep_space`, later writes to it must not lack space.
    pub fn write_zeros(&self, offset: u64, len: u64, keep_space: bool) -> io::Result<()> {
        match self {
            Self::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Self::Overlaid(_, overlay) => overlay.write_zeros(offset, len, keep_space),
            Self::Pool { file, origin, .. } => {
                self.check(offset, len)?;
                // Guests may have mapped the pages, so they stay in place.
                file.zero(origin + offset, len)
            }
        }
    }

    /// Processes the hint that a range is no longer needed. A pool keeps its memory.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Image(_) | Self::Pool { .. } => Ok(()),
            Self::Overlaid(_, overlay) => overlay.discard(offset, len),
        }
    }

    /// Returns once all previous writes are durable.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Self::Image(_) => Ok(()),
            Self::Overlaid(_, overlay) => overlay.commit(),
            // For memory, this writes nothing and returns at once.
            Self::Pool { file, .. } => file.sync_data(),
        }
    }

    /// The kernel already respects the device's size; even if it did not, a pool must not grow.
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
    use crate::test_files::Files;
    use std::fs;

    impl Files {
        fn export(&self, changes: Changes) -> Result<Export, ExportError> {
            let opened = open(&self.image(), &changes, Duration::ZERO, &mut |_, _| {})?;
            if let Some(new) = opened.new_overlay {
                new.keep();
            }
            Ok(opened.export)
        }

        fn changed(&self) -> Result<Export, ExportError> {
            self.export(Changes::Overlay(self.overlay()))
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
            let again = files.export(changes).unwrap();
            assert_eq!([0, 4096, 4608, 5120, 8192].map(|at| byte(&again, at)), [5, 6, 6, 5, 0]);
        }
        assert!(fs::read(files.image()).unwrap().iter().all(|byte| *byte == 5));
        let space = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(files.overlay()).unwrap());
        assert!(space * 512 < 128 << 10, "{space} blocks for two changes");
    }

    #[test]
    fn what_is_in_one_piece_has_a_place() {
        let files = Files::new();
        let export = files.changed().unwrap();
        export.write(4096, &[6; 1024]).unwrap();
        let byte = |offset, len| {
            let place = export.place(offset, len)?;
            let mut byte = [0];
            rustix::io::pread(place.file, &mut byte, place.offset).unwrap();
            Some(byte[0])
        };
        assert_eq!(byte(0, 4096), Some(5));
        assert_eq!(byte(4096, 1024), Some(6));
        assert_eq!(byte(4096, 1536), None);
        assert_eq!(byte(0, 8192), None);
        assert_eq!(byte((1 << 20) - 512, 1024), None);
        assert_eq!(byte(u64::MAX - 511, 512), None);
    }

    #[test]
    fn a_frozen_overlay_is_read_and_never_written() {
        let files = Files::new();
        let export = files.changed().unwrap();
        export.write(512, &[6; 512]).unwrap();
        // As after a kill: nothing was flushed.
        drop(export);
        let before = fs::read(files.overlay()).unwrap();
        let frozen = files.export(Changes::Frozen(files.overlay())).unwrap();
        assert_eq!((byte(&frozen, 0), byte(&frozen, 512)), (5, 6));
        frozen.flush().unwrap();
        assert!(frozen.write(0, &[7; 512]).is_err());
        assert_eq!(fs::read(files.overlay()).unwrap(), before);
    }

    #[test]
    fn an_ephemeral_device_leaves_nothing() {
        let files = Files::new();
        let export = files.export(Changes::Ephemeral(files.dir().to_owned())).unwrap();
        export.write(512, &[6; 512]).unwrap();
        export.flush().unwrap();
        assert_eq!((byte(&export, 0), byte(&export, 512)), (5, 6));
        assert_eq!(fs::read_dir(files.dir()).unwrap().count(), 1);
    }

    #[test]
    fn a_pool_is_shown_from_where_its_view_begins() {
        let dir = tempfile::tempdir().unwrap();
        let pool = dir.path().join("pool");
        fs::write(&pool, vec![1; 16 << 20]).unwrap();
        let file = File::options().read(true).write(true).open(&pool).unwrap();
        let export = Export::pool(&pool, file, 16 << 20).unwrap();
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
