// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opens the files of a log for reading.

use std::io::{self, Read};
use std::ops::Range;

use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::sys::dax::Access;
use crate::write::volume::{FileBytes, Volume};

/// A file of a log that is open for reading.
pub struct Reading<'v> {
    /// None of an empty file, which has nothing to map.
    bytes: Option<Box<dyn FileBytes + 'v>>,
    size: u64,
    data: Vec<Range<u64>>,
}

impl<'v> Reading<'v> {
    /// Opens a file.
    pub fn open(
        volume: &'v dyn Volume,
        path: &RelPath,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Self> {
        let open = || volume.open_file(path, size, memory, Access::Read);
        let bytes = (size > 0).then(open).transpose()?;
        Ok(Self { bytes, size, data: memory.data(size) })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The ranges that have memory, in order. What lies between them is a hole, which reads as
    /// zeros.
    pub fn data(&self) -> &[Range<u64>] {
        &self.data
    }

    /// Whether it has holes.
    pub fn is_sparse(&self) -> bool {
        self.size > 0 && self.data != [0..self.size]
    }

    /// Copies bytes out of the file.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            Some(bytes) => bytes.read(offset, buf),
            None if buf.is_empty() => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Drops cached copies of a range, so that the next read sees what the memory holds.
    pub fn refresh(&self, offset: u64, len: usize) -> io::Result<()> {
        self.bytes.as_ref().map_or(Ok(()), |bytes| bytes.refresh(offset, len))
    }

    /// The file from start to end, holes as zeros.
    pub fn stream(&self) -> impl Read + '_ {
        Stream { file: self, left: Vec::from_iter((self.size > 0).then_some(0..self.size)) }
    }

    /// What has memory, from start to end, without the holes.
    pub fn data_stream(&self) -> impl Read + '_ {
        Stream { file: self, left: self.data.iter().rev().cloned().collect() }
    }
}

/// Ranges of a file, one after the other.
struct Stream<'f, 'v> {
    file: &'f Reading<'v>,
    /// What is left; the next range is the last one.
    left: Vec<Range<u64>>,
}

impl Read for Stream<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(range) = self.left.last_mut() else { return Ok(0) };
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        self.file.read(range.start, &mut buf[..len])?;
        range.start += len as u64;
        if range.is_empty() {
            self.left.pop();
        }
        Ok(len)
    }
}
