// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file of an overlay: created, locked, and checked against its image before it is used.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
    /// It is a link to a file that is not there.
    #[error(
        "overlay {}: is a link to {}, which does not exist; make that file's directory available, \
         or remove the link", .path.display(), .target.display()
    )]
    Link {
        /// The overlay.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
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
pub struct NewFile {
    /// `None` once a device uses it.
    path: Option<PathBuf>,
    /// Keeps its lock until it is removed: nobody else may begin to use it before.
    _locked: File,
}

impl NewFile {
    /// A device uses it now, so it is kept.
    pub fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(err) = fs::remove_file(path)
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
    // Other commands may create and remove the same overlay, so its name may change meanwhile.
    loop {
        if let Some(file) = open_locked(path, writable, patience)? {
            let len = file.metadata().map_err(io(path, "look at"))?.len();
            let header = overlay::read_header(&file, len).map_err(refused(path))?;
            // Check the size first: that is cheap.
            let known = BaseIdentity { size: base.size(), ..header.base() };
            overlay::check_base(&header, known).map_err(refused(path))?;
            overlay::check_base(&header, base.identity(progress)?).map_err(refused(path))?;
            let overlay =
                Overlay::open(file, base.size(), boot, writable).map_err(refused(path))?;
            return Ok(OverlayFile { overlay, uuid: header.uuid(), new: None });
        }
        if !writable {
            return Err(OverlayFileError::Missing(path.to_owned()));
        }
        // A link to nothing is neither opened nor replaced.
        if let Ok(target) = fs::read_link(path) {
            return Err(OverlayFileError::Link { path: path.to_owned(), target });
        }
        let identity = base.identity(progress)?;
        if let Some(created) = create(path, identity, boot)? {
            return Ok(created);
        }
    }
}

/// Opens and locks the file that has the name `path`; `None` if there is none.
fn open_locked(
    path: &Path,
    writable: bool,
    patience: Duration,
) -> Result<Option<File>, OverlayFileError> {
    // Without this flag, opening a pipe would wait for its other end.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    loop {
        let mut options = OpenOptions::new();
        let file = match options.read(true).write(writable).custom_flags(nonblock).open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) if err.kind() == io::ErrorKind::IsADirectory => {
                return Err(OverlayFileError::Type(path.to_owned()));
            }
            Err(err) => return Err(io(path, "open")(err)),
        };
        let meta = file.metadata().map_err(io(path, "look at"))?;
        if !meta.is_file() {
            return Err(OverlayFileError::Type(path.to_owned()));
        }
        lock(&file, path, writable, patience)?;
        // Whoever had the lock may have removed it: then its changes would be lost.
        if has_name(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Whether `path` is still the name of `file`.
fn has_name(file: &File, path: &Path) -> Result<bool, OverlayFileError> {
    let ours = file.metadata().map_err(io(path, "look at"))?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(io(path, "look at")(err)),
    }
}

/// Creates a new overlay; if that fails, nothing of it remains. It gets its name when it is
/// complete and locked, so that nobody else sees less. `None` if the name exists by then.
fn create(
    path: &Path,
    base: BaseIdentity,
    boot: Uuid,
) -> Result<Option<OverlayFile>, OverlayFileError> {
    let unnamed = tempfile::Builder::new()
        .prefix(".vhost-famfs-overlay-")
        .tempfile_in(parent::of(path))
        .map_err(io(path, "make"))?;
    let file = unnamed.as_file();
    lock(file, path, true, Duration::ZERO)?;
    file.set_len(overlay::file_len(base.size)).map_err(io(path, "set the size of"))?;
    let uuid = Uuid::new_v4();
    overlay::format(file, base, uuid).map_err(refused(path))?;
    let locked = file.try_clone().map_err(io(path, "open"))?;
    let file = match unnamed.persist_noclobber(path) {
        Ok(file) => file,
        Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(err) => return Err(io(path, "name")(err.error)),
    };
    let new = NewFile { path: Some(path.to_owned()), _locked: locked };
    sync_directory(path).map_err(io(path, "make its name durable, sync the directory of"))?;
    let overlay = Overlay::open(file, base.size, boot, true).map_err(refused(path))?;
    Ok(Some(OverlayFile { overlay, uuid, new: Some(new) }))
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
    use std::sync::Barrier;
    use std::thread;

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
    fn of_several_that_want_a_new_overlay_one_gets_it_and_the_others_find_it_busy() {
        let files = Files::new();
        for _ in 0..30 {
            let start = Barrier::new(4);
            // Each keeps what it got until all have asked.
            let opened: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            files.open(&files.overlay(), true)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1, "{opened:?}");
            for refusal in opened.iter().filter_map(|opened| opened.as_ref().err()) {
                assert!(matches!(refusal, OverlayFileError::Busy(_)), "{refusal:?}");
            }
            // The image, the overlay, and nothing unfinished.
            assert_eq!(fs::read_dir(files.dir()).unwrap().count(), 2);
            drop(opened);
            assert!(!files.overlay().exists());
        }
    }

    #[test]
    fn an_overlay_that_is_removed_while_another_waits_for_it_is_not_used() {
        let files = Files::new();
        let first = files.open(&files.overlay(), true).unwrap();
        let uuid = first.uuid;
        let second = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let base = Base::open(&files.image()).unwrap();
                open(&files.overlay(), &base, true, Duration::from_secs(60), &mut |_, _| {})
            });
            thread::sleep(Duration::from_millis(50));
            drop(first);
            waiting.join().unwrap().unwrap()
        });
        assert_ne!(second.uuid, uuid);
        assert!(files.overlay().exists());
    }

    #[test]
    fn a_file_that_cannot_be_made_is_not_left() {
        let files = Files::new();
        let err = files.open(&files.dir().join("no/overlay"), true).unwrap_err();
        assert!(matches!(err, OverlayFileError::Io { action: "make", .. }), "{err}");
    }
}
