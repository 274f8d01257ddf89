// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lists and removes devices.

use std::fmt::{self, Display};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use famfs::system::process::Handle;
use famfs::text::units::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;

use crate::driver::{self, DriverError, Facts, State};
use crate::export::Opened;
use crate::record::{Record, RecordError, Records};
use crate::server;
use crate::source::Source;

/// How long a server may take to end after its device has been stopped: it flushes data first.
const END: Duration = Duration::from_secs(60);
/// How long the kernel may take to notice that a server has ended: it frees the process's resources
/// first.
const NOTICE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(20);

/// Why a device cannot be removed or recovered.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device does not exist.
    #[error("there is no device {0}; `vhost-famfs ublk list` shows all devices")]
    None(u32),
    /// The device belongs to another program or user.
    #[error("device {0} was created by another program or user; only that program can remove it")]
    Foreign(u32),
    /// It is mounted, or opened exclusively.
    #[error(
        "device {id} is in use: {} is mounted or has a holder; unmount it, or use --force, which \
         makes all further access to it fail", driver::node(*.id).display()
    )]
    Busy {
        /// Its number.
        id: u32,
    },
    /// Its server is running.
    #[error("device {id} needs no recovery: it is {}, served by process {server}", .state.name())]
    Served {
        /// Its number.
        id: u32,
        /// The state of the device.
        state: State,
        /// The process id of its server.
        server: i32,
    },
    /// It was not made to be recovered.
    #[error(
        "device {0} cannot be recovered: the changes of an --ephemeral device are lost when its \
         server ends; remove the device with `vhost-famfs ublk del {0}`"
    )]
    Ephemeral(u32),
    /// Its overlay no longer exists.
    #[error(
        "device {0} cannot be recovered: its overlay no longer exists, see `vhost-famfs ublk \
         list`; restore it, or remove the device with `vhost-famfs ublk del {0}`"
    )]
    NoOverlay(u32),
    /// Its overlay has been replaced.
    #[error(
        "device {0} cannot be recovered: another overlay has the name of its overlay, see \
         `vhost-famfs ublk list`; restore its own overlay"
    )]
    OtherOverlay(u32),
    /// Its image or pool has changed meanwhile.
    #[error(
        "device {id} cannot be recovered: it has {}, but its image or pool now has {}; restore the \
         image or pool from which it was created", Bytes(*.expected), Bytes(*.found)
    )]
    Size {
        /// Its number.
        id: u32,
        /// Its size when it was created.
        expected: u64,
        /// The size found.
        found: u64,
    },
    /// The data cannot be flushed.
    #[error(
        "device {id}: cannot flush it; use --force to remove it anyway and lose the unflushed data"
    )]
    Flush {
        /// Its number.
        id: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Its server does not end.
    #[error("device {id} was stopped, but its server, process {server}, is still running")]
    Stays {
        /// Its number.
        id: u32,
        /// The process id of its server.
        server: u32,
    },
    /// The kernel has not yet removed it.
    #[error("device {0} was removed, but the kernel still lists it; try again")]
    Lingers(u32),
    /// The driver refuses.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// sysfs cannot be read.
    #[error("cannot list the devices")]
    List(#[source] io::Error),
}

/// A device, as `list` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its number.
    pub id: u32,
    /// The block special file.
    pub device: String,
    /// Its state; `None` if the kernel does not tell us.
    pub state: Option<State>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// The process that serves it, or served it.
    pub server: Option<i32>,
    /// Whether data is passed between programs and files without a copy, where possible.
    pub zero_copy: Option<bool>,
    /// What it shows; `None` if another program or user created it.
    pub source: Option<Source>,
    /// Whom it is for, if whoever created it said so.
    pub owner: Option<String>,
}

/// All devices of the host.
pub fn list(records: &Records) -> Result<Vec<Report>, DeviceError> {
    let ids = driver::ids().map_err(DeviceError::List)?;
    ids.into_iter()
        .map(|id| {
            let facts = driver::facts(id).ok();
            let record = records.get(id)?;
            let owner = record.as_ref().and_then(|record| record.owner.clone());
            Ok(Report {
                id,
                device: driver::node(id).display().to_string(),
                state: facts.map(|facts| facts.state),
                size: driver::size(id),
                server: facts.map(|facts| facts.server),
                zero_copy: facts.map(|facts| facts.registered),
                source: record.map(|record| record.source),
                owner,
            })
        })
        .collect()
}

/// Removes all devices of some owners, even if they are in use. Returns how many there were. A
/// device whose record cannot be read has no owner.
pub fn delete_of(is_owner: &dyn Fn(&str) -> bool) -> Result<usize, DeviceError> {
    let ids = driver::ids().map_err(DeviceError::List)?;
    if ids.is_empty() {
        return Ok(0);
    }
    let records = Records::open()?;
    let mut count = 0;
    for id in ids {
        let owner = records.get(id).ok().flatten().and_then(|record| record.owner);
        if owner.is_some_and(|owner| is_owner(&owner)) {
            match delete(&records, id, true) {
                // Its server has just removed it.
                Ok(()) | Err(DeviceError::None(_)) => count += 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

/// The reports as a table.
pub fn table(reports: &[Report]) -> impl Display {
    struct Table<'r>(&'r [Report]);
    impl Display for Table<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:<14} {:<8} {:>14} {:>8}  SHOWS", "DEVICE", "STATE", "SIZE", "SERVER")?;
            for report in self.0 {
                let state = report.state.map_or("?", State::name);
                let size = report.size.map_or_else(|| "-".to_owned(), |n| Bytes(n).to_string());
                let server = report.server.filter(|server| *server > 0);
                let server = server.map_or_else(|| "-".to_owned(), |server| server.to_string());
                let shows = report.source.as_ref().map_or_else(
                    || "created by another program or user".to_owned(),
                    Source::to_string,
                );
                let device = &report.device;
                write!(f, "\n{device:<14} {state:<8} {size:>14} {server:>8}  {shows}")?;
            }
            Ok(())
        }
    }
    Table(reports)
}

