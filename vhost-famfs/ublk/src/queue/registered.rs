// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pages of a request are in the ring's buffer table, at the index of its slot. A read from one
//! piece of a file goes there directly: with a system call from a mapped file, through io_uring
//! from any other. Everything else uses a buffer of the process and system calls. They are faster
//! than io_uring for small data, and for writes, which most file systems leave to workers of the
//! ring.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr;

use io_uring::{opcode, types};
use libublk::io::{BufDesc, BufDescList, UblkDev, UblkIOCtx, UblkQueue, with_task_io_ring};
use libublk::{UblkError, sys};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::{answer, is_request, run, tag};
use crate::export::{Export, Place};
use crate::request::Request;
use crate::sys::write_volatile_at;

/// Smaller reads are copied: a copy takes less time than a second round of the ring. It also takes
/// less time than an answer, because several answers are sent together.
const WORTH_A_ROUND: u64 = 16 << 10;

/// A queue and its resources.
struct Registered<'d> {
    queue: &'d UblkQueue<'d>,
    export: &'d Export,
    /// Copies data from and to the pages of requests.
    pages: &'d File,
    buffer: Vec<u8>,
}

/// Serves the requests of one queue until the device is stopped.
pub fn serve(id: u16, device: &UblkDev, export: &Export, pages: &File) -> Result<(), UblkError> {
    let slots: Vec<_> = (0..device.dev_info.queue_depth).map(slot).collect();
    let queue =
        UblkQueue::new(id, device)?.submit_fetch_commands_unified(BufDescList::AutoRegs(&slots))?;
    let largest = usize::try_from(device.dev_info.max_io_buf_bytes).unwrap_or(0);
    let mut registered = Registered { queue: &queue, export, pages, buffer: vec![0; largest] };
    run(&queue, |data, result| {
        let tag = tag(data);
        if data == read_data(tag) {
            registered.finish_read(tag, result);
        } else if is_request(result) {
            registered.take(tag);
        }
    })
}

/// The driver's file of a device, through which the pages of requests can be read and written. The
/// library keeps the file and only provides its number.
pub fn pages(device: &UblkDev) -> io::Result<File> {
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, device.tgt.fds[0], PidfdGetfdFlags::empty())?.into())
}

/// Where the driver must put the pages of a request. If it cannot, the request says so.
fn slot(tag: u16) -> sys::ublk_auto_buf_reg {
    let flags = u8::try_from(sys::UBLK_AUTO_BUF_REG_FALLBACK).unwrap_or(0);
    sys::ublk_auto_buf_reg { index: tag, flags, ..Default::default() }
}

/// User data that identifies one of our reads on completion.
fn read_data(tag: u16) -> u64 {
    UblkIOCtx::build_user_data(tag, sys::UBLK_IO_OP_READ, 0, true)
}

impl Registered<'_> {
    /// Starts to process a new request.
    fn take(&mut self, tag: u16) {
        let request = Request::of(self.queue.get_iod(tag));
        let place = match request.operation {
            sys::UBLK_IO_OP_READ => self.export.place(request.offset, request.len),
            _ => None,
        };
        let done = place.is_some_and(|place| {
            self.read_mapped(tag, request, place) || self.start_read(tag, request, place)
        });
        if !done {
            self.copy(tag, request);
        }
    }

    /// Copies mapped data to the pages of a request, if all of it is mapped.
    fn read_mapped(&self, tag: u16, request: Request, place: Place<'_>) -> bool {
        let Some(bytes) = place.bytes else { return false };
        let start = UblkIOCtx::ublk_user_copy_pos(self.queue.get_qid(), tag, 0);
        let all = write_volatile_at(self.pages, &bytes, start).is_ok_and(|n| n == bytes.len());
        if all {
            self.answer(tag, request, request.done());
            if request.len >= WORTH_A_ROUND {
                Self::tell();
            }
        }
        all
    }

    /// Sends answers to the kernel now: a program that waits for a large one must not wait for the
    /// copies of the requests after it.
    fn tell() {
        // Answers that it does not accept now are sent with the next ones.
        let _ = with_task_io_ring(|ring| ring.submit());
    }

    /// Starts to read into the pages of a request, if that is possible at once and worth it.
    fn start_read(&self, tag: u16, request: Request, place: Place<'_>) -> bool {
        let is_registered = request.flags & sys::UBLK_IO_F_NEED_REG_BUF == 0;
        if !is_registered || request.len < WORTH_A_ROUND {
            return false;
        }
        let Ok(len) = u32::try_from(request.len) else { return false };
        // In a registered buffer, the address is the offset from its start.
        let start = ptr::null_mut();
        let file = types::Fd(place.file.as_raw_fd());
        let read = opcode::ReadFixed::new(file, start, len, tag).offset(place.offset).build();
        self.queue.ublk_submit_sqe_sync(read.user_data(read_data(tag))).is_ok()
    }

    /// Answers a request when its read has completed. A read that failed or was short is repeated
    /// by copying, which determines the cause.
    fn finish_read(&mut self, tag: u16, result: i32) {
        let request = Request::of(self.queue.get_iod(tag));
        match request.done() {
            Ok(all) if all == result => self.answer(tag, request, Ok(result)),
            _ => self.copy(tag, request),
        }
    }

    fn copy(&mut self, tag: u16, request: Request) {
        let result = self.carry_out(tag, request);
        self.answer(tag, request, result);
    }

    fn carry_out(&mut self, tag: u16, request: Request) -> io::Result<i32> {
        let start = UblkIOCtx::ublk_user_copy_pos(self.queue.get_qid(), tag, 0);
        let data = request.part_of(&mut self.buffer);
        if request.operation == sys::UBLK_IO_OP_WRITE {
            self.pages.read_exact_at(data.ok_or(io::ErrorKind::InvalidInput)?, start)?;
        }
        let done = request.carry_out(self.export, &mut self.buffer)?;
        if request.operation == sys::UBLK_IO_OP_READ {
            let data = request.part_of(&mut self.buffer).ok_or(io::ErrorKind::InvalidInput)?;
            self.pages.write_all_at(data, start)?;
        }
        Ok(done)
    }

    fn answer(&self, tag: u16, request: Request, result: io::Result<i32>) {
        answer(self.queue, tag, request, result, BufDesc::AutoReg(slot(tag)));
    }
}
