// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What famfs cannot hold, with the reason, and how to report it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::format::path::PathError;
use crate::replay::Owner;
use crate::text::terminal::escape_name;

/// Highest number of items that an error message lists.
const LISTED: usize = 10;

/// Why something is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its path needs more bytes than a log entry has.
    LongPath,
    /// Its path cannot be one of a famfs.
    Path,
    /// A file of no bytes.
    Empty,
    /// A symbolic link.
    SymbolicLink,
    /// A symbolic link that leads nowhere, where links are followed.
    Dangling,
    /// A hard link to another member of an archive.
    HardLink,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
    /// A file that a pack stores without its holes.
    Sparse,
    /// A member of an archive whose type is unknown.
    Type(u8),
    /// This process may not read it.
    Unreadable,
    /// A user or group that no log entry can name.
    Owner,
    /// Something else has its path.
    Taken,
    /// It exists, and its owner and mode stay what they are.
    Kept,
}

impl Why {
    /// Why a path was refused.
    pub fn of_path(error: &PathError) -> Self {
        match error {
            PathError::TooLong { .. } | PathError::LongName { .. } => Self::LongPath,
            _ => Self::Path,
        }
    }

    /// Whether a file system with extensions holds such an item.
    pub fn needs_extensions(self) -> bool {
        matches!(self, Self::LongPath | Self::Empty | Self::SymbolicLink)
    }

    /// The reason for one item; reasons with details have a text of their own.
    pub fn text(self) -> String {
        match self {
            Self::LongPath => "its path is too long".to_owned(),
            Self::Path => "its path cannot be used in a famfs".to_owned(),
            Self::Empty => {
                "empty file: without extensions, files have at least one byte".to_owned()
            }
            Self::SymbolicLink => "symbolic link".to_owned(),
            Self::Dangling => "dangling symbolic link: nothing is where it leads".to_owned(),
            Self::HardLink => "hard link to another member".to_owned(),
            Self::Pipe => "named pipe".to_owned(),
            Self::Socket => "socket".to_owned(),
            Self::Device => "device".to_owned(),
            Self::Sparse => "sparse file".to_owned(),
            Self::Type(byte) => format!("member of unknown type {byte:#04x}"),
            Self::Unreadable => "it cannot be read".to_owned(),
            Self::Owner => "a log entry cannot hold its owner".to_owned(),
            Self::Taken => "its path is taken".to_owned(),
            Self::Kept => "its owner and mode stay".to_owned(),
        }
    }

    /// A number of such items.
    fn count(self, number: usize) -> String {
        let plural = |one: &str, many: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{number} {many}"),
        };
        match self {
            Self::LongPath => plural("path that is too long", "paths that are too long"),
            Self::Path => plural("unusable path", "unusable paths"),
            Self::Empty => plural("empty file", "empty files"),
            Self::SymbolicLink => plural("symbolic link", "symbolic links"),
            Self::Dangling => plural("dangling symbolic link", "dangling symbolic links"),
            Self::HardLink => plural("hard link", "hard links"),
            Self::Pipe => plural("named pipe", "named pipes"),
            Self::Socket => plural("socket", "sockets"),
            Self::Device => plural("device", "devices"),
            Self::Sparse => plural("sparse file", "sparse files"),
            Self::Type(_) => plural("member of unknown type", "members of unknown type"),
            Self::Unreadable => plural("unreadable name", "unreadable names"),
            Self::Owner => plural("unusable owner", "unusable owners"),
            Self::Taken => plural("taken path", "taken paths"),
            Self::Kept => plural("owner or mode that stays", "owners or modes that stay"),
        }
    }
}

/// Something that famfs cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name, fit for a terminal.
    #[serde(rename = "path")]
    pub name: String,
    /// Its name, unchanged.
    #[serde(skip)]
    pub bytes: Vec<u8>,
    /// Why.
    #[serde(skip)]
    pub why: Why,
    /// Why, in words.
    pub reason: String,
}

impl LeftOut {
    /// An item with details about its reason.
    pub fn new(name: &[u8], why: Why, reason: impl ToString) -> Self {
        Self { name: escape_name(name), bytes: name.to_vec(), why, reason: reason.to_string() }
    }

    /// An item whose reason needs no details.
    pub fn plain(name: &[u8], why: Why) -> Self {
        Self::new(name, why, why.text())
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// How many items there are of each reason, the most frequent first: "2 empty files, 1 socket".
pub fn counts(reasons: impl IntoIterator<Item = Why>) -> String {
    let mut counts: BTreeMap<Why, usize> = BTreeMap::new();
    for why in reasons {
        // One line for all unknown types.
        let why = if let Why::Type(_) = why { Why::Type(0) } else { why };
        *counts.entry(why).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let texts: Vec<String> = counts.iter().map(|(why, number)| why.count(*number)).collect();
    texts.join(", ")
}

/// The first items, one a line, and how many more there are.
pub fn first_names(items: &[impl fmt::Display]) -> String {
    let mut text = String::new();
    for item in items.iter().take(LISTED) {
        text.push_str(&format!("\n  {item}"));
    }
    if items.len() > LISTED {
        text.push_str(&format!("\n  and {} more", items.len() - LISTED));
    }
    text
}

/// How an owner and mode that stay differ from those that were requested.
pub fn kept_owner(found: Owner, asked: Owner) -> String {
    let text = |owner: Owner| format!("{}:{} {:04o}", owner.uid, owner.gid, owner.mode);
    format!("exists with owner and mode {}, not {}", text(found), text(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_counted_by_reason() {
        let item = |why| LeftOut::plain(b"name\x1b", why);
        let mut items = vec![item(Why::Socket), item(Why::Type(7)), item(Why::Type(9))];
        items.extend(vec![item(Why::LongPath); 11]);
        assert_eq!(
            counts(items.iter().map(|item| item.why)),
            "11 paths that are too long, 2 members of unknown type, 1 socket"
        );
        let names = first_names(&items);
        assert_eq!(names.lines().count(), 12);
        assert!(names.ends_with("\n  and 4 more"), "{names}");
        assert!(names.starts_with("\n  name\\u001b: socket\n"), "{names}");
    }
}
