// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's driver: whether it is there, whether this user may use it, and which devices it
//! has.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use libublk::ctrl::UblkCtrl;
use libublk::{UblkError, sys};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The flags of a device with registered buffers. As long as a request is with the process, the
/// pages of the request are in the buffer table of its queue's io_uring. The process can also
/// access them with pread(2) and pwrite(2) on the driver's file.
pub const REGISTERED: u32 =
    sys::UBLK_F_SUPPORT_ZERO_COPY | sys::UBLK_F_AUTO_BUF_REG | sys::UBLK_F_USER_COPY;

/// The device file for creating devices (`CTRL_PATH` of libublk).
const CONTROL: &str = "/dev/ublk-control";

/// A directory with an entry for each device, whether or not its server is alive.
const CLASS: &str = "/sys/class/ublk-char";

/// Why the driver does not do what was requested.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// There is no driver.
    #[error(
        "no {CONTROL}: the ublk driver is not loaded; load it with `modprobe ublk_drv` (Linux 6.5 \
         or newer with CONFIG_BLK_DEV_UBLK)"
    )]
    Missing,
    /// The user may not use the driver.
    #[error(
        "{CONTROL}: no permission to use it; run this command as root, or see \"Without root\" in \
         docs/using/block-devices.md"
    )]
    Permission,
    /// The device file cannot be opened.
    #[error("{CONTROL}: cannot open it")]
    Open(#[source] io::Error),
    /// The lock cannot be taken.
    #[error("{CONTROL}: cannot lock it")]
    Lock(#[source] io::Error),
    /// The driver is too old.
    #[error("the kernel's ublk driver does not support {0}; use Linux 6.5 or newer")]
    Feature(&'static str),
    /// The device number is in use.
    #[error("device {0} exists already; omit --id to use the next free number")]
    Exists(u32),
    /// A control command failed.
    #[error("cannot {action}")]
    Command {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The kernel's answer, taken from an error of the library.
pub fn cause(err: UblkError) -> io::Error {
    match err {
        UblkError::UringIOError(code) | UblkError::OtherError(code) => {
            io::Error::from_raw_os_error(code.saturating_neg())
        }
        UblkError::IOError(source) => source,
        other => io::Error::other(other),
    }
}

/// Adds the attempted action to an error of the library.
pub fn failed(action: impl Into<String>) -> impl FnOnce(UblkError) -> DriverError {
    move |err| DriverError::Command { action: action.into(), source: cause(err) }
}

/// The features of the driver or of a device: `UBLK_F_*` of the kernel's `linux/ublk_cmd.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u64);

fn open_control() -> Result<File, DriverError> {
    OpenOptions::new().read(true).write(true).open(CONTROL).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => DriverError::Missing,
        io::ErrorKind::PermissionDenied => DriverError::Permission,
        _ if Errno::from_io_error(&err) == Some(Errno::NODEV) => DriverError::Missing,
        _ => DriverError::Open(err),
    })
}

/// Waits until no other process of ours is between checking for a device and creating it, and keeps
/// others waiting until the result is dropped.
pub fn lock() -> Result<File, DriverError> {
    let control = open_control()?;
    rustix::fs::flock(&control, FlockOperation::LockExclusive)
        .map_err(|errno| DriverError::Lock(errno.into()))?;
    Ok(control)
}

impl Features {
    /// All features of the driver.
    pub fn of_driver() -> Result<Self, DriverError> {
        open_control()?;
        let features = UblkCtrl::get_features();
        features.map(Self).ok_or(DriverError::Feature("a list of its features"))
    }

    /// The features of a device.
    pub fn of_device(info: &sys::ublksrv_ctrl_dev_info) -> Self {
        Self(info.flags)
    }

    /// Whether it has all of these features.
    pub fn has(self, flags: u32) -> bool {
        self.0 & u64::from(flags) == u64::from(flags)
    }
}

/// The state of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Created but not started, or stopped.
    Stopped,
    /// Running, with a server.
    Live,
    /// Without a server; requests wait until another process recovers the device.
    Waiting,
    /// Without a server; requests fail.
    Failing,
}

impl State {
    /// The state's name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Live => "live",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
        }
    }

    fn from_kernel(state: u16) -> Self {
        match u32::from(state) {
            sys::UBLK_S_DEV_LIVE => Self::Live,
            sys::UBLK_S_DEV_QUIESCED => Self::Waiting,
            sys::UBLK_S_DEV_FAIL_IO => Self::Failing,
            _ => Self::Stopped,
        }
    }
}

/// What the kernel tells about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its state.
    pub state: State,
    /// The process that serves it, or served it.
    pub server: i32,
    /// Whether it uses registered buffers.
    pub registered: bool,
}

/// The device's block special file.
pub fn node(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{id}"))
}

/// The numbers of all devices, including those of other programs.
pub fn ids() -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(CLASS) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("ublkc"));
        ids.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Whether a device with that number exists.
pub fn exists(id: u32) -> bool {
    Path::new(CLASS).join(format!("ublkc{id}")).exists()
}

/// The size of the block device in bytes, according to the block layer.
pub fn size(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/block/ublkb{id}/size")).ok()?;
    text.trim().parse::<u64>().ok().map(|sectors| sectors * 512)
}

/// The control interface of an existing device.
pub fn control(id: u32) -> Result<UblkCtrl, DriverError> {
    let number = i32::try_from(id).unwrap_or(i32::MAX);
    UblkCtrl::new_simple(number).map_err(failed(format!("look at device {id}")))
}

/// Whether a device belongs to an unprivileged user.
pub fn is_of_user(info: &sys::ublksrv_ctrl_dev_info) -> bool {
    Features::of_device(info).has(sys::UBLK_F_UNPRIVILEGED_DEV)
}

/// Asks the kernel about a device.
pub fn facts(id: u32) -> Result<Facts, DriverError> {
    let info = control(id)?.dev_info();
    let registered = Features::of_device(&info).has(REGISTERED);
    Ok(Facts { state: State::from_kernel(info.state), server: info.ublksrv_pid, registered })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_kernel_keep_their_meaning() {
        let kind = |err| cause(err).kind();
        assert_eq!(kind(UblkError::UringIOError(-libc::EACCES)), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(UblkError::OtherError(-libc::EEXIST)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(UblkError::QueueIsDown), io::ErrorKind::Other);
    }

    #[test]
    fn features_are_there_together_or_not() {
        let features = Features(0b1010);
        assert!(features.has(0b1000) && features.has(0b1010));
        assert!(!features.has(0b0110));
    }
}
