// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process behind a device: takes requests from the kernel and carries them out.
//!
//! A thread for each queue waits in io_uring for requests and carries each one out at once, by
//! system calls of its own. The device is made with user recovery: when the process dies, the
//! kernel holds the requests back, those that were under way too, and hands them to the next
//! process.

use std::io;
use std::sync::Arc;

use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::helpers::IoBuf;
use libublk::io::{BufDesc, BufDescList, UblkDev, UblkIOCtx, UblkQueue};
use libublk::{UblkError, UblkFlags, UblkIORes, sys};
use tracing::error;

use super::driver::{self, DriverError, Features, failed};
use super::export::Export;

/// What the library calls our devices.
const TARGET: &str = "vhost-famfs";

/// Most requests of a queue at a time.
const DEPTH: u16 = 64;

/// Largest request in bytes.
const REQUEST: u32 = 512 << 10;

/// What the kernel need not cut zeroing and discarding below; a bit of the map for each sector
/// of it is written at once.
const ZEROED_SECTORS: u32 = (128 << 20) / 512;

/// Queues are of use for as many processors as submit requests; more than these only take memory.
const MAX_QUEUES: u16 = 4;

/// Which device to serve.
#[derive(Clone, Copy, Debug)]
pub enum Device {
    /// A new one, of this number if there is one.
    New(Option<u32>),
    /// One whose server is gone.
    Orphan(u32),
}

/// How to serve it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The device.
    pub device: Device,
    /// Writes are refused by the block layer already.
    pub read_only: bool,
    /// Requests wait for another process if this one dies. Without, the device goes.
    pub recoverable: bool,
    /// Number of queues; one for each processor if not given, up to [`MAX_QUEUES`].
    pub queues: Option<u16>,
    /// The device belongs to a user without privileges.
    pub unprivileged: bool,
}

/// Serves a device until it is stopped, and removes it. `prepare` is called with its number when
/// that is known, `started` when it can be used.
pub fn serve(
    export: Export,
    options: Options,
    prepare: impl FnOnce(u32) -> io::Result<()>,
    started: impl FnOnce(u32) + Send + Sync + 'static,
) -> Result<(), DriverError> {
    let features = Features::of_driver()?;
    let control = control(options, features)?;
    let id = control.dev_info().dev_id;
    if let Device::Orphan(_) = options.device {
        // The library returns this one answer as if it were a success.
        let answer =
            control.start_user_recover().map_err(failed(format!("recover device {id}")))?;
        if answer < 0 {
            let err = UblkError::UringIOError(answer);
            return Err(failed(format!("recover device {id}: its server still runs"))(err));
        }
    }
    let export = Arc::new(export);
    let served = Arc::clone(&export);
    let result = control.run_target(
        |device| {
            prepare(id)?;
            set_parameters(device, &export, options.read_only);
            Ok(())
        },
        move |queue, device| {
            if let Err(err) = serve_queue(queue, device, &served) {
                error!(device = id, queue, err = %driver::cause(err), "queue ended");
            }
        },
        move |control| started(control.dev_info().dev_id),
    );
    // The queues have ended: nobody writes any more.
    if let Err(err) = export.flush() {
        error!(device = id, %err, "the last flush failed; what was not flushed before is lost");
    }
    let result = result.map(drop).map_err(failed(format!("serve device {id}")));
    if result.is_ok() {
        // Without waiting for programs that still have it open. Others may have removed it before.
        let _ = control.del_dev_async();
    }
    result
}

fn control(options: Options, features: Features) -> Result<UblkCtrl, DriverError> {
    let mut flags = 0;
    if options.recoverable {
        flags |= sys::UBLK_F_USER_RECOVERY | sys::UBLK_F_USER_RECOVERY_REISSUE;
    }
    if options.unprivileged {
        flags |= sys::UBLK_F_UNPRIVILEGED_DEV;
    }
    if !features.has(flags) {
        return Err(DriverError::Feature("recovery by the user, or devices of users"));
    }
    let (id, role, action) = match options.device {
        Device::New(None) => (-1, UblkFlags::UBLK_DEV_F_ADD_DEV, "make a device".to_owned()),
        // The library removes the device when it finds that it cannot make it.
        Device::New(Some(id)) if driver::exists(id) => return Err(DriverError::Exists(id)),
        Device::New(Some(id)) => {
            (number(id), UblkFlags::UBLK_DEV_F_ADD_DEV, format!("make device {id}"))
        }
        Device::Orphan(id) => {
            (number(id), UblkFlags::UBLK_DEV_F_RECOVER_DEV, format!("recover device {id}"))
        }
    };
    let queues = match options.device {
        // As many as it has: the library counts on that.
        Device::Orphan(id) => driver::control(id)?.dev_info().nr_hw_queues,
        Device::New(_) => options.queues.unwrap_or_else(default_queues),
    };
    UblkCtrlBuilder::default()
        .name(TARGET)
        .id(id)
        .nr_queues(queues)
        .depth(DEPTH)
        .io_buf_bytes(REQUEST)
        .ctrl_flags(u64::from(flags))
        .dev_flags(role)
        .build()
        .map_err(failed(action))
}

