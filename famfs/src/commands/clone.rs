// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs clone`

use std::path::Path;

use anyhow::{Result, bail};
use famfs::args::CloneFile;
use famfs::mounts;
use famfs::path::RelPath;
use famfs::replay::NodeKind;
use famfs::sys::dax::Access;

use crate::output::{OK, Outcome, notice, say};
use crate::place::{Place, pool_path};

pub fn run(pool: Option<&Path>, args: &CloneFile) -> Outcome {
    let place = Place::open(pool, Some(&args.target), Access::Write)?;
    let target = place.file_path()?;
    let source = source(pool, args)?;
    let mut writer = place.writer(args.dry_run)?;
    let node = match writer.plan().get(&source) {
        Some(node) => node.clone(),
        None => return Err(anyhow::anyhow!("\"{source}\" is not in the log").into()),
    };
    let NodeKind::File { size, map } = node.kind else {
        return Err(anyhow::anyhow!("\"{source}\" is a directory").into());
    };
    if !args.dry_run {
        drop(writer.begin(target, node.owner, size, &map)?);
    }
    writer.publish(target, node.owner, size, map)?;
    writer.commit()?;
    if args.dry_run {
        say!("would make {target} of the memory of {source}")?;
    } else {
        notice!("\"{target}\" and \"{source}\" have the same memory now: fsck reports damage");
        if args.verbose {
            say!("{target}: {size} bytes of {source}")?;
        }
    }
    Ok(OK)
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
