// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Small files whose memory is in one run are read one after the other and written at once: a
//! thread or a call for each would take longer than its bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::map::{Extent, Memory};
use crate::media::Media;
use crate::write::transfer::Problem;

/// Longest file that is gathered.
const SMALL: u64 = 64 << 10;
/// Bytes that are written at once: they stay in the processor's cache.
const BUFFER: usize = 256 << 10;

/// Files that are read and not written yet.
pub(super) struct Gather<'v> {
    device: &'v dyn Media,
    /// Read everything back from the device, and compare it.
    verify: bool,
    /// Where the bytes go.
    start: u64,
    bytes: Vec<u8>,
    /// What the caller knows the files by, and where each ends in the buffer.
    files: Vec<(usize, usize)>,
}

/// The memory of a file that can be gathered.
pub(super) fn place(size: u64, memory: &Memory) -> Option<Extent> {
    match memory {
        Memory::Pieces(pieces) => match pieces[..] {
            [(0, extent)] if size <= SMALL && size <= extent.len => Some(extent),
            _ => None,
        },
        Memory::Map(_) => None,
    }
}

impl<'v> Gather<'v> {
    pub fn new(device: &'v dyn Media, verify: bool) -> Self {
        Self { device, verify, start: 0, bytes: Vec::with_capacity(BUFFER), files: Vec::new() }
    }

    /// Whether a file goes right behind the others.
    pub fn fits(&self, extent: Extent) -> bool {
        let len = self.bytes.len();
        len == 0
            || self.start + len as u64 == extent.offset && len as u64 + extent.len <= BUFFER as u64
    }

    /// Reads a file that fits. What is behind its end in the last page is zero.
    pub fn read(
        &mut self,
        index: usize,
        source: &File,
        size: u64,
        extent: Extent,
    ) -> Result<(), Problem> {
        if self.bytes.is_empty() {
            self.start = extent.offset;
        }
        let (at, len) = (self.bytes.len(), usize::try_from(extent.len).unwrap_or(usize::MAX));
        self.bytes.resize(at + len, 0);
        let end = at + usize::try_from(size).map_or(len, |size| size.min(len));
        if let Err(error) = source.read_exact_at(&mut self.bytes[at..end], 0) {
            self.bytes.truncate(at);
            return Err(Problem::Source(error));
        }
        self.files.push((index, at + len));
        Ok(())
    }

    /// Writes what was read; returns the files. An error names the file that it is about.
    pub fn write(&mut self) -> Result<Vec<usize>, (usize, Problem)> {
        let files = std::mem::take(&mut self.files);
        let Some(&(first, _)) = files.first() else { return Ok(Vec::new()) };
        let failed = |error| (first, Problem::Target(io::Error::other(error)));
        self.device.write_at(self.start, &self.bytes).map_err(failed)?;
        if self.verify {
            let mut found = vec![0; self.bytes.len()];
            let len = found.len() as u64;
            self.device.refresh(self.start, len).map_err(failed)?;
            self.device.read_at(self.start, &mut found).map_err(failed)?;
            if let Some(at) = found.iter().zip(&self.bytes).position(|(a, b)| a != b) {
                let which = files.partition_point(|(_, end)| *end <= at);
                let start = if which == 0 { 0 } else { files[which - 1].1 };
                return Err((files[which].0, Problem::Differs((at - start) as u64)));
            }
        }
        self.bytes.clear();
        Ok(files.into_iter().map(|(index, _)| index).collect())
    }
}