fn number(id: u32) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}

fn default_queues() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors).unwrap_or(MAX_QUEUES).min(MAX_QUEUES)
}

/// Asks the kernel to stop a device: its server ends, requests fail.
pub fn stop(id: u32) -> Result<(), DriverError> {
    driver::control(id)?.kill_dev().map(drop).map_err(failed(format!("stop device {id}")))
}

fn set_parameters(device: &mut UblkDev, export: &Export, read_only: bool) {
    device.set_default_params(export.size());
    let params = &mut device.tgt.params;
    params.basic.attrs |= sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA;
    if read_only {
        params.basic.attrs |= sys::UBLK_ATTR_READ_ONLY;
        return;
    }
    params.types |= sys::UBLK_PARAM_TYPE_DISCARD;
    params.discard = sys::ublk_param_discard {
        discard_granularity: 4096,
        max_discard_sectors: ZEROED_SECTORS,
        max_write_zeroes_sectors: ZEROED_SECTORS,
        max_discard_segments: 1,
        ..Default::default()
    };
}

/// Carries out the requests of one queue until the device is stopped.
fn serve_queue(id: u16, device: &UblkDev, export: &Export) -> Result<(), UblkError> {
    let mut buffers = device.alloc_queue_io_bufs();
    let queue = UblkQueue::new(id, device)?
        .submit_fetch_commands_unified(BufDescList::Slices(Some(&buffers)))?;
    loop {
        let round = queue.flush_and_wake_io_tasks(
            |data, entry, _| {
                // Anything else is the end of a request slot: the device is being stopped.
                if i64::from(entry.result()) == i64::from(sys::UBLK_IO_RES_OK) {
                    answer(&queue, UblkIOCtx::user_data_to_tag(data), &mut buffers, export);
                }
            },
            1,
        );
        match round {
            Ok(_) => {}
            Err(UblkError::QueueIsDown) => return Ok(()),
            Err(UblkError::IOError(err)) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// Carries out one request and gives the result back.
fn answer(queue: &UblkQueue<'_>, tag: u32, buffers: &mut [IoBuf<u8>], export: &Export) {
    let Ok(tag) = u16::try_from(tag) else { return };
    let Some(buffer) = buffers.get_mut(usize::from(tag)) else { return };
    let request = Request::of(queue.get_iod(tag));
    let result = request.carry_out(export, buffer.as_mut_slice()).unwrap_or_else(|err| {
        error!(queue = queue.get_qid(), ?request, %err, "request failed");
        -err.raw_os_error().unwrap_or(libc::EIO)
    });
    let buffer = BufDesc::Slice(buffer.as_slice());
    if let Err(err) = queue.complete_io_cmd_unified(tag, buffer, Ok(UblkIORes::Result(result))) {
        error!(queue = queue.get_qid(), tag, %err, "cannot answer a request");
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    operation: u32,
    /// `UBLK_IO_F_*`.
    flags: u32,
    offset: u64,
    len: u64,
}

impl Request {
    fn of(descriptor: &sys::ublksrv_io_desc) -> Self {
        Self {
            operation: descriptor.op_flags & 0xff,
            flags: descriptor.op_flags & !0xff,
            offset: descriptor.start_sector.saturating_mul(512),
            len: u64::from(descriptor.nr_sectors) * 512,
        }
    }

    /// The number of bytes done, as the kernel wants it.
    fn carry_out(self, export: &Export, buffer: &mut [u8]) -> io::Result<i32> {
        let Self { operation, flags, offset, len } = self;
        let part = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len));
        match operation {
            sys::UBLK_IO_OP_READ => {
                export.read(offset, part.ok_or(io::ErrorKind::InvalidInput)?)?
            }
            sys::UBLK_IO_OP_WRITE => {
                export.write(offset, part.ok_or(io::ErrorKind::InvalidInput)?)?;
            }
            sys::UBLK_IO_OP_FLUSH => export.flush()?,
            sys::UBLK_IO_OP_DISCARD => export.discard(offset, len)?,
            sys::UBLK_IO_OP_WRITE_ZEROES => {
                export.write_zeros(offset, len, flags & sys::UBLK_IO_F_NOUNMAP != 0)?;
            }
            _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
        if flags & sys::UBLK_IO_F_FUA != 0 && operation != sys::UBLK_IO_OP_FLUSH {
            export.flush()?;
        }
        i32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput.into())
    }
}
