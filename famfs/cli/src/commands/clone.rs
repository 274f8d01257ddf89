// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs clone`

use std::io;
use std::path::Path;

use anyhow::{Result, bail};
use famfs::format::map::{Extent, FileMap, Memory};
use famfs::format::path::RelPath;
use famfs::format::{ALLOC_UNIT, MAX_EXTENTS};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Owner, Plan};
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs::text::json_name::Name;
use famfs::write::room::Room;
use famfs::write::writer::Writer;
use famfs_cli::args::CloneFile;
use rustix::io::Errno;
use serde::Serialize;

use crate::output::{OK, Outcome, notice, print_json, say};
use crate::place::{Place, pool_path};

const SHARED: &str =
    "the kernel refuses two files with the same memory: unmount, and use --pool on the host";

#[derive(Serialize)]
struct CloneReport {
    version: u32,
    dry_run: bool,
    #[serde(flatten)]
    source: Name,
    #[serde(flatten)]
    path: Name,
    bytes: u64,
}

pub fn run(pool: Option<&Path>, args: &CloneFile) -> Outcome {
    let place = Place::open(pool, Some(&args.target), Access::Write)?;
    let target = place.file_path()?;
    let source = source(pool, args)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let (owner, size, map) = memory(writer.plan(), &source)?;
    let room = Room::own(size, map);
    if !args.change.dry_run {
        begin(&writer, target, owner, &room)?;
    }
    writer.publish(target, owner, room)?;
    writer.commit()?;
    if !args.change.dry_run {
        notice!("\"{target}\" and \"{source}\" now have the same memory: fsck reports damage");
    }
    if args.change.json {
        let source = Name::new("source", source.as_bytes());
        let path = Name::new("path", target.as_bytes());
        print_json(&CloneReport {
            version: 1,
            dry_run: args.change.dry_run,
            source,
            path,
            bytes: size,
        })?;
    } else if args.change.dry_run {
        say!("would make {target} with the memory of {source}")?;
    } else if args.change.verbose {
        say!("{target}: {size} bytes of {source}")?;
    }
    Ok(OK)
}

/// Owner, size and memory of the source, as a conventional entry would have them.
fn memory(plan: &Plan, source: &RelPath) -> Result<(Owner, u64, FileMap)> {
    let tree = plan.tree();
    let Some(found) = tree.get(source) else { bail!("\"{source}\" does not exist") };
    let ObjectKind::File { size, bytes } = &found.object.kind else {
        bail!("\"{source}\" is a {}, expected a file", found.object.kind_name());
    };
    let map = match tree.memory(bytes, *size) {
        Memory::Map(map) => map,
        Memory::Pieces(pieces) => {
            let extents: Vec<Extent> = pieces.into_iter().map(|(_, extent)| extent).collect();
            let is_whole = |extent: &Extent| {
                [extent.offset, extent.len].iter().all(|end| end.is_multiple_of(ALLOC_UNIT))
            };
            let held: u64 = extents.iter().map(|extent| extent.len).sum();
            let fits = held == *size && extents.len() <= MAX_EXTENTS;
            if !fits || !extents.iter().all(is_whole) {
                bail!(
                    "\"{source}\" is not in whole units of 2 MiB, in at most {MAX_EXTENTS} places, \
                     so no second entry can have its memory: clone a file whose size is a multiple \
                     of 2 MiB"
                );
            }
            FileMap::Simple(extents.into())
        }
    };
    Ok((found.object.owner, *size, map))
}

/// Makes the file, unless the kernel refuses files that share memory, as famfs.ko does.
fn begin(writer: &Writer<'_>, target: &RelPath, owner: Owner, room: &Room) -> Result<()> {
    match writer.begin(target, owner, room) {
        Ok(_) => Ok(()),
        Err(err) => {
            let err = anyhow::Error::from(err);
            let is_busy = err.root_cause().downcast_ref().is_some_and(|cause: &io::Error| {
                cause.raw_os_error() == Some(Errno::BUSY.raw_os_error())
            });
            Err(if is_busy { err.context(SHARED) } else { err })
        }
    }
}

/// The path of the source, which must be in the target's file system.
fn source(pool: Option<&Path>, args: &CloneFile) -> Result<RelPath> {
    let path = match pool {
        Some(_) => pool_path(&args.source)?,
        None => {
            let source = mounts::locate(&args.source)?;
            if source.mount != mounts::locate(&args.target)?.mount {
                bail!("source and target are not in the same famfs");
            }
            pool_path(&source.inside)?
        }
    };
    match path {
        Some(path) => Ok(path),
        None => bail!("the source is the root of the file system, expected a file"),
    }
}
