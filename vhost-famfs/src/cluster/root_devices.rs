// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes the root devices of VMs. A device and the process that serves it have a path in the
//! directory of the cluster as their owner. So they are found even if whoever started them was
//! killed, and the process too.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use famfs::system::process::Handle;
use rustix::process::Signal;
use uuid::Uuid;

use super::process;
use crate::vm::{LogKeeper, RootDeviceConfig, VmPaths};

/// How long a process may take to write back what its device has, and to remove the device.
const END: Duration = Duration::from_secs(60);

/// Why a root device is not removed, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The driver says why.
    #[cfg(feature = "ublk")]
    #[error(transparent)]
    Driver(#[from] ublk::driver::DriverError),
    /// A device stays.
    #[cfg(feature = "ublk")]
    #[error(transparent)]
    Device(#[from] ublk::devices::DeviceError),
    /// This program has no block devices.
    #[error("this vhost-famfs was built without `vhost-famfs ublk`; use one that has it")]
    NotBuilt,
}

/// Checks whether this user can make root devices.
///
/// # Errors
/// Why not, and what to do.
pub(super) fn check() -> Result<(), DriverError> {
    #[cfg(feature = "ublk")]
    return Ok(ublk::driver::Features::of_driver().map(drop)?);
    #[cfg(not(feature = "ublk"))]
    Err(DriverError::NotBuilt)
}

/// Kills what may have a root device open, without waiting for its end: a QEMU keeps a user's
/// device from being removed, and one that waits for a device without a process cannot end. The
/// processes of the devices have work to do, and the keepers of the logs write what they say.
pub(super) fn kill_users(processes: &[Handle]) {
    let stays = |process: &Handle| {
        let owner = owner_of(process.pid());
        owner.is_ok_and(|owner| owner.is_some()) || is_keeper(process.pid())
    };
    for process in processes.iter().filter(|process| !stays(process)) {
        // It may have ended.
        let _ = process.signal(Signal::KILL);
    }
}

/// Removes the root device of a VM, if there is one. What its guest has flushed is in the overlay.
///
/// # Errors
/// The device stays.
pub(super) fn remove(instance: Uuid, paths: &VmPaths) -> Result<(), DriverError> {
    // It is there before the process.
    if !paths.device_log.exists() {
        return Ok(());
    }
    remove_of(instance, &|owner| owner == paths.device_log)
}

/// Removes the root devices of all VMs of a cluster.
///
/// # Errors
/// A device stays.
pub(super) fn remove_all(instance: Uuid, directory: &Path) -> Result<(), DriverError> {
    let is_log = |entry: DirEntry| entry.path().extension() == Some(VmPaths::DEVICE_LOG.as_ref());
    if !fs::read_dir(directory).is_ok_and(|entries| entries.flatten().any(is_log)) {
        return Ok(());
    }
    remove_of(instance, &|owner| owner.parent() == Some(directory))
}

fn remove_of(instance: Uuid, is_owner: &dyn Fn(&Path) -> bool) -> Result<(), DriverError> {
    let is_theirs = |server: &Handle| {
        owner_of(server.pid()).is_ok_and(|owner| owner.is_some_and(|owner| is_owner(&owner)))
    };
    let servers: Vec<_> = process::marked(instance).into_iter().filter(is_theirs).collect();
    thread::scope(|scope| {
        for server in &servers {
            // If it was killed, its device is removed below.
            scope.spawn(|| server.end(END));
        }
    });
    #[cfg(feature = "ublk")]
    ublk::devices::delete_of(&|owner| is_owner(Path::new(owner)))?;
    Ok(())
}

/// The owner of the device that a process serves; `None` if it serves none.
fn owner_of(pid: u32) -> io::Result<Option<PathBuf>> {
    let line = fs::read(format!("/proc/{pid}/cmdline"))?;
    let mut words = line.split(|byte| *byte == 0);
    let option = words.find(|word| *word == RootDeviceConfig::OWNER.as_bytes());
    Ok(option.and_then(|_| Some(OsStr::from_bytes(words.next()?).into())))
}

/// Whether a process keeps the logs of a VM.
fn is_keeper(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(LogKeeper::COMMAND.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    fn server(instance: Uuid, owner: &Path) -> Child {
        // A shell that waits for its input keeps its command line.
        let mut command = Command::new("sh");
        command.args(["-c", "read line", "ublk", RootDeviceConfig::OWNER]).arg(owner);
        command.env(process::MARK, instance.to_string()).stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn only_the_servers_of_the_owner_end() {
        let dir = tempfile::tempdir().unwrap();
        let (instance, paths) = (Uuid::new_v4(), VmPaths::new("vm1", dir.path(), dir.path()));
        let others = VmPaths::new("vm2", dir.path(), dir.path()).device_log;
        let mut own = server(instance, &paths.device_log);
        let mut of_another_vm = server(instance, &others);
        let mut of_another_cluster = server(Uuid::new_v4(), &paths.device_log);
        remove_all(instance, dir.path()).unwrap();
        fs::write(&paths.device_log, "").unwrap();
        remove(instance, &paths).unwrap();
        assert_eq!(own.wait().unwrap().signal(), Some(15));
        assert!(of_another_vm.try_wait().unwrap().is_none());
        remove_all(instance, dir.path()).unwrap();
        assert_eq!(of_another_vm.wait().unwrap().signal(), Some(15));
        assert!(of_another_cluster.try_wait().unwrap().is_none());
        of_another_cluster.kill().unwrap();
        of_another_cluster.wait().unwrap();
    }

    #[test]
    fn only_what_may_have_a_device_open_is_killed_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LogKeeper::COMMAND), "read line").unwrap();
        let mut keeper = Command::new("sh");
        keeper.arg(LogKeeper::COMMAND).current_dir(&dir).stdin(Stdio::piped());
        let mut qemu = Command::new("sh");
        qemu.args(["-c", "read line"]).stdin(Stdio::piped());
        let mut qemu = qemu.spawn().unwrap();
        let mut others = [keeper.spawn().unwrap(), server(Uuid::new_v4(), "/c/vm1.ublk".as_ref())];
        let all = [&qemu, &others[0], &others[1]].map(|child| Handle::open(child.id()).unwrap());
        kill_users(&all);
        assert_eq!(qemu.wait().unwrap().signal(), Some(9));
        for child in &mut others {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
