// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file of an overlay: created, locked, and checked against its image before it is used.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use famfs::system::lock::{self, Mode};
use famfs::system::parent;
use famfs::system::process;
use rustix::fs::OFlags;
use tracing::warn;
use uuid::Uuid;

use crate::base::{Base, BaseError};
use crate::overlay::{self, BaseIdentity, Overlay, OverlayError};

/// Why a file cannot be used as an overlay.
#[derive(Debug, thiserror::Error)]
pub enum OverlayFileError {
    /// The image cannot be read to identify it.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// It is not an overlay, is damaged, or belongs to another image.
    #[error("overlay {}", .path.display())]
    Refused {
        /// The overlay.
        path: PathBuf,
        /// The cause.
        #[source]
        source: OverlayError,
    },
    /// Another device uses it.
    #[error(
        "overlay {path}: busy: another device writes to it (see `vhost-famfs ublk list`); each \
         device needs its own overlay", path = .0.display()
    )]
    Busy(PathBuf),
    /// A read-only device does not create an overlay.
    #[error("overlay {}: no such file, and a read-only device does not create one", .0.display())]
    Missing(PathBuf),
    /// It is something else, such as a directory, a pipe or a device.
    #[error("overlay {}: is not a regular file", .0.display())]
    Type(PathBuf),
    /// A system call failed.
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
    /// The kernel does not tell the identity of this boot.
    #[error("cannot read the boot's identity from {}", process::BOOT_ID)]
    Boot(#[source] io::Error),
}

fn io<'p>(path: &'p Path, action: &'static str) -> impl Fn(io::Error) -> OverlayFileError + 'p {
    move |source| OverlayFileError::Io { path: path.to_owned(), action, source }
}

fn refused(path: &Path) -> impl Fn(OverlayError) -> OverlayFileError + '_ {
    move |source| OverlayFileError::Refused { path: path.to_owned(), source }
}

/// An overlay and its file.
#[derive(Debug)]
pub struct OverlayFile {
    /// The overlay.
    pub overlay: Overlay<File>,
    /// Its identity.
    pub uuid: Uuid,
    /// The file, if opening created it.
    pub new: Option<NewFile>,
}

/// A newly created overlay. It is removed unless a device uses it.
#[derive(Debug)]
pub struct NewFile(Option<PathBuf>);

impl NewFile {
    /// A device uses it now, so it is kept.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(err) = std::fs::remove_file(path)
        {
            warn!(path = %path.display(), %err, "cannot remove the new overlay");
        }
    }
}

/// An overlay in an unnamed file in `dir`, for an image of `size` bytes.
pub fn open_ephemeral(dir: &Path, size: u64) -> Result<Overlay<File>, OverlayFileError> {
    let unnamed = OFlags::TMPFILE.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).mode(0o600).custom_flags(unnamed).open(dir);
    let file = file.map_err(io(dir, "create an unnamed file in"))?;
    file.set_len(overlay::file_len(size)).map_err(io(dir, "set the size of a file in"))?;
    Ok(Overlay::ephemeral(file, size))
}

/// Opens the overlay of an image; if it does not exist and `writable` is set, creates it. Waits up
/// to `patience` for a lock that a dying server still holds. Calls `progress` with the number of
/// bytes of the image that were read to identify it, and the total.
pub fn open(
    path: &Path,
    base: &Base,
    writable: bool,
    patience: Duration,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<OverlayFile, OverlayFileError> {
    let boot = process::boot_id().map_err(OverlayFileError::Boot)?;
    // Without this flag, opening a pipe would wait for its other end.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).write(writable).custom_flags(nonblock).open(path) {
        Ok(file) => {
            let meta = file.metadata().map_err(io(path, "look at"))?;
            if !meta.is_file() {
                return Err(OverlayFileError::Type(path.to_owned()));
            }
            lock(&file, path, writable, patience)?;
            let header =
                overlay::read_header(&file, length(&file, path)?).map_err(refused(path))?;
            // Check the size first: that is cheap.
            let known = BaseIdentity { size: base.size(), ..header.base() };
            overlay::check_base(&header, known).map_err(refused(path))?;
            overlay::check_base(&header, base.identity(progress)?).map_err(refused(path))?;
            let overlay =
                Overlay::open(file, base.size(), boot, writable).map_err(refused(path))?;
            Ok(OverlayFile { overlay, uuid: header.uuid(), new: None })
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound && writable => {
            let identity = base.identity(progress)?;
            create(path, identity, boot)
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            Err(OverlayFileError::Missing(path.to_owned()))
        }
        Err(err) if err.kind() == io::ErrorKind::IsADirectory => {
            Err(OverlayFileError::Type(path.to_owned()))
        }
        Err(err) => Err(io(path, "open")(err)),
    }
}

/// Read after taking the lock: before that, the file may still have been growing.
fn length(file: &File, path: &Path) -> Result<u64, OverlayFileError> {
    Ok(file.metadata().map_err(io(path, "look at"))?.len())
}

/// Creates a new overlay; if that fails, nothing of it remains.
fn create(path: &Path, base: BaseIdentity, boot: Uuid) -> Result<OverlayFile, OverlayFileError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(io(path, "make"))?;
    let new = NewFile(Some(path.to_owned()));
    lock(&file, path, true, Duration::ZERO)?;
    file.set_len(overlay::file_len(base.size)).map_err(io(path, "set the size of"))?;
    let uuid = Uuid::new_v4();
    overlay::format(&file, base, uuid).map_err(refused(path))?;
    sync_directory(path).map_err(io(path, "make its name durable, sync the directory of"))?;
    let overlay = Overlay::open(file, base.size, boot, true).map_err(refused(path))?;
    Ok(OverlayFile { overlay, uuid, new: Some(new) })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(parent::of(path))?.sync_all()
}

