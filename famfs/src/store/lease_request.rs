// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the host asks a master for its lease: a number that is not zero, in a cache line of its own.
//!
//! A master that only follows the log keeps the lease, so that no clone of it writes. It looks at
//! this number, and releases the lease if none of its programs writes. The host clears the number
//! when it has the lease. If it was killed before that, the next program of the master that waited
//! for it clears it.

use std::thread;
use std::time::{Duration, Instant};

use crate::format::LEASE_REQUEST_OFFSET;
use crate::media::{Media, MediaError};

/// How long whoever was asked leaves the lease to the host, and how long the host expects an idle
/// master to need for that.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether the host asks for the lease.
///
/// # Errors
/// The number cannot be read.
pub fn is_asked(media: &dyn Media) -> Result<bool, MediaError> {
    let mut number = [0; 8];
    media.refresh(LEASE_REQUEST_OFFSET, 8)?;
    media.read_at(LEASE_REQUEST_OFFSET, &mut number)?;
    Ok(number != [0; 8])
}

/// Asks for the lease.
pub(super) fn ask(media: &dyn Media) -> Result<(), MediaError> {
    store(media, 1)?;
    media.announce();
    Ok(())
}

/// Ends the request, answered or not.
pub(super) fn clear(media: &dyn Media) -> Result<(), MediaError> {
    store(media, 0)
}

fn store(media: &dyn Media, number: u64) -> Result<(), MediaError> {
    media.write_at(LEASE_REQUEST_OFFSET, &number.to_le_bytes())?;
    media.show(LEASE_REQUEST_OFFSET, 8)
}

/// Looks until `done`, for at most [`GRACE`]; returns whether it was.
pub(super) fn wait_until(
    mut done: impl FnMut() -> Result<bool, MediaError>,
) -> Result<bool, MediaError> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() >= GRACE {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
    Ok(true)
}
