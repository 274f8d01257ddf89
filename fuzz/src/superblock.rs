// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: the superblock. Input: a file system ([`crate::image`]).
//!
//! Invariants of a superblock that is accepted:
//! * its protected bytes are those that writing it again gives, except for master and checksum if
//!   those come from the copy of an interrupted takeover;
//! * log and data area lie within the device, the data area in whole allocation units;
//! * mkfs notices it and refuses to overwrite it.

use famfs::format::{ALLOC_UNIT, LOG_OFFSET};
use famfs::media::Media;
use famfs::store::mkfs::{MkfsError, check_unformatted};
use famfs::store::superblock::{MAX_DEVICE_LEN, Superblock};

use crate::image;

/// Bytes that the checksum protects, and the checksum itself.
const PROTECTED: usize = 104;
/// Offset of the master's UUID; the checksum follows.
const MASTER: usize = 80;

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(data: &[u8]) {
    let (media, _) = image::parse(data);
    let refused = check_unformatted(&media);
    let Ok(superblock) = Superblock::read(&media) else { return };

    assert!(matches!(refused, Err(MkfsError::Formatted { .. })), "mkfs would overwrite it");
    let mut found = [0; 200];
    media.read_at(0, &mut found).expect("the superblock was read from there");
    let mut again = superblock.encode();
    // While its master changes, the copy is used.
    let same = if Superblock::parse(&found, 0).is_ok() { PROTECTED } else { MASTER };
    assert_eq!(found[..same], again[..same]);
    let mut parsed = Superblock::parse(&again, 0).expect("what we write is not accepted");
    // A device name that is not text is shown, and cut, as well as possible.
    parsed.dev_name.clone_from(&superblock.dev_name);
    assert_eq!(parsed, superblock);
    again[96] ^= 1;
    assert!(Superblock::parse(&again, 0).is_err(), "a wrong checksum was accepted");

    assert!(superblock.log_len.is_power_of_two() && superblock.log_len <= MAX_DEVICE_LEN);
    let area = superblock.data_area(media.len());
    assert_eq!(area.start, LOG_OFFSET + superblock.log_len);
    assert!(area.start <= area.end && area.end <= media.len());
    assert!(area.start.is_multiple_of(ALLOC_UNIT) && area.end.is_multiple_of(ALLOC_UNIT));
}
