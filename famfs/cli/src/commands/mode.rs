// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The effect of the options that choose between the reference's implementations.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::guest;
use famfs_cli::args::{FuseArgs, ModeArgs};

use crate::output::notice;

/// The reference's choice of an implementation: `v1` is the kernel module, `fuse` does not exist
/// here.
const VARIABLE: &str = "FAMFS_MODE";

/// The appliance's note that this machine may only read its pool: what it stores is not kept.
const ACCESS: &str = "/run/appliance/credentials/famfs.access";

/// The appliance's note that this machine runs no programs of its pool.
const NOEXEC: &str = "/run/appliance/credentials/famfs.noexec";

/// Whether to mount noexec: as asked, or because the host says so.
pub fn noexec(asked: bool) -> bool {
    let given = Path::new(NOEXEC).exists();
    if given && !asked {
        notice!("this VM may not run programs of the pool, so it is mounted noexec");
    }
    asked || given
}

/// Whether to mount read-only: as asked, or because nothing that is written would be kept.
pub fn read_only(asked: bool) -> bool {
    let given = std::fs::read_to_string(ACCESS).unwrap_or_default();
    let only_reads = given.trim_end() == "read-only";
    if only_reads && !asked {
        notice!("this VM may only read the pool, so it is mounted read-only");
    }
    asked || only_reads
}

/// Refuses FUSE. `fuse` is a further option that asks for it.
pub fn check(mode: ModeArgs, fuse: bool) -> Result<()> {
    if mode.fuse || fuse {
        bail!("there is no FUSE mode here: leave out --fuse to use the kernel module");
    }
    match std::env::var_os(VARIABLE) {
        _ if mode.nofuse => Ok(()),
        None => Ok(()),
        Some(value) if value.is_empty() || value == OsStr::new("v1") => Ok(()),
        Some(value) => bail!(
            "the environment has {VARIABLE}={}, expected v1: there is no FUSE mode here; use \
             --nofuse, or unset it",
            value.display()
        ),
    }
}

/// Refuses FUSE options whose effect would be missed, and names those that are ignored.
pub fn check_fuse_options(args: &FuseArgs) -> Result<()> {
    refuse_shadow(args.shadow.as_deref())?;
    let ignored = [
        ("--timeout", args.timeout.is_some()),
        ("--cache", args.cache.is_some()),
        ("--debug", args.debug),
        ("--nouseraccess", args.nouseraccess),
        ("--nodefaultperm", args.nodefaultperm),
        ("--bouncedax", args.bouncedax),
    ];
    for (option, given) in ignored {
        if given {
            notice!("{option} is ignored: it is for FUSE mode only");
        }
    }
    Ok(())
}

/// Refuses shadow files.
pub fn refuse_shadow(shadow: Option<&Path>) -> Result<()> {
    match shadow {
        Some(path) => bail!("--shadow {}: shadow files are for FUSE mode only", path.display()),
        None => Ok(()),
    }
}

/// Binds a devdax device to fsdev_dax, if asked to. Block devices do not need that.
pub fn set_daxmode(mode: ModeArgs, device: &Path) -> Result<()> {
    if !mode.set_daxmode {
        return Ok(());
    }
    let device =
        device.canonicalize().with_context(|| format!("cannot find {}", device.display()))?;
    match device.file_name().and_then(OsStr::to_str) {
        Some(name) if name.starts_with("dax") => Ok(guest::bind_fsdev(name, true)?),
        _ => Ok(()),
    }
}
