// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bytes of a mounted file, through a shared mapping.

use std::fs::File;
use std::io;

use rustix::io::Errno;

use crate::format::extension::PAGE;
use crate::format::map::Memory;
use crate::sys::dax::{Access, Mapping};
use crate::write::volume::{FileBytes, TransferError};

/// A file's bytes through a shared mapping.
pub struct MappedFile {
    /// Whole pages; `None` of an empty file, of which nothing can be mapped.
    mapping: Option<Mapping>,
    size: u64,
    /// Ranges that have memory, if not all has: start and end.
    held: Option<Vec<(u64, u64)>>,
}

impl MappedFile {
    /// Maps the first `size` bytes of a file. A store to a hole of it would end in a signal.
    pub fn new(file: &File, size: u64, access: Access) -> io::Result<Self> {
        let len = usize::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mapping = (len > 0).then(|| Mapping::new(file, len, access)).transpose()?;
        Ok(Self { mapping, size, held: None })
    }

    /// Maps a file of `size` bytes that has this memory, with all of its last page.
    pub fn with_memory(
        file: &File,
        size: u64,
        memory: &Memory,
        access: Access,
    ) -> io::Result<Self> {
        match memory {
            Memory::Map(_) => Self::new(file, size, access),
            Memory::Pieces(pieces) => {
                let whole =
                    size.checked_next_multiple_of(PAGE).ok_or(io::ErrorKind::FileTooLarge)?;
                let mapped = Self::new(file, whole, access)?;
                let held = pieces.iter().map(|(at, extent)| (*at, at + extent.len)).collect();
                Ok(Self { size, held: Some(held), ..mapped })
            }
        }
    }

    /// The mapping, for a range within the file.
    fn range(&self, offset: u64, len: usize) -> io::Result<(&Mapping, usize)> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.size);
        match (&self.mapping, end, usize::try_from(offset)) {
            (Some(mapping), Some(_), Ok(at)) => Ok((mapping, at)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// The same for a range that is written, which must have memory.
    fn range_to_write(&self, offset: u64, len: usize) -> io::Result<(&Mapping, usize)> {
        let range = self.range(offset, len)?;
        let Some(held) = &self.held else { return Ok(range) };
        let (mut at, end) = (offset, offset + len as u64);
        while at < end {
            let next = held.partition_point(|(_, end)| *end <= at);
            match held.get(next) {
                Some((start, end)) if *start <= at => at = *end,
                _ => return Err(io::ErrorKind::StorageFull.into()),
            }
        }
        Ok(range)
    }
}

impl FileBytes for MappedFile {
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let (mapping, at) = self.range(offset, buf.len())?;
        mapping.read(at, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let (mapping, at) = self.range_to_write(offset, buf.len())?;
        mapping.write(at, buf)
    }

    /// The kernel copies straight into the mapping, and reports memory errors instead of a signal.
    fn write_from(
        &self,
        source: &File,
        offset: u64,
        len: usize,
        _buf: &mut [u8],
    ) -> Result<(), TransferError> {
        if len == 0 {
            return Ok(());
        }
        let (mapping, at) = self.range_to_write(offset, len).map_err(TransferError::Target)?;
        mapping.fill_from(source, offset, at, len).map_err(|err| {
            match err.raw_os_error() == Some(Errno::FAULT.raw_os_error()) {
                true => TransferError::Target(err),
                false => TransferError::Source(err),
            }
        })
    }

    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (mapping, at) = self.range(offset, len)?;
        mapping.write_back(at, len)
    }

    fn refresh(&self, offset: u64, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (mapping, at) = self.range(offset, len)?;
        mapping.invalidate(at, len)
    }

    fn clear_tail(&self) -> io::Result<()> {
        let held = self.held.iter().flatten().last();
        match (&self.mapping, held) {
            (Some(mapping), Some((_, end))) if *end > self.size => {
                let at = usize::try_from(self.size).map_err(|_| io::ErrorKind::FileTooLarge)?;
                let len = mapping.len().saturating_sub(at);
                mapping.write(at, &vec![0; len])?;
                mapping.write_back(at, len)
            }
            _ => Ok(()),
        }
    }

    fn finish(&self) -> io::Result<()> {
        self.clear_tail()?;
        let Some(mapping) = &self.mapping else { return Ok(()) };
        let Some(held) = &self.held else { return mapping.write_back(0, mapping.len()) };
        for (start, end) in held {
            let (Ok(start), Ok(end)) = (usize::try_from(*start), usize::try_from(*end)) else {
                return Err(io::ErrorKind::FileTooLarge.into());
            };
            mapping.write_back(start, end.min(mapping.len()).saturating_sub(start))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::map::Extent;

    /// Bytes of some pages.
    fn bytes_of(pages: u64, byte: u8) -> Vec<u8> {
        vec![byte; usize::try_from(pages * PAGE).unwrap()]
    }

    #[test]
    fn holes_are_read_and_not_written() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(5 * PAGE).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes_of(5, 7), 0).unwrap();
        let piece = |page: u64| (page * PAGE, Extent { offset: 0, len: PAGE });
        let memory = Memory::Pieces(vec![piece(1), piece(2), piece(4)]);
        let size = 4 * PAGE + 5;
        let bytes = MappedFile::with_memory(&file, size, &memory, Access::Write).unwrap();
        bytes.write(PAGE, &bytes_of(2, 1)).unwrap();
        bytes.write(4 * PAGE, &[2; 5]).unwrap();
        for (offset, len) in [(0, 1), (PAGE - 1, 2), (3 * PAGE - 1, 2), (4 * PAGE - 1, 1)] {
            let error = bytes.write(offset, &vec![1; len]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{offset}");
        }
        assert!(bytes.write(4 * PAGE, &[2; 6]).is_err(), "behind the end");
        bytes.finish().unwrap();
        let whole = MappedFile::new(&file, 5 * PAGE, Access::Read).unwrap();
        let mut found = bytes_of(1, 9);
        whole.read(4 * PAGE, &mut found).unwrap();
        assert_eq!((&found[..5], found[5..].iter().max()), (&[2; 5][..], Some(&0)));
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        let file = tempfile::tempfile().unwrap();
        let memory = Memory::Pieces(Vec::new());
        let bytes = MappedFile::with_memory(&file, 0, &memory, Access::Write).unwrap();
        bytes.read(0, &mut []).unwrap();
        bytes.finish().unwrap();
        assert!(bytes.write(0, &[1]).is_err() && bytes.read(0, &mut [0]).is_err());
    }
}
