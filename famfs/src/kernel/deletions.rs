// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes what conventional entries deleted, wherever it is still mounted: for mounts that cannot
//! note how far they are played, and for what could not be removed then.

use std::io;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::format::map::Memory;
use crate::kernel::apply::{Applied, ApplyError};
use crate::kernel::target::{Backed, Target};
use crate::replay::tree::object::ObjectKind;
use crate::replay::{Deletion, Node, NodeKind, Plan};

/// Removes all that a plan's log deleted.
pub fn remove_deleted(target: &Target<'_>, plan: &Plan) -> Applied {
    let mut applied = Applied::default();
    for Deletion { slot, node } in plan.deletions_since(0) {
        match remove(target, plan, node) {
            Ok(true) => applied.removed += 1,
            Ok(false) => {}
            Err(source) => {
                let (path, slot) = (node.path.clone(), Some(*slot));
                let action = "remove what was deleted at";
                applied.errors.push(ApplyError::System { action, path, slot, source });
            }
        }
    }
    applied
}

/// Removes a deleted node; false if it is not there. Its memory tells it from what another entry
/// made at the same path.
fn remove(target: &Target<'_>, plan: &Plan, node: &Node) -> io::Result<bool> {
    let path = &node.path;
    let dir = match target.open(path.parent().as_ref()) {
        Err(err) if is_elsewhere(&err) => return Ok(false),
        dir => dir?,
    };
    let stat = match rustix::fs::statat(&dir, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        stat => stat?,
    };
    let again = plan.tree().get(path).map(|listed| &listed.object.kind);
    let flags = match (&node.kind, FileType::from_raw_mode(stat.st_mode)) {
        (NodeKind::Dir, FileType::Directory) => match again {
            Some(ObjectKind::Dir { .. }) => return Ok(false),
            _ => AtFlags::REMOVEDIR,
        },
        (NodeKind::File { size, map }, FileType::RegularFile)
            if stat.st_size.cast_unsigned() == *size =>
        {
            match target.memory(&dir, path.name(), *size, &Memory::Map(map.clone()))? {
                Backed::Same => AtFlags::empty(),
                Backed::Unknown if again.is_none() => AtFlags::empty(),
                _ => return Ok(false),
            }
        }
        _ => return Ok(false),
    };
    rustix::fs::unlinkat(&dir, path.name(), flags)?;
    Ok(true)
}

fn is_elsewhere(err: &io::Error) -> bool {
    let known = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    known.iter().any(|known| err.raw_os_error() == Some(known.raw_os_error()))
}
