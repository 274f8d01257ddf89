// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Access to the bytes of a pool of any kind, and to the famfs device in it.
//!
//! Files are read and written with system calls. hugetlbfs has no write(2), and devdax has neither
//! read(2) nor write(2), so their bytes are copied through a mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use famfs::format::view::View;
use famfs::media::{Media, MediaError, zero_data};
use famfs::sys::dax::{Access, Mapping};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::kind::Facts;

/// The bytes of an open pool, from the first one.
pub(super) struct PoolBytes<'f> {
    pub file: &'f File,
    pub facts: Facts,
}

impl PoolBytes<'_> {
    /// Copies bytes from the pool.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.facts.kind.has_read() {
            return self.file.read_exact_at(buf, offset);
        }
        self.map(offset, buf.len(), Access::Read)?.read(index(offset)?, buf)
    }

    /// Copies bytes into the pool. In hugetlbfs, the pages must already exist.
    pub fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.facts.kind.has_write() {
            return self.file.write_all_at(buf, offset);
        }
        self.map(offset, buf.len(), Access::Write)?.write(index(offset)?, buf)
    }

    /// The offset after the last byte that is not zero from `start` to `end`; `start` if there is
    /// none. The pool is a file.
    pub fn end_of_data(&self, start: u64, end: u64) -> io::Result<u64> {
        let (mut found, mut at) = (start, start);
        let mut buf = vec![0; 1 << 20];
        while at < end {
            at = match rustix::fs::seek(self.file, SeekFrom::Data(at)) {
                Ok(at) if at < end => at,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buf.len());
            self.read(at, &mut buf[..len])?;
            if let Some(last) = buf[..len].iter().rposition(|byte| *byte != 0) {
                found = at + last as u64 + 1;
            }
            at += len as u64;
        }
        Ok(found)
    }

    /// Maps the pool from its start to the end of a range.
    fn map(&self, offset: u64, len: usize, access: Access) -> io::Result<Mapping> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.facts.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        Mapping::new(self.file, index(end.next_multiple_of(self.facts.page_size))?, access)
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

/// The famfs device in a pool: what guests see after the view's offset.
pub struct PoolMedia<'f> {
    bytes: PoolBytes<'f>,
    path: PathBuf,
    view: View,
}

impl<'f> PoolMedia<'f> {
    pub(super) fn new(file: &'f File, facts: Facts, path: &Path, view: View) -> Self {
        Self { bytes: PoolBytes { file, facts }, path: path.to_owned(), view }
    }

    /// The pool offset of a range of the device.
    fn at(&self, action: &'static str, offset: u64, len: usize) -> Result<u64, MediaError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len() => Ok(offset + self.origin()),
            _ => Err(self.error(action, offset, len as u64)(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn error(
        &self,
        action: &'static str,
        offset: u64,
        len: u64,
    ) -> impl Fn(io::Error) -> MediaError {
        let (offset, path) = (offset.saturating_add(self.origin()), self.path.clone());
        move |source| MediaError::Io { action, offset, len, path: path.clone(), source }
    }
}

impl Media for PoolMedia<'_> {
    fn len(&self) -> u64 {
        self.bytes.facts.size.saturating_sub(self.view.data_offset())
    }

    fn origin(&self) -> u64 {
        self.view.data_offset()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        let at = self.at("read", offset, buf.len())?;
        self.bytes.read(at, buf).map_err(self.error("read", offset, buf.len() as u64))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        let at = self.at("write", offset, buf.len())?;
        self.bytes.write(at, buf).map_err(self.error("write", offset, buf.len() as u64))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        zero_data(self, self.bytes.file, offset, len)
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        if !self.bytes.facts.kind.has_storage() {
            return Ok(());
        }
        self.bytes.file.sync_data().map_err(self.error("sync", offset, len))
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        // The page cache is the memory that guests map.
        Ok(())
    }
}
