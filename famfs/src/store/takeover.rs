// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moving the master's role: another system UUID in the superblock.
//!
//! UUID and checksum are three stores, between which the superblock is not valid. So the whole new
//! superblock is first made durable as a copy, [`SUPERBLOCK_COPY_OFFSET`], which
//! [`Superblock::read`] takes while the first one's checksum is wrong. The reference does not know
//! the copy: after a crash in between it needs the takeover to be run again.

use uuid::Uuid;

use crate::format::{self, SUPERBLOCK_COPY_OFFSET, SuperblockBytes};
use crate::media::Media;
use crate::store::superblock::{Superblock, SuperblockError};

/// Makes another system the master. Also ends a takeover that was interrupted.
pub fn takeover(media: &dyn Media, system: Uuid) -> Result<Superblock, SuperblockError> {
    let superblock = Superblock { system_uuid: system, ..Superblock::read(media)? };
    let mut bytes: SuperblockBytes = [0; size_of::<SuperblockBytes>()];
    media.read_at(0, &mut bytes)?;
    // What no checksum covers stays as it is.
    let encoded = superblock.encode();
    let changed = format::Superblock::OF_MASTER;
    bytes[..changed.end].copy_from_slice(&encoded[..changed.end]);
    media.write_at(SUPERBLOCK_COPY_OFFSET, &bytes)?;
    media.persist(SUPERBLOCK_COPY_OFFSET, bytes.len() as u64)?;
    let (start, len) = (changed.start as u64, changed.len() as u64);
    media.write_at(start, &bytes[changed])?;
    media.persist(start, len)?;
    media.write_at(SUPERBLOCK_COPY_OFFSET, &[0; 8])?;
    media.persist(SUPERBLOCK_COPY_OFFSET, 8)?;
    Superblock::read(media)
}
