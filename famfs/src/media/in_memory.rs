// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device of any size in this process's memory, for tests, fuzz targets and benchmarks. Bytes
//! that were never written are zero and take no memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::media::{Media, MediaError};

/// Bytes in one piece; divides every offset of the format that matters.
const PAGE: usize = 4096;

type Pages = BTreeMap<u64, Box<[u8; PAGE]>>;

/// A device in memory.
#[derive(Debug)]
pub struct InMemory {
    len: u64,
    pages: Mutex<Pages>,
}

impl InMemory {
    /// A device of `len` zero bytes.
    pub fn new(len: u64) -> Self {
        Self { len, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // A page is complete at any time, so what a panicked thread left is usable.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, action: &'static str, offset: u64, len: usize) -> Result<(), MediaError> {
        let len = len as u64;
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(MediaError::Io {
                action,
                offset,
                len,
                path: "memory".into(),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    }
}

/// The pages of a range: number, first byte in the page, and bounds in the caller's buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        // Less than a page, so it fits.
        let within = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let end = len.min(done + PAGE - within);
        let piece = (done < len).then_some((at / PAGE as u64, within, done..end));
        done = end;
        piece
    })
}

impl Media for InMemory {
    fn len(&self) -> u64 {
        self.len
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.check("read", offset, buf.len())?;
        let pages = self.pages();
        for (page, within, range) in pieces(offset, buf.len()) {
            let buf = &mut buf[range];
            match pages.get(&page) {
                Some(page) => buf.copy_from_slice(&page[within..within + buf.len()]),
                None => buf.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        self.check("write", offset, buf.len())?;
        let mut pages = self.pages();
        for (page, within, range) in pieces(offset, buf.len()) {
            let page = pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            page[within..within + range.len()].copy_from_slice(&buf[range]);
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.check("write", offset, len)?;
        let mut pages = self.pages();
        for (page, within, range) in pieces(offset, len) {
            match range.len() {
                PAGE => drop(pages.remove(&page)),
                len => {
                    if let Some(page) = pages.get_mut(&page) {
                        page[within..within + len].fill(0);
                    }
                }
            }
        }
        Ok(())
    }

    fn persist(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_written() {
        let memory = InMemory::new(1 << 46);
        let text: Vec<u8> = (0..=255).cycle().take(3 * PAGE).collect();
        let start = (1 << 45) + 4000;
        memory.write_at(start, &text).unwrap();
        let mut found = vec![1; text.len() + 200];
        memory.read_at(start - 100, &mut found).unwrap();
        assert_eq!(found, [&[0; 100][..], &text, &[0; 100]].concat());
        memory.zero(start + 50, 2 * PAGE as u64).unwrap();
        memory.read_at(start, &mut found[..text.len()]).unwrap();
        let kept = &text[50 + 2 * PAGE..];
        assert_eq!(found[..text.len()], [&text[..50], &[0; 2 * PAGE], kept].concat());
    }

    #[test]
    fn refuses_what_is_outside() {
        let memory = InMemory::new(10);
        assert!(memory.write_at(8, &[0; 3]).is_err());
        assert!(memory.read_at(u64::MAX, &mut [0; 2]).is_err());
        memory.write_at(10, &[]).unwrap();
    }
}
