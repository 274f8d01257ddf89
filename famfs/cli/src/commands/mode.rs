// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the options that choose the reference's implementation come to here.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::guest;
use famfs_cli::args::{FuseArgs, ModeArgs};

use crate::output::notice;

/// The reference's choice of an implementation: `v1` is the kernel module, `fuse` is not here.
const VARIABLE: &str = "FAMFS_MODE";

/// Where the appliance says that this machine may only read its pool: its stores reach none.
const ACCESS: &str = "/run/appliance/credentials/famfs.access";

/// Whether a mount is to be read-only: as asked, or because nothing that is written would be kept.
pub fn read_only(asked: bool) -> bool {
    let given = std::fs::read_to_string(ACCESS).unwrap_or_default();
    let only_reads = given.trim_end() == "read-only";
    if only_reads && !asked {
        notice!("this VM may only read the pool: it is mounted read-only");
    }
    asked || only_reads
}

/// Refuses FUSE. `fuse` is a further option that asks for it.
pub fn check(mode: ModeArgs, fuse: bool) -> Result<()> {
    if mode.fuse || fuse {
        bail!("there is no FUSE mode here; without --fuse the kernel module is used");
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

/// Refuses what only FUSE has and what would be missed, and names what is ignored.
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

/// Gives a devdax device to fsdev_dax, if that is asked for. Block devices need it not.
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
