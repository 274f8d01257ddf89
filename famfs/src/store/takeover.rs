// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves the master's role: writes another system UUID into the superblock.
//!
//! UUID and checksum take three stores, and in between the superblock is not valid. So the whole
//! new superblock is first made durable as a copy at [`SUPERBLOCK_COPY_OFFSET`], which
//! [`Superblock::read`] uses while the superblock's checksum is wrong. The reference does not know
//! the copy: after a crash in between, run the takeover again for its sake.

use uuid::Uuid;

use crate::format::{self, SUPERBLOCK_COPY_OFFSET, SuperblockBytes};
use crate::media::Media;
use crate::store::superblock::{Superblock, SuperblockError};

/// Makes another system the master. Also completes an interrupted takeover.
pub fn takeover(media: &dyn Media, system: Uuid) -> Result<Superblock, SuperblockError> {
    let superblock = Superblock { system_uuid: system, ..Superblock::read(media)? };
    let mut bytes: SuperblockBytes = [0; size_of::<SuperblockBytes>()];
    media.read_at(0, &mut bytes)?;
    // Bytes that no checksum covers stay as they are.
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
