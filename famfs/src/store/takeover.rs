// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moving the master's role: another system UUID in the superblock.
//!
//! UUID and checksum are three stores, between which the superblock is not valid. So the whole new
//! superblock is first made durable as a copy, [`SUPERBLOCK_COPY_OFFSET`], which
//! [`Superblock::read`] takes while the first one's checksum is wrong. The reference does not know
//! the copy: after a crash in between it needs the takeover to be run again.

use uuid::Uuid;

use crate::format::SUPERBLOCK_COPY_OFFSET;
use crate::media::Media;
use crate::store::superblock::{Superblock, SuperblockError};

/// Bytes of the superblock that differ between masters: system UUID and checksum.
const CHANGED: std::ops::Range<usize> = 80..104;

/// Makes another system the master. Also ends a takeover that was interrupted.
pub fn takeover(media: &dyn Media, system: Uuid) -> Result<Superblock, SuperblockError> {
    let superblock = Superblock { system_uuid: system, ..Superblock::read(media)? };
    let mut bytes = [0; 200];
    media.read_at(0, &mut bytes)?;
    // What no checksum covers stays as it is.
    let encoded = superblock.encode();
    bytes[..CHANGED.end].copy_from_slice(&encoded[..CHANGED.end]);
    media.write_at(SUPERBLOCK_COPY_OFFSET, &bytes)?;
    media.persist(SUPERBLOCK_COPY_OFFSET, bytes.len() as u64)?;
    let (start, len) = (CHANGED.start as u64, CHANGED.len() as u64);
    media.write_at(start, &bytes[CHANGED])?;
    media.persist(start, len)?;
    media.write_at(SUPERBLOCK_COPY_OFFSET, &[0; 8])?;
    media.persist(SUPERBLOCK_COPY_OFFSET, 8)?;
    Superblock::read(media)
}
