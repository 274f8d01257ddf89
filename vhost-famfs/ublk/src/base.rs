// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The image of a device: a file or block device that is only read.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use famfs::system::lock::{self, LockError};
use famfs::text::units::Bytes;
use rustix::fs::OFlags;

use crate::mapped::Mapped;
use crate::overlay::{BaseIdentity, Hasher, Header, MAX_SIZE, SECTOR};

/// The digest reads the image in chunks of this size.
const PIECE: usize = 1 << 20;

/// Why a file cannot be used as an image.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The file does not exist.
    #[error("image {}: no such file", .0.display())]
    Missing(PathBuf),
    /// The user may not read it.
    #[error("image {}: no permission to read it", .0.display())]
    Permission(PathBuf),
    /// It is something else, such as a directory or a pipe.
    #[error("image {}: is neither a file nor a block device", .0.display())]
    Type(PathBuf),
    /// The file is an overlay.
    #[error(
        "image {path}: is an overlay; use --overlay {path}, and --image for the image that it \
         belongs to", path = .0.display()
    )]
    IsOverlay(PathBuf),
    /// Its size is not a whole number of sectors, or is zero or too large.
    #[error(
        "image {path}: its size, {found} bytes, is not a multiple of {SECTOR} from {SECTOR} to {}; \
         to round it up, use `truncate --size %{SECTOR} {path}`",
        Bytes(MAX_SIZE), path = .path.display()
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
    },
    /// Another program is writing to it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A system call failed.
    #[error("image {}: cannot {action} it", .path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// An open image. Programs that respect locks do not change it meanwhile.
#[derive(Debug)]
pub struct Base {
    file: File,
    path: PathBuf,
    size: u64,
    mapped: Option<Mapped>,
}

impl Base {
    /// Opens an image read-only.
    pub fn open(path: &Path) -> Result<Self, BaseError> {
        let own = || path.to_owned();
        let io = |action| move |source| BaseError::Io { path: path.to_owned(), action, source };
        // Without this flag, opening a pipe would wait for a writer.
        let nonblock = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
        let mut file = file.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BaseError::Missing(own()),
            io::ErrorKind::PermissionDenied => BaseError::Permission(own()),
            _ => io("open")(source),
        })?;
        let kind = file.metadata().map_err(io("look at"))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(BaseError::Type(own()));
        }
        let size = file.seek(SeekFrom::End(0)).map_err(io("determine the size of"))?;
        if !(SECTOR..=MAX_SIZE).contains(&size) || !size.is_multiple_of(SECTOR) {
            return Err(BaseError::Size { path: own(), found: size });
        }
        let name = format!("image {}", path.display());
        lock::shared(&file, &name, lock::BRIEF, |_| {})?;
        let mut start = [0; 8];
        file.read_exact_at(&mut start, 0).map_err(io("read"))?;
        if Header::is_overlay(&start) {
            return Err(BaseError::IsOverlay(own()));
        }
        let mapped = Mapped::of(&file, size);
        Ok(Self { file, path: own(), size, mapped })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, if it is mapped.
    pub fn mapped(&self) -> Option<&Mapped> {
        self.mapped.as_ref()
    }

    /// Fills `buf` from `offset`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Reads the whole image to identify it. Calls `progress` with the bytes read and the total.
    pub fn identity(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<BaseIdentity, BaseError> {
        let mut hasher = Hasher::default();
        let mut piece = vec![0; PIECE];
        let mut offset = 0;
        while offset < self.size {
            let rest = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
            let part = &mut piece[..rest.min(PIECE)];
            self.read_at(offset, part).map_err(|source| BaseError::Io {
                path: self.path.clone(),
                action: "read",
                source,
            })?;
            hasher.update(part);
            offset += part.len() as u64;
            progress(offset, self.size);
        }
        Ok(BaseIdentity { size: self.size, digest: hasher.finish() })
    }
}

impl AsFd for Base {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_image_is_known_by_all_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut bytes = vec![3; (1 << 20) + 512];
        fs::write(&path, &bytes).unwrap();
        let identity = || Base::open(&path).unwrap().identity(&mut |_, _| {}).unwrap();
        let first = identity();
        assert_eq!(first.size, (1 << 20) + 512);
        bytes[1 << 20] = 4;
        fs::write(&path, &bytes).unwrap();
        assert_ne!(identity().digest, first.digest);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        assert!(matches!(Base::open(&path), Err(BaseError::Missing(_))));
        for size in [0, 511, 513] {
            fs::write(&path, vec![0; size]).unwrap();
            assert!(matches!(Base::open(&path), Err(BaseError::Size { .. })), "{size}");
        }
        fs::write(&path, [b"FAMFSOVL".as_slice(), &[0; 504]].concat()).unwrap();
        assert!(matches!(Base::open(&path), Err(BaseError::IsOverlay(_))));
        assert!(matches!(Base::open(dir.path()), Err(BaseError::Type(_))));
        assert!(matches!(Base::open(Path::new("/dev/null")), Err(BaseError::Type(_))));
    }
}