/// Removes a device; its server ends. Without `force`, a device that is in use is not removed.
pub fn delete(records: &Records, id: u32, force: bool) -> Result<(), DeviceError> {
    if !driver::exists(id) {
        records.remove(id)?;
        return Err(DeviceError::None(id));
    }
    if records.get(id)?.is_none() {
        return Err(DeviceError::Foreign(id));
    }
    let server = live_server(driver::facts(id)?);
    match flush_unused(id, server.as_ref()) {
        Err(_) if force => {}
        result => result?,
    }
    server::stop(id)?;
    if let Some(server) = server {
        // The server removes the device, unless it dies before.
        if !server.wait(END) {
            return Err(DeviceError::Stays { id, server: server.pid() });
        }
    }
    remove_orphan(id)?;
    Ok(records.remove(id)?)
}

/// The process that serves a device. After its server was killed, a device stays live for a moment.
fn live_server(facts: Facts) -> Option<Handle> {
    let pid = u32::try_from(facts.server).ok().filter(|_| facts.state == State::Live)?;
    Handle::open(pid).ok().filter(Handle::is_alive)
}

/// Removes a device without a server, if it still exists.
fn remove_orphan(id: u32) -> Result<(), DeviceError> {
    if driver::exists(id) {
        let removed = driver::control(id).and_then(|control| {
            // Devices of unprivileged users can only be removed by waiting until nobody has them
            // open.
            let of_user = driver::is_of_user(&control.dev_info());
            let removed = if of_user { control.del_dev() } else { control.del_dev_async() };
            removed.map(drop).map_err(driver::failed(format!("remove device {id}")))
        });
        // The server itself may have removed it in the meantime.
        if driver::exists(id) {
            removed?;
        }
    }
    wait_until(NOTICE, || Ok(!driver::exists(id)))?.then_some(()).ok_or(DeviceError::Lingers(id))
}

/// Polls; returns whether the answer was yes within a time.
fn wait_until(
    limit: Duration,
    mut is_so: impl FnMut() -> Result<bool, DeviceError>,
) -> Result<bool, DeviceError> {
    let end = Instant::now() + limit;
    while !is_so()? {
        if Instant::now() > end {
            return Ok(false);
        }
        thread::sleep(TICK);
    }
    Ok(true)
}

/// Makes sure that nobody uses a device, and flushes it if it has a server.
fn flush_unused(id: u32, server: Option<&Handle>) -> Result<(), DeviceError> {
    let busy = |source: io::Error| match Errno::from_io_error(&source) {
        Some(Errno::BUSY) => DeviceError::Busy { id },
        _ => DeviceError::Flush { id, source },
    };
    match open_alone(id) {
        // Not started, or already gone.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) if Errno::from_io_error(&err) == Some(Errno::NXIO) => Ok(()),
        Err(err) => Err(busy(err)),
        Ok(file) => match server {
            // Without a server, the flush would never end.
            None => Ok(()),
            Some(server) => match file.sync_all() {
                Err(err) if server.is_alive() => Err(busy(err)),
                _ => Ok(()),
            },
        },
    }
}

/// Opens a block device exclusively, as a mount does.
fn open_alone(id: u32) -> io::Result<File> {
    let exclusive = OFlags::EXCL.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(exclusive).open(driver::node(id))
}

/// Writes back what programs wrote to a device through the page cache.
pub fn flush(id: u32) -> io::Result<()> {
    File::open(driver::node(id))?.sync_all()
}

/// The record of a device without a server, so that another process can serve it.
pub fn orphan(records: &Records, id: u32) -> Result<Record, DeviceError> {
    if !driver::exists(id) {
        return Err(DeviceError::None(id));
    }
    let record = records.get(id)?.ok_or(DeviceError::Foreign(id))?;
    if !record.source.is_recoverable() {
        return Err(DeviceError::Ephemeral(id));
    }
    let mut facts = driver::facts(id)?;
    wait_until(NOTICE, || {
        facts = driver::facts(id)?;
        Ok(facts.state != State::Live || live_server(facts).is_some())
    })?;
    if facts.state != State::Waiting && facts.state != State::Failing {
        let (state, server) = (facts.state, facts.server);
        return Err(DeviceError::Served { id, state, server });
    }
    Ok(record)
}

/// Refuses to serve a device with something other than what it was created from.
pub fn check_same(id: u32, record: &Record, opened: &Opened) -> Result<(), DeviceError> {
    // A new overlay would be empty, and replace what programs have written.
    if opened.new_overlay.is_some() {
        return Err(DeviceError::NoOverlay(id));
    }
    if record.overlay != opened.overlay {
        return Err(DeviceError::OtherOverlay(id));
    }
    let found = opened.export.size();
    match driver::size(id) {
        Some(expected) if expected != found => Err(DeviceError::Size { id, expected, found }),
        _ => Ok(()),
    }
}
