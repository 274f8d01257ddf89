// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What conventional entries describe: files and directories, and whose they are.

use zerocopy::little_endian::U32;

use crate::format::map::FileMap;
use crate::format::path::RelPath;

/// The number with which chown(2) leaves an owner unchanged: no user or group has it.
pub const NO_ID: u32 = u32::MAX;

/// Owner and permissions of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits (`07777`).
    pub mode: u32,
}

/// A time with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970, or before.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: u32,
}

/// What a file, directory or symbolic link has besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Owner and permissions.
    pub owner: Owner,
    /// Time of the last change of its contents; conventional entries hold none.
    pub mtime: Option<Time>,
}

impl From<Owner> for Attributes {
    fn from(owner: Owner) -> Self {
        Self { owner, mtime: None }
    }
}

impl Owner {
    /// Checks the fields of an entry. Bits of the mode that are not permissions are ignored.
    pub(super) fn parse(uid: U32, gid: U32, mode: U32) -> Result<Self, OwnerError> {
        for (what, id) in [("user", uid.get()), ("group", gid.get())] {
            if id == NO_ID {
                return Err(OwnerError { what, found: id });
            }
        }
        Ok(Self { uid: uid.get(), gid: gid.get(), mode: mode.get() & 0o7777 })
    }
}

/// A number that no user or group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {found}, expected 0 to {}", NO_ID - 1)]
pub struct OwnerError {
    /// "user" or "group".
    pub what: &'static str,
    /// Value on the media.
    pub found: u32,
}

/// A file or directory of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub path: RelPath,
    /// Slot of its log entry.
    pub slot: u64,
    /// Its owner.
    pub owner: Owner,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Size in bytes.
        size: u64,
        /// Where its bytes are.
        map: FileMap,
    },
}

/// A file or directory that a later entry deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Slot of the deleting entry.
    pub slot: u64,
    /// What was deleted. Its memory stays taken, because others may have it mapped.
    pub node: Node,
}
