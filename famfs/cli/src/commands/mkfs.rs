// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mkfs`

use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::format::slots;
use famfs::kernel::mount::Mounted;
use famfs::media::{Media, PoolFile};
use famfs::store::mkfs::{self, Options};
use famfs::store::role;
use famfs::store::superblock::{MIN_LOG_LEN, Superblock, log_len_for};
use famfs::system::mounts;
use famfs_cli::args::Mkfs;
use serde::Serialize;
use uuid::Uuid;

use super::mode;
use crate::output::{OK, OrExit, Outcome, human, notice, print_json, say};

/// Exit code of every failure, as with the reference.
const MKFS_FAILED: u8 = 2;

#[derive(Serialize)]
struct Made {
    version: u32,
    dry_run: bool,
    device: String,
    device_bytes: u64,
    view_offset: u64,
    log_bytes: u64,
    log_slots: u64,
    extensions: bool,
    data_start: u64,
    fs_uuid: String,
    dev_uuid: String,
    system_uuid: String,
}

#[derive(Serialize)]
struct Killed {
    version: u32,
    dry_run: bool,
    device: String,
    killed: bool,
}

pub fn run(pool: Option<&Path>, args: &Mkfs) -> Outcome {
    mode::check(args.mode, false).or_exit(MKFS_FAILED)?;
    make(pool, args).or_exit(MKFS_FAILED)?;
    Ok(OK)
}

fn make(pool: Option<&Path>, args: &Mkfs) -> Result<()> {
    let media: Box<dyn Media> = match (pool, &args.device) {
        (Some(pool), None) => Box::new(PoolFile::open_alone(pool, |text| notice!("{text}"))?),
        (None, Some(device)) => Box::new(open_device(device, args)?),
        _ => bail!("name either a device or --pool FILE"),
    };
    let name = pool.or(args.device.as_deref()).map(|path| path.display().to_string());
    let name = name.unwrap_or_default();
    if args.kill {
        return kill(&name, &*media, args);
    }
    let options = Options {
        log_len: wanted_log_len(args),
        extensions: !args.reference,
        force: args.force,
        fs_uuid: args.fs_uuid.unwrap_or_else(Uuid::new_v4),
        dev_uuid: args.dev_uuid.unwrap_or_else(Uuid::new_v4),
        system_uuid: match args.system_uuid {
            Some(uuid) => uuid,
            // Leaves nothing behind on the host: if it has no UUID, no system is the master.
            None if pool.is_some() => role::known_system_uuid()?.unwrap_or_else(Uuid::new_v4),
            // A dry run does not create the file of the UUID.
            None if args.dry_run => role::known_system_uuid()?.unwrap_or_else(Uuid::new_v4),
            None => role::system_uuid()?,
        },
        dev_name: name.clone(),
    };
    let kept = if args.size.is_none() && args.force { limited_size(&*media) } else { None };
    let len = args.size.or(kept).unwrap_or_else(|| media.len());
    let made = match args.dry_run {
        true => mkfs::plan_within(&*media, &options, len),
        false => mkfs::mkfs_within(&*media, &options, len),
    };
    let made = made.with_context(|| name.clone())?;
    if let Some(kept) = kept {
        notice!(
            "{name}: the file system before it had {} of {}, and so has the new one: --size gives it \
             another size",
            human(kept),
            human(media.len())
        );
    }
    report(name, &*media, &made, args)
}

/// The size of a file system that is there, if it does not have the whole device: the rest may be
/// room to grow that nobody has reserved, or belong to others.
fn limited_size(media: &dyn Media) -> Option<u64> {
    let there = Superblock::read(media).ok()?;
    let is_limited = there.dev_size < media.len() && there.size_problem(media.len()).is_none();
    is_limited.then_some(there.dev_size)
}

fn kill(name: &str, media: &dyn Media, args: &Mkfs) -> Result<()> {
    if !args.dry_run {
        mkfs::kill(media)?;
    }
    match (args.json, args.dry_run) {
        (true, dry_run) => {
            print_json(&Killed { version: 1, dry_run, device: name.to_owned(), killed: true })
        }
        (false, true) => say!("{name}: would wipe the superblock"),
        (false, false) => say!("{name}: superblock wiped"),
    }
}

/// Opens a guest's device through a mount that is attached nowhere.
fn open_device(device: &Path, args: &Mkfs) -> Result<impl Media + use<>> {
    mode::set_daxmode(args.mode, device)?;
    refuse_mounted(device)?;
    let mounted = Mounted::detached(device)?;
    let device_len = mounted.device_len()?;
    if args.kill {
        return Ok(mounted.raw_meta(MIN_LOG_LEN)?);
    }
    // Before the log's file is made: that fails for a wrong length too, but with a vaguer error.
    let log_len = mkfs::log_len(
        wanted_log_len(args),
        args.size.map_or(device_len, |size| size.min(device_len)),
        !args.reference,
    )
    .with_context(|| device.display().to_string())?;
    Ok(mounted.raw_meta(log_len)?)
}

/// The log length that was asked for, if any.
fn wanted_log_len(args: &Mkfs) -> Option<u64> {
    args.loglen.or(args.entries.map(|entries| log_len_for(entries.into())))
}

/// Refuses a device that is mounted under this name, and names the mount point.
pub fn refuse_mounted(device: &Path) -> Result<()> {
    let device =
        device.canonicalize().with_context(|| format!("cannot find {}", device.display()))?;
    if let Some(mount) = mounts::of(&device)? {
        bail!("{} is mounted on {}", device.display(), mount.mount_point.display());
    }
    Ok(())
}

fn report(name: String, media: &dyn Media, made: &Superblock, args: &Mkfs) -> Result<()> {
    let log_slots = slots(made.log_len);
    if args.json {
        return print_json(&Made {
            version: 1,
            dry_run: args.dry_run,
            device: name,
            device_bytes: media.len(),
            view_offset: media.origin(),
            log_bytes: made.log_len,
            log_slots,
            extensions: !args.reference,
            data_start: made.data_start(),
            fs_uuid: made.fs_uuid.to_string(),
            dev_uuid: made.dev_uuid.to_string(),
            system_uuid: made.system_uuid.to_string(),
        });
    }
    let would = if args.dry_run { "would make " } else { "" };
    let with = if args.reference { "without" } else { "with" };
    say!("{name}: {would}famfs {}, {with} extensions", made.fs_uuid)?;
    say!(
        "  device {}, log {} for {log_slots} entries, {} for data",
        human(media.len()),
        human(made.log_len),
        human(made.capacity(media.len()) - made.data_start()),
    )?;
    say!("  master: system {}", made.system_uuid)
}
