// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process behind a device: receives requests from the kernel and carries them out.
//!
//! Each [`queue`] has a thread that waits for requests in io_uring. Devices are created with user
//! recovery: if the process dies, the kernel holds back all requests, including those in progress,
//! and passes them to the next process.

use std::io;
use std::sync::{Arc, OnceLock};

use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::UblkDev;
use libublk::{UblkError, UblkFlags, sys};
use tracing::error;

use crate::driver::{self, DriverError, Features, failed};
use crate::export::Export;
use crate::queue;

/// The library's name for our devices.
const TARGET: &str = "vhost-famfs";

/// Maximum number of concurrent requests of a queue.
const DEPTH: u16 = 64;

/// Largest request in bytes.
const REQUEST: u32 = 1 << 20;

/// Largest range that the kernel may zero or discard with one request; the map bits of all its
/// sectors are written at once.
const ZEROED_SECTORS: u32 = (128 << 20) / 512;

/// More queues would only use memory.
const MAX_QUEUES: u16 = 4;

/// Which device to serve.
#[derive(Clone, Copy, Debug)]
pub enum Device {
    /// A new device.
    New {
        /// Its number; the next free one if `None`.
        id: Option<u32>,
        /// Number of queues; if `None`, one per two processors, up to [`MAX_QUEUES`].
        queues: Option<u16>,
        /// Do not use registered buffers, even if the driver has them.
        copy: bool,
    },
    /// A device without a server.
    Orphan(u32),
}

/// How to serve it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The device.
    pub device: Device,
    /// Whether the block layer refuses writes.
    pub read_only: bool,
    /// Whether requests wait for another process if this one dies. If not, the device is removed.
    pub recoverable: bool,
    /// Whether the device belongs to an unprivileged user.
    pub unprivileged: bool,
}

/// Serves a device until it is stopped, then removes it. Calls `prepare` with its number once that
/// is known, and `started` once the device can be used.
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
            return Err(failed(format!("recover device {id}: its server is still running"))(err));
        }
    }
    let export = Arc::new(export);
    let served = Arc::clone(&export);
    // Open it before there are queues, so that an error concerns the whole device.
    let pages = Arc::new(OnceLock::new());
    let pages_of_queues = Arc::clone(&pages);
    let result = control.run_target(
        |device| {
            prepare(id)?;
            set_parameters(device, &export, options.read_only);
            if Features::of_device(&device.dev_info).has(driver::REGISTERED) {
                let file = queue::pages(device)?;
                pages.get_or_init(|| file);
            }
            Ok(())
        },
        move |number, device| {
            if let Err(err) = queue::serve(number, device, &served, pages_of_queues.get()) {
                error!(device = id, queue = number, err = %driver::cause(err), "queue ended");
            }
        },
        move |control| started(control.dev_info().dev_id),
    );
    // The queues have ended, so nothing more is written.
    if let Err(err) = export.flush() {
        error!(device = id, %err, "the last flush failed; data not flushed before is lost");
    }
    let result = result.map(drop).map_err(failed(format!("serve device {id}")));
    if result.is_ok() {
        // Do not wait for programs that still have it open. Unprivileged users may not do that: the
        // library removes their devices when `control` is dropped.
        let removed = control.del_dev_async();
        if removed.is_err_and(|err| driver::cause(err).raw_os_error() == Some(libc::ENODEV)) {
            // Another process has already removed it, and another device may have its number by
            // now.
            control.disown();
        }
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
        return Err(DriverError::Feature("recovery by the user, or devices of unprivileged users"));
    }
    let builder = UblkCtrlBuilder::default().name(TARGET).depth(DEPTH).io_buf_bytes(REQUEST);
    match options.device {
        Device::New { id, queues, copy } => {
            // The driver does not give users the pages of a request.
            if !copy && !options.unprivileged && features.has(driver::REGISTERED) {
                flags |= driver::REGISTERED;
            }
            let queues = queues.unwrap_or_else(default_queues);
            add(builder.nr_queues(queues).ctrl_flags(u64::from(flags)), id)
        }
        Device::Orphan(id) => {
            // Use the existing number of queues, because the library relies on it.
            let queues = driver::control(id)?.dev_info().nr_hw_queues;
            let orphan = builder.id(number(id)).nr_queues(queues).ctrl_flags(u64::from(flags));
            let orphan = orphan.dev_flags(UblkFlags::UBLK_DEV_F_RECOVER_DEV);
            orphan.build().map_err(failed(format!("recover device {id}")))
        }
    }
}

/// Creates a device. If the library finds that it cannot create it, it removes the device with that
/// number, no matter whose it is. So it must not be called with a number in use. Our processes
/// check one after the other; another program would have to create its device between the two lines
/// below.
fn add(builder: UblkCtrlBuilder<'_>, id: Option<u32>) -> Result<UblkCtrl, DriverError> {
    let builder = builder.dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV);
    let Some(id) = id else {
        return builder.build().map_err(failed("create a device"));
    };
    let _alone = driver::lock()?;
    if driver::exists(id) {
        return Err(DriverError::Exists(id));
    }
    builder.id(number(id)).build().map_err(failed(format!("create device {id}")))
}

fn number(id: u32) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}

/// The thread of a queue runs on the processors from which the queue receives requests. With two of
/// them, it can copy on one while the requesting program continues on the other.
fn default_queues() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors.div_ceil(2)).unwrap_or(MAX_QUEUES).min(MAX_QUEUES)
}

/// Asks the kernel to stop a device: its server ends, and requests fail.
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
