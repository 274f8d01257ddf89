// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file's bytes as a stream, for code that reads or writes one after the other.

use std::io::{self, Read, Write};

use crate::write::volume::FileBytes;

/// Reads a file from start to end.
pub struct FileReader<'f> {
    bytes: &'f dyn FileBytes,
    at: u64,
    size: u64,
}

impl<'f> FileReader<'f> {
    /// Reads a file of `size` bytes.
    pub fn new(bytes: &'f dyn FileBytes, size: u64) -> Self {
        Self { bytes, at: 0, size }
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        self.bytes.read(self.at, &mut buf[..len])?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Writes a file from its start.
pub struct FileWriter<'f> {
    bytes: &'f dyn FileBytes,
    at: u64,
}

impl<'f> FileWriter<'f> {
    /// Writes a file that is as large as what will be written.
    pub fn new(bytes: &'f dyn FileBytes) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Write for FileWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.write(self.at, buf)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
