// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The diskless appliance, without systemd. This program remains process 1 and runs the services
//! itself, until the agent ends because the host requested a power-off.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use famfs::system::mounts::{self, MountEntry};
use guest::given;
use protocol::credentials::HOSTNAME;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use rustix::system::{RebootCommand, reboot, sethostname};

use crate::services::{self, AGENT, Manager};
use crate::{DATA_ONLY, NO_DEVICES, modules, mount_kind, mount_run};

/// Mounted in addition to the initrd's own.
const MOUNTS: [(&str, &str, MountFlags); 4] = [
    // Terminals of `exec -t`; they are devices.
    ("/dev/pts", "devpts", MountFlags::NOSUID.union(MountFlags::NOEXEC)),
    ("/tmp", "tmpfs", NO_DEVICES),
    ("/dev/shm", "tmpfs", NO_DEVICES),
    ("/sys/kernel/tracing", "tracefs", DATA_ONLY),
];

/// How long programs may take to end before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Runs until the agent ends, then powers off.
pub fn run(command_line: &str) -> Result<Infallible> {
    ensure!(
        Path::new(AGENT).exists(),
        "no root= on the kernel command line, and this initrd has no {AGENT}, so it needs a root"
    );
    thread::scope(|scope| {
        let loading = scope.spawn(|| modules::load(modules::INITRD, &[]));
        prepare(command_line)?;
        services::run(Manager::None, loading)
    })?;
    stop()?;
    reboot(RebootCommand::PowerOff).context("cannot power off")?;
    bail!("still running after the power-off")
}

/// Creates what the services expect.
fn prepare(command_line: &str) -> Result<()> {
    for (path, kind, flags) in MOUNTS {
        fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))?;
        mount_kind(kind, path, flags)?;
    }
    mount_run()?;
    services::take_credentials(command_line)?;
    if let Some(name) = given::credentials().get(HOSTNAME) {
        sethostname(name.as_bytes()).with_context(|| format!("cannot set the host name {name}"))?;
    }
    Ok(())
}

/// Ends all programs, then unmounts.
fn stop() -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        // Signal every process but this one, by sending to "the group of process 1" (kill(2), pid
        // -1). It is not an error if there is none.
        let _ = kill_process_group(Pid::INIT, signal);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            match wait(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return unmount_pools(),
                Ok(Some(_)) => {}
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    unmount_pools()
}

fn unmount_pools() -> Result<()> {
    let pools = mounts::read()?.into_iter().rev().filter(|mount| mount.fs_type == "famfs");
    for MountEntry { mount_point, .. } in pools {
        unmount(&mount_point, UnmountFlags::empty())
            .with_context(|| format!("cannot unmount {}", mount_point.display()))?;
    }
    Ok(())
}
