// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the bytes of a member into its file.

use std::io::{self, Read};
use std::ops::Range;

use super::ImportError;
use crate::format::path::RelPath;
use crate::write::layout::Layout;
use crate::write::volume::{COPY_STEP, FileBytes};

/// Writes a file. `map` has the ranges with data, whose bytes come one after the other; all else
/// that has memory becomes zero, because memory is not clear when it is taken.
pub(super) fn fill(
    file: &dyn FileBytes,
    path: &RelPath,
    (layout, map): (&Layout, &[Range<u64>]),
    bytes: &mut dyn Read,
    buf: &mut [u8],
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(), ImportError> {
    let read = |source| ImportError::Bytes { path: path.clone(), source };
    let mut ranges = map.iter().cloned().peekable();
    for part in layout.data() {
        let mut at = part.start;
        while at < part.end {
            let len = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(COPY_STEP);
            let buf = &mut buf[..len];
            let end = at + len as u64;
            let mut done = 0;
            while let Some(range) = ranges.peek_mut().filter(|range| range.start < end) {
                let start = within(range.start - at);
                let stop = within(range.end.min(end) - at);
                buf[done..start].fill(0);
                bytes.read_exact(&mut buf[start..stop]).map_err(read)?;
                done = stop;
                if range.end > end {
                    range.start = end;
                    break;
                }
                ranges.next();
            }
            buf[done..].fill(0);
            let write = |source| ImportError::Target { path: path.clone(), source };
            file.write(at, buf).map_err(write)?;
            if !progress(len as u64) {
                return Err(ImportError::Interrupted { atomic: false });
            }
            at = end;
        }
    }
    match ranges.next() {
        // The layout covers all of the map.
        Some(_) => Err(read(io::ErrorKind::InvalidData.into())),
        None => Ok(()),
    }
}

/// An offset in a buffer, which is less than its length.
fn within(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