fn lock(file: &File, path: &Path, alone: bool, patience: Duration) -> Result<(), OverlayFileError> {
    let mode = if alone { Mode::Exclusive } else { Mode::Shared };
    match lock::within(file, mode, patience).map_err(io(path, "lock"))? {
        true => Ok(()),
        false => Err(OverlayFileError::Busy(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::Files;
    use std::fs;

    impl Files {
        fn open(&self, path: &Path, writable: bool) -> Result<OverlayFile, OverlayFileError> {
            let base = Base::open(&self.image())?;
            open(path, &base, writable, Duration::ZERO, &mut |_, _| {})
        }

        /// Opens the overlay for writing, and keeps it if it is new.
        fn kept(&self) -> Result<OverlayFile, OverlayFileError> {
            let mut file = self.open(&self.overlay(), true)?;
            if let Some(new) = file.new.take() {
                new.keep();
            }
            Ok(file)
        }
    }

    #[test]
    fn an_overlay_serves_one_device() {
        let files = Files::new();
        let _first = files.kept().unwrap();
        for writable in [true, false] {
            let second = files.open(&files.overlay(), writable);
            assert!(matches!(second, Err(OverlayFileError::Busy(_))));
        }
        assert!(files.overlay().exists());
    }

    #[test]
    fn an_overlay_of_another_image_is_refused() {
        let files = Files::new();
        drop(files.kept().unwrap());
        let refusal = || {
            let err = files.kept().unwrap_err();
            std::error::Error::source(&err).unwrap().to_string()
        };
        fs::write(files.image(), vec![4; 1 << 20]).unwrap();
        assert!(refusal().contains("another base: to one with SHA-256 "), "{}", refusal());
        fs::write(files.image(), vec![5; 512 << 10]).unwrap();
        assert!(refusal().contains("one of 1 MiB, the image has 512 KiB"), "{}", refusal());
        fs::write(files.image(), vec![5; 1 << 20]).unwrap();
        assert!(files.kept().is_ok());
    }

    #[test]
    fn what_is_no_overlay_is_refused_and_left_alone() {
        let files = Files::new();
        for contents in [vec![], vec![0; 1 << 20], vec![1; 1 << 20]] {
            fs::write(files.overlay(), &contents).unwrap();
            assert!(matches!(files.kept(), Err(OverlayFileError::Refused { .. })));
            assert_eq!(fs::read(files.overlay()).unwrap(), contents);
        }
        for path in [files.dir(), Path::new("/dev/null")] {
            assert!(matches!(files.open(path, true), Err(OverlayFileError::Type(_))));
            assert!(matches!(files.open(path, false), Err(OverlayFileError::Type(_))));
        }
    }

    #[test]
    fn an_overlay_cut_short_anywhere_is_refused_and_left_alone() {
        let files = Files::new();
        drop(files.kept().unwrap());
        let whole = fs::read(files.overlay()).unwrap();
        for len in [0, 1, 4095, 4096, 8192, 12_288, 1 << 20, whole.len() - 1] {
            fs::write(files.overlay(), &whole[..len]).unwrap();
            let refused = files.kept();
            assert!(matches!(refused, Err(OverlayFileError::Refused { .. })), "{len}");
            assert_eq!(fs::read(files.overlay()).unwrap(), whole[..len]);
        }
    }

    #[test]
    fn a_read_only_device_makes_no_overlay() {
        let files = Files::new();
        let frozen = files.open(&files.overlay(), false);
        assert!(matches!(frozen, Err(OverlayFileError::Missing(_))));
        assert!(!files.overlay().exists());
    }

    #[test]
    fn a_new_overlay_without_a_device_is_removed_and_no_other() {
        let files = Files::new();
        drop(files.open(&files.overlay(), true).unwrap());
        assert!(!files.overlay().exists());
        let uuid = files.kept().unwrap().uuid;
        assert_eq!(files.open(&files.overlay(), true).unwrap().uuid, uuid);
        assert!(files.overlay().exists());
    }

    #[test]
    fn a_file_that_cannot_be_made_is_not_left() {
        let files = Files::new();
        let err = files.open(&files.dir().join("no/overlay"), true).unwrap_err();
        assert!(matches!(err, OverlayFileError::Io { action: "make", .. }), "{err}");
    }
}
