// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mount`

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use famfs::kernel::mount::{MountError, Mounted};
use famfs::kernel::player::Task;
use famfs::kernel::volume::MountedVolume;
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs_cli::args::Mount;
use rustix::io::Errno;

use super::mkfs::refuse_mounted;
use super::mode;
use super::play::{PlayReport, play, system_or_client};
use crate::output::{FAILED, Failure, OK, OrExit, Outcome, notice};

/// famfs cannot use the device (ENODEV, as with the reference).
const NO_DAX_DEVICE: u8 = 19;

pub fn run(args: &Mount) -> Outcome {
    mode::check(args.mode, args.fuse_options.fuse_mode)?;
    mode::check_fuse_options(&args.fuse_options)?;
    let options = MountOptions::read(&args.options, args.sloppy)?;
    let remount = args.remount || options.remount;
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
        open_again(&device, &mount_point)?
    } else {
        mode::set_daxmode(args.mode, &device)?;
        refuse_mounted(&device)?;
        refuse_mount_point(&mount_point)?;
        let mounted = Mounted::detached(&device).map_err(refused_device)?;
        mounted.open(Access::Read, system_or_client())?
    };
    // Played before the mount is attached, so that all files appear at once.
    let task = Task { dry_run: args.dry_run, ..Task::default() };
    let played = play(&volume, task, args.verbose && !args.json)?;
    match (args.dry_run, remount) {
        (true, _) => {}
        (false, true) => {
            let mounted = Mounted::at(&mount_point, &device)?;
            mounted.set_read_only(mode::read_only(options.read_only))?;
            if let Some(noexec) = options.noexec {
                mounted.set_noexec(mode::noexec(noexec))?;
            }
        }
        (false, false) => {
            if mode::read_only(options.read_only) {
                volume.mounted().set_read_only(true)?;
            }
            if mode::noexec(options.noexec == Some(true)) {
                volume.mounted().set_noexec(true)?;
            }
            volume.mounted().attach(&mount_point)?;
        }
    }
    let role = volume.role();
    let name = format!("{} on {}: {}", device.display(), mount_point.display(), role.name());
    PlayReport::new(&played, role, args.dry_run).print(args.json, &name)?;
    Ok(if played.damaged() { FAILED } else { OK })
}

/// What the options of mount(8) ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct MountOptions {
    remount: bool,
    read_only: bool,
    /// What was said of running programs, if anything.
    noexec: Option<bool>,
}

impl MountOptions {
    /// Options that famfs always applies, or that mount(8) and systemd use instead of a file
    /// system.
    const NO_CHANGE: [&str; 33] = [
        "defaults",
        "rw",
        "nosuid",
        "nodev",
        "async",
        "noatime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "iversion",
        "noiversion",
        "silent",
        "loud",
        "nosymfollow",
        "symfollow",
        "auto",
        "noauto",
        "nouser",
        "owner",
        "group",
        "nogroup",
        "noowner",
        "nofail",
        "_netdev",
        "atime",
        "dax=always",
        "dax",
        "strict",
        "dirsync",
    ];
    /// Options of the same kind that carry a value.
    const NO_CHANGE_WITH_VALUE: [&str; 3] = ["x-", "X-", "comment="];
    /// What files in shared memory must not do.
    const NEVER: [&str; 2] = ["suid", "dev"];

    fn read(options: &[String], sloppy: bool) -> Result<Self> {
        let mut found = Self::default();
        for option in options {
            match option.as_str() {
                "remount" => found.remount = true,
                "ro" => found.read_only = true,
                "exec" => found.noexec = Some(false),
                // What users may mount is noexec unless `exec` follows, says mount(8).
                "noexec" | "user" | "users" => found.noexec = Some(true),
                option if Self::NO_CHANGE.contains(&option) || option.is_empty() => {
                    found.read_only &= option != "rw";
                }
                option if Self::NO_CHANGE_WITH_VALUE.iter().any(|o| option.starts_with(o)) => {}
                option if Self::NEVER.contains(&option) => {
                    bail!("mount option \"{option}\": famfs is always nosuid and nodev")
                }
                option if sloppy => notice!("mount option \"{option}\" is ignored"),
                option => bail!(
                    "mount option \"{option}\": expected remount, ro, rw, exec, noexec, dax=always, or an \
                     option that mount(8) has for every file system"
                ),
            }
        }
        Ok(found)
    }
}

/// Loads a kernel module and the modules that it needs.
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

/// Opens an existing mount, so that its flags can be changed and its log played.
fn open_again(device: &Path, mount_point: &Path) -> Result<MountedVolume> {
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
    Ok(Mounted::for_play(mount_point, device)?.open(Access::Read, system_or_client())?)
}

/// Refuses to hide a mounted famfs under another one.
fn refuse_mount_point(mount_point: &Path) -> Result<()> {
    match mounts::on(mount_point)? {
        Some(mount) => Err(anyhow!(
            "{} has {} mounted: unmount it first",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str], sloppy: bool) -> Result<MountOptions> {
        MountOptions::read(&options.iter().map(ToString::to_string).collect::<Vec<_>>(), sloppy)
    }

    #[test]
    fn options_of_mount_8() {
        let plain = MountOptions::default();
        assert_eq!(
            read(&["rw", "noatime", "dax=always", "strict", "x-systemd.after=a"], false).unwrap(),
            plain
        );
        let read_only = MountOptions { remount: true, read_only: true, noexec: None };
        assert_eq!(read(&["remount", "ro"], false).unwrap(), read_only);
        assert_eq!(read(&["ro", "rw"], false).unwrap(), plain, "the last one counts");
        for (options, noexec) in [
            (&["noexec"][..], true),
            (&["exec"], false),
            (&["noexec", "exec"], false),
            (&["exec", "noexec", "ro", "rw"], true),
            (&["user"], true),
            (&["users", "exec"], false),
        ] {
            let found = read(options, false).unwrap();
            assert_eq!(found, MountOptions { noexec: Some(noexec), ..plain }, "{options:?}");
        }
        assert!(read(&["suid"], true).is_err());
        assert!(read(&["dev"], true).is_err());
        assert!(read(&["size=1g"], false).is_err());
        assert_eq!(read(&["size=1g"], true).unwrap(), plain);
    }
}
