// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mount`

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use famfs::args::Mount;
use famfs::mount::{MountError, Mounted, MountedVolume};
use famfs::mounts;
use famfs::sys::dax::Access;
use rustix::io::Errno;

use super::mkfs::refuse_mounted;
use super::play::{play, summary, system_or_client};
use crate::output::{FAILED, Failure, OK, OrExit, Outcome, say};

/// The device is none that famfs can use (ENODEV, as with the reference).
const NO_DAX_DEVICE: u8 = 19;

pub fn run(args: &Mount) -> Outcome {
    let remount = args.remount | wants_remount(&args.options)?;
    if args.load_module {
        load_module("famfs")?;
    }
    let device = args
        .device
        .canonicalize()
        .with_context(|| format!("cannot find {}", args.device.display()))
        .or_exit(NO_DAX_DEVICE)?;
    let mount_point = args
        .mount_point
        .canonicalize()
        .with_context(|| format!("cannot find {}", args.mount_point.display()))?;
    let volume = if remount {
        change_mount(&device, &mount_point)?
    } else {
        refuse_mounted(&device)?;
        refuse_mount_point(&mount_point)?;
        let mounted = Mounted::detached(&device).map_err(refused_device)?;
        mounted.open(Access::Read, system_or_client())?
    };
    // Played before it is attached, so that the files appear all at once.
    let played = play(&volume, volume.role(), false, args.verbose)?;
    if !remount {
        volume.mounted().attach(&mount_point)?;
    }
    say!(
        "{} on {}: {}, {}",
        device.display(),
        mount_point.display(),
        volume.role().name(),
        summary(&played.applied)
    )?;
    Ok(if played.damaged { FAILED } else { OK })
}

/// Reads the options of mount(8). Only one has a meaning; what would be ignored is refused.
fn wants_remount(options: &[String]) -> Result<bool> {
    const NO_CHANGE: [&str; 7] =
        ["defaults", "rw", "nosuid", "nodev", "noexec", "noatime", "dax=always"];
    let mut remount = false;
    for option in options {
        match option.as_str() {
            "remount" => remount = true,
            option if NO_CHANGE.contains(&option) => {}
            option => bail!(
                "mount option \"{option}\", expected one of remount, {}",
                NO_CHANGE.join(", ")
            ),
        }
    }
    Ok(remount)
}

/// Loads a kernel module with what it needs.
pub fn load_module(name: &str) -> Result<()> {
    let status = Command::new("modprobe")
        .arg(name)
        .status()
        .with_context(|| format!("cannot run modprobe {name}"))?;
    if !status.success() {
        bail!("modprobe {name} failed ({status})");
    }
    Ok(())
}

fn change_mount(device: &Path, mount_point: &Path) -> Result<MountedVolume> {
    let mount = mounts::locate(mount_point)?.mount;
    if mount.mount_point != mount_point || mount.source.canonicalize()? != device {
        bail!(
            "{} is not mounted on {}, but {} on {}",
            device.display(),
            mount_point.display(),
            mount.source.display(),
            mount.mount_point.display()
        );
    }
    use rustix::mount::{MountFlags, mount_remount};
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount_remount(mount_point, flags, c"")
        .with_context(|| format!("cannot remount {}", mount_point.display()))?;
    Ok(Mounted::at(mount_point, device)?.open(Access::Read, system_or_client())?)
}

/// Refuses to hide a famfs under another one.
fn refuse_mount_point(mount_point: &Path) -> Result<()> {
    let table = mounts::read()?;
    let taken = table.iter().find(|m| m.fs_type == "famfs" && m.mount_point == mount_point);
    match taken {
        Some(mount) => Err(anyhow!(
            "{} has {} mounted; unmount it first",
            mount_point.display(),
            mount.source.display()
        )),
        None => Ok(()),
    }
}

fn refused_device(err: MountError) -> Failure {
    const NO_DEVICE: [Errno; 4] = [Errno::NODEV, Errno::NXIO, Errno::NOTBLK, Errno::OPNOTSUPP];
    let errno = err.device_errno();
    let code = match NO_DEVICE.iter().any(|known| Some(known.raw_os_error()) == errno) {
        true => NO_DAX_DEVICE,
        false => FAILED,
    };
    Failure { code, error: err.into() }
}
