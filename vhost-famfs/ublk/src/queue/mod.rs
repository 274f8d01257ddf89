// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A queue of a device: a thread that receives requests through io_uring and answers them.
//!
//! The data can be transferred in two ways: [`copied`] works with every driver; [`registered`]
//! needs a driver with registered buffers, and copies less.

mod copied;
mod registered;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::time::Instant;

use famfs::system::throttle::Throttle;

use libublk::io::{BufDesc, UblkDev, UblkIOCtx, UblkQueue};
use libublk::{UblkError, UblkIORes, sys};
use tracing::error;

use super::export::Export;
use super::request::Request;
pub use registered::pages;

thread_local! {
    /// The lines of this thread's queue about requests that failed.
    static FAILED: RefCell<Throttle> = RefCell::default();
}

/// Serves the requests of one queue until the device is stopped. With registered buffers, `pages`
/// is the result of [`pages`].
pub fn serve(
    id: u16,
    device: &UblkDev,
    export: &Export,
    pages: Option<&File>,
) -> Result<(), UblkError> {
    match pages {
        Some(pages) => registered::serve(id, device, export, pages),
        None => copied::serve(id, device, export),
    }
}

/// Calls `handle` with the user data and result of every completion of the ring, until the device
/// is stopped.
fn run(queue: &UblkQueue<'_>, mut handle: impl FnMut(u64, i32)) -> Result<(), UblkError> {
    loop {
        match queue.flush_and_wake_io_tasks(|data, entry, _| handle(data, entry.result()), 1) {
            Ok(_) => {}
            Err(UblkError::QueueIsDown) => return Ok(()),
            Err(UblkError::IOError(err)) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// The slot that user data belongs to.
fn tag(data: u64) -> u16 {
    // The library returns 16 bits in a larger integer.
    u16::try_from(UblkIOCtx::user_data_to_tag(data)).unwrap_or(u16::MAX)
}

/// Whether a result announces a request. Anything else ends the slot, because the device is being
/// stopped.
fn is_request(result: i32) -> bool {
    i64::from(result) == i64::from(sys::UBLK_IO_RES_OK)
}

/// Returns the result of a request, together with the buffer for the next request in its slot.
fn answer(
    queue: &UblkQueue<'_>,
    tag: u16,
    request: Request,
    result: io::Result<i32>,
    buffer: BufDesc<'_>,
) {
    let result = result.unwrap_or_else(|err| {
        // Whoever has the device can repeat such a request as often as it likes.
        if let Some(suppressed) = FAILED.with_borrow_mut(|lines| lines.admit(Instant::now())) {
            error!(queue = queue.get_qid(), ?request, %err, suppressed, "request failed");
        }
        -err.raw_os_error().unwrap_or(libc::EIO)
    });
    if let Err(err) = queue.complete_io_cmd_unified(tag, buffer, Ok(UblkIORes::Result(result))) {
        error!(queue = queue.get_qid(), tag, %err, "cannot answer a request");
    }
}
