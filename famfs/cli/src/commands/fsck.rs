// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs fsck`

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow};
use famfs::format::ALLOC_UNIT;
use famfs::kernel::mount::Mounted;
use famfs::media::PoolFile;
use famfs::replay::fsck::{self, FsckReport};
use famfs::replay::tree::list::Counts;
use famfs::replay::tree::store::StoreUse;
use famfs::replay::{Contents, Plan};
use famfs::sys::dax::Access;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs_cli::args::Fsck;

use serde::Serialize;

use super::mkfs::refuse_mounted;
use super::mode;
use super::mount::load_module;
use crate::output::{FAILED, Failure, OK, OrExit, Outcome, human, print_json, to_stdout};
use crate::place::Place;

/// No such device, pool or path.
const NOT_FOUND: u8 = 2;
/// The device is mounted.
const MOUNTED: u8 = 16;

pub fn run(pool: Option<&Path>, args: &Fsck) -> Outcome {
    mode::check(args.mode, false)?;
    if args.load_module {
        load_module("famfs")?;
    }
    let volume = open(pool, args)?;
    let media = volume.media();
    let contents = Contents::read(media)?;
    let report = fsck::check(media, &contents);
    let buckets = buckets(&report, &contents.plan, args.nbuckets.into());
    if args.json {
        print_json(&WithBuckets { report: &report, buckets: &buckets })?;
    } else {
        print(args, &report, &buckets)?;
    }
    Ok(if report.problems.is_empty() { OK } else { FAILED })
}

/// The report, with the free space of parts of the device if asked for.
#[derive(Serialize)]
struct WithBuckets<'r> {
    #[serde(flatten)]
    report: &'r FsckReport,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    buckets: &'r [Bucket],
}

/// One of the equal parts of a device that supply the strips of interleaved files; in bytes.
#[derive(Serialize)]
struct Bucket {
    offset: u64,
    len: u64,
    free: u64,
    largest_free: u64,
}

/// Divides the device into `count` parts, as the allocator does for interleaved files.
fn buckets(report: &FsckReport, plan: &Plan, count: u64) -> Vec<Bucket> {
    let units = report.device_bytes / ALLOC_UNIT;
    let len = units.checked_div(count).unwrap_or(0) * ALLOC_UNIT;
    let bucket = |index: u64| {
        let (offset, end) = (index * len, (index + 1) * len);
        let (mut free, mut largest_free) = (0, 0);
        for run in plan.space.free_runs() {
            let here = (run.offset + run.len).min(end).saturating_sub(run.offset.max(offset));
            free += here;
            largest_free = here.max(largest_free);
        }
        Bucket { offset, len, free, largest_free }
    };
    (0..count).map(bucket).collect()
}

fn open(pool: Option<&Path>, args: &Fsck) -> Result<Rc<dyn Volume>, Failure> {
    let path = match (pool, &args.path) {
        (Some(pool), None) => {
            pool.metadata()
                .with_context(|| format!("cannot check {}", pool.display()))
                .or_exit(NOT_FOUND)?;
            return Ok(Rc::new(OfflineVolume::new(PoolFile::open(pool, Access::Read)?)));
        }
        (None, Some(path)) => path,
        _ => return Err(anyhow!("name either a device or path, or --pool FILE").into()),
    };
    let kind = path
        .metadata()
        .with_context(|| format!("cannot check {}", path.display()))
        .or_exit(NOT_FOUND)?
        .file_type();
    if kind.is_char_device() || kind.is_block_device() {
        mode::set_daxmode(args.mode, path)?;
        refuse_mounted(path).context("check the mount point instead").or_exit(MOUNTED)?;
        let mounted = Mounted::detached(path).map_err(|err| {
            let busy = err.device_errno() == Some(rustix::io::Errno::BUSY.raw_os_error());
            Failure { code: if busy { MOUNTED } else { FAILED }, error: err.into() }
        })?;
        return Ok(Rc::new(mounted.open(Access::Read, None)?));
    }
    Ok(Place::open(None, Some(path), Access::Read)?.volume)
}

fn print(args: &Fsck, report: &FsckReport, buckets: &[Bucket]) -> Result<()> {
    let size = |bytes: u64| if args.human { human(bytes) } else { bytes.to_string() };
    let FsckReport { log, space, .. } = report;
    to_stdout(|out| {
        writeln!(out, "famfs {}", report.fs_uuid)?;
        if args.verbose {
            writeln!(out, "  device uuid: {}", report.dev_uuid)?;
            writeln!(out, "  master: system {}", report.system_uuid)?;
            writeln!(
                out,
                "  data area: {:#x} to {:#x}",
                space.start,
                space.start + space.capacity
            )?;
        }
        writeln!(out, "  log_len: {}", size(log.bytes))?;
        writeln!(out, "  log: {} of {} slots used", log.entries, log.slots)?;
        writeln!(out, "  {} files, {} directories", report.files, report.directories)?;
        if let Some(Counts { entries, names, symlinks, .. }) = &report.extensions {
            writeln!(
                out,
                "  {symlinks} symbolic links, {names} names, {entries} log entries of extensions"
            )?;
        }
        if let Some(StoreUse { files, bytes, used, free, retired }) = &report.store {
            writeln!(
                out,
                "  store: {files} files of {}, used {}, free {}, free after famfs compact {}",
                size(*bytes),
                size(*used),
                size(*free),
                size(*retired)
            )?;
        }
        writeln!(out, "Device capacity: {}", size(report.device_bytes))?;
        writeln!(out, "File bytes: {}", size(report.file_bytes))?;
        writeln!(out, "Used space: {}", size(space.used))?;
        writeln!(out, "Free space: {}", size(space.free))?;
        writeln!(out, "Largest free piece: {}", size(space.largest_free))?;
        for (index, bucket) in buckets.iter().enumerate() {
            writeln!(
                out,
                "Bucket {index}: offset {:#x}, free {}, largest free piece {}",
                bucket.offset,
                size(bucket.free),
                size(bucket.largest_free)
            )?;
        }
        if report.unknown_entries > 0 {
            writeln!(out, "  {} log entries of unknown types", report.unknown_entries)?;
        }
        for note in &report.notes {
            writeln!(out, "note: {note}")?;
        }
        for problem in &report.problems {
            writeln!(out, "problem: {problem}")?;
        }
        match report.problems.len() {
            0 => writeln!(out, "clean"),
            1 => writeln!(out, "damaged: 1 problem"),
            count => writeln!(out, "damaged: {count} problems"),
        }
    })
}
