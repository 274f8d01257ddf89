// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs chown`

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use famfs::replay::tree::object::{Object, ObjectKind};
use famfs::replay::tree::resolve::LastLink;
use famfs::write::change::NewAttributes;
use famfs_cli::args::{Chown, Id, NewGroup, NewOwner};
use nix::unistd::{Group, User};

use super::changes::{Change, Found, change, find};
use crate::operands::Operands;
use crate::output::{OK, Outcome};

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

pub fn run(pool: Option<&Path>, args: &Chown) -> Outcome {
    let (uid, gid) = numbers(&args.owner)?;
    let Some(first) = args.paths.first() else { return Ok(OK) };
    let (place, operands) = Operands::open(pool, first)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let tree = writer.plan().tree();
    let last = if args.no_dereference { LastLink::Keep } else { LastLink::Follow };
    let mut changes = Vec::new();
    for Found { path, object } in find(&operands, tree, &args.paths, args.recursive, last)? {
        let old = object.owner;
        let uid = uid.filter(|uid| *uid != old.uid);
        let gid = gid.filter(|gid| *gid != old.gid);
        if uid.is_some() || gid.is_some() {
            let text = format!(
                "owner {}:{} -> {}:{}",
                old.uid,
                old.gid,
                uid.unwrap_or(old.uid),
                gid.unwrap_or(old.gid)
            );
            let mode = safe_mode(object);
            changes.push(Change { path, new: NewAttributes { mode, uid, gid, mtime: None }, text });
        }
    }
    change(&mut writer, &changes, args.change)?;
    Ok(OK)
}

/// The mode of a file that another user gets, if it changes: as chown(2), a program no longer runs
/// as its owner.
fn safe_mode(object: &Object) -> Option<u32> {
    let mode = object.owner.mode;
    let dropped = match mode & GROUP_EXECUTE {
        0 => SET_USER_ID,
        _ => SET_USER_ID | SET_GROUP_ID,
    };
    let is_file = matches!(object.kind, ObjectKind::File { .. });
    (is_file && mode & dropped != 0).then_some(mode & !dropped)
}

/// User and group as numbers; what is `None` stays.
fn numbers(owner: &NewOwner) -> Result<(Option<u32>, Option<u32>)> {
    let user = match &owner.user {
        Some(Id::Name(name)) => Some(find_user(name)?),
        _ => None,
    };
    let uid = match &owner.user {
        Some(Id::Number(number)) => Some(*number),
        _ => user.as_ref().map(|user| user.uid.as_raw()),
    };
    let gid = match &owner.group {
        NewGroup::Keep => None,
        NewGroup::Login => user.as_ref().map(|user| user.gid.as_raw()),
        NewGroup::Is(Id::Number(number)) => Some(*number),
        NewGroup::Is(Id::Name(name)) => {
            let found = Group::from_name(name).with_context(|| format!("cannot find {name}"))?;
            Some(found.ok_or_else(|| unknown("group", name))?.gid.as_raw())
        }
    };
    Ok((uid, gid))
}

fn find_user(name: &str) -> Result<User> {
    let found = User::from_name(name).with_context(|| format!("cannot find {name}"))?;
    found.ok_or_else(|| unknown("user", name))
}

fn unknown(kind: &str, name: &str) -> anyhow::Error {
    anyhow!("this system has no {kind} \"{name}\": use its number, or a name that it knows")
}
