// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs touch`

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::replay::tree::resolve::LastLink;
use famfs::replay::{Attributes, Time};
use famfs::text::time::utc;
use famfs::write::change::NewAttributes;
use famfs::write::writer::WriteError;
use famfs_cli::args::Touch;

use super::changes::{Change, group, report};
use crate::operands::Operands;
use crate::output::{OK, Outcome};
use crate::place::{masked, names_dir, owner};

/// Permissions of a new file, less the umask.
const NEW_MODE: u32 = 0o666;

pub fn run(pool: Option<&Path>, args: &Touch) -> Outcome {
    let Some(first) = args.paths.first() else { return Ok(OK) };
    let (place, operands) = Operands::open(pool, first)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let tree = writer.plan().tree();
    let time = match (&args.reference, args.date) {
        (Some(file), _) => time_of(pool, &operands, tree, file)?,
        (None, Some(time)) => time,
        (None, None) => now()?,
    };
    let last = if args.no_dereference { LastLink::Keep } else { LastLink::Follow };
    let (mut changes, mut made, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let new = NewAttributes { mtime: Some(time), ..NewAttributes::default() };
    let text = format!("time {}", utc(time.sec, time.nsec));
    for arg in &args.paths {
        let path = operands.find(tree, arg, last)?;
        match &path {
            Some(missing) if tree.get(missing).is_none() && args.no_create => continue,
            Some(missing) if tree.get(missing).is_none() && names_dir(arg) => {
                return Err(
                    anyhow!("no directory \"{missing}\": make it with `famfs mkdir`").into()
                );
            }
            _ if !seen.insert(path.clone()) => continue,
            Some(missing) if tree.get(missing).is_none() => {
                made.push(missing.clone());
                let text = format!("new, {text}");
                changes.push(Change { path, new: NewAttributes::default(), text });
            }
            _ => changes.push(Change { path, new, text: text.clone() }),
        }
    }
    group(&mut writer, changes.len())?;
    let attributes = Attributes { owner: owner(None, None, masked(NEW_MODE)), mtime: Some(time) };
    for path in &made {
        let room = writer.allocate(path, 0)?;
        writer.create(path, attributes, room, |_| Ok::<_, WriteError>(()))?;
    }
    for Change { path, new, .. } in &changes {
        writer.set_attributes(path.as_ref(), new)?;
    }
    writer.commit()?;
    report(&changes, args.change)?;
    Ok(OK)
}

fn now() -> Result<Time> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let sec = i64::try_from(now.as_secs()).context("the clock is beyond all times")?;
    Ok(Time { sec, nsec: now.subsec_nanos() })
}

/// The time of a file: of the pool, or of this system, of which a mounted famfs is a part.
fn time_of(pool: Option<&Path>, operands: &Operands<'_>, tree: &Tree, file: &Path) -> Result<Time> {
    if pool.is_none() {
        let found = file.metadata().with_context(|| format!("cannot read {}", file.display()))?;
        let nsec = u32::try_from(found.mtime_nsec()).context("no time of a file")?;
        return Ok(Time { sec: found.mtime(), nsec });
    }
    let path = operands.find(tree, file, LastLink::Follow)?;
    let object = match &path {
        None => tree.object(famfs::format::extension::NO_ENTRY),
        Some(path) => tree.get(path).map(|listed| listed.object),
    };
    let name = || path.as_ref().map_or("/".to_owned(), RelPath::to_string);
    match object {
        None => bail!("\"{}\" does not exist", name()),
        Some(object) => object
            .mtime
            .with_context(|| format!("\"{}\" has no time: nothing has set it yet", name())),
    }
}
