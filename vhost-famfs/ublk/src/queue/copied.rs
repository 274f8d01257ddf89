// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver copies the data between the pages of a request and the buffer of its slot in the
//! process.

use libublk::UblkError;
use libublk::io::{BufDesc, BufDescList, UblkDev, UblkQueue};

use super::{answer, is_request, run, tag};
use crate::export::Export;
use crate::request::Request;

/// Serves the requests of one queue until the device is stopped.
pub fn serve(id: u16, device: &UblkDev, export: &Export) -> Result<(), UblkError> {
    let mut buffers = device.alloc_queue_io_bufs();
    let queue = UblkQueue::new(id, device)?
        .submit_fetch_commands_unified(BufDescList::Slices(Some(&buffers)))?;
    run(&queue, |data, result| {
        let tag = tag(data);
        if is_request(result)
            && let Some(buffer) = buffers.get_mut(usize::from(tag))
        {
            let request = Request::of(queue.get_iod(tag));
            let result = request.carry_out(export, buffer.as_mut_slice());
            answer(&queue, tag, request, result, BufDesc::Slice(buffer.as_slice()));
        }
    })
}
