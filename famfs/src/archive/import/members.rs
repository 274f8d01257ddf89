// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an archive holds in the end: for each name the last member.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;

use super::{ImportError, MAX_NAMES};
use crate::archive::compression::Compression;
use crate::archive::{Content, Member, compression, from_start, read_headers};
use crate::format::path::RelPath;
use crate::write::unsupported::{LeftOut, Why};

/// Memory that a member takes besides its name.
const MEMBER: u64 = 128;

/// The members that an archive holds in the end: for each name the last one.
#[derive(Default)]
pub(super) struct Members {
    /// By their order.
    pub(super) list: BTreeMap<u64, Member>,
    by_name: HashMap<Vec<u8>, u64>,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) superseded: u64,
    next: u64,
    /// Memory that they take, approximately.
    weight: u64,
}

impl Members {
    /// Reads the headers of an archive.
    pub(super) fn read(file: &File, compression: Compression) -> Result<Self, ImportError> {
        let mut members = Self::default();
        read_headers(from_start(file)?, |member| {
            members.add(member);
            match compression != Compression::None && members.weight > MAX_NAMES {
                true => Err(ImportError::Names),
                false => Ok(()),
            }
        })?;
        Ok(members)
    }

    fn add(&mut self, member: Result<Member, LeftOut>) {
        let member = match member {
            Ok(member) => member,
            Err(left_out) => {
                self.weight += MEMBER + (left_out.name.len() + left_out.reason.len()) as u64;
                return self.left_out.push(left_out);
            }
        };
        let before = self.by_name.get(&member.name).copied();
        match before.and_then(|order| Some((order, self.list.get_mut(&order)?))) {
            // It is made once, with the owner that comes last.
            Some((_, old)) if old.content == Content::Dir && member.content == Content::Dir => {
                old.owner = member.owner;
                return;
            }
            // A directory that is not empty stays; the member is refused later.
            Some((_, old)) if old.content == Content::Dir => {}
            Some((order, _)) => {
                self.list.remove(&order);
                self.weight -= MEMBER + 2 * member.name.len() as u64;
                self.superseded += 1;
            }
            None => {}
        }
        self.weight += MEMBER + 2 * member.name.len() as u64;
        if before.is_none_or(|order| !self.list.contains_key(&order)) {
            self.by_name.insert(member.name.clone(), self.next);
        }
        self.list.insert(self.next, member);
        self.next += 1;
    }
}

/// What an archive needs, and what famfs cannot hold of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Sizes of the files.
    pub files: Vec<u64>,
    /// Directories, those above files included.
    pub directories: u64,
    /// Members that no famfs can hold at this place.
    pub left_out: Vec<LeftOut>,
}

impl Survey {
    /// Surveys an archive that is to be unpacked into a directory; `None` is the root.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(file: &File, into: Option<&RelPath>) -> Result<Self, ImportError> {
        let members = Members::read(file, compression(&mut &*file)?)?;
        let mut survey = Self { left_out: members.left_out, ..Self::default() };
        let mut directories = HashSet::new();
        for member in members.list.into_values() {
            let path = match fit(&member).and_then(|()| path_of(into, &member.name)) {
                Ok(Some(path)) => path,
                Ok(None) => continue,
                Err(left_out) => {
                    survey.left_out.push(left_out);
                    continue;
                }
            };
            let mut above = path.parent();
            match member.content {
                Content::File { size, .. } => survey.files.push(size),
                _ => above = Some(path),
            }
            while let Some(dir) = above {
                above = dir.parent();
                if !directories.insert(dir) {
                    break;
                }
            }
        }
        survey.directories = directories.len() as u64;
        Ok(survey)
    }
}

/// Refuses a member that no famfs can hold.
pub(super) fn fit(member: &Member) -> Result<(), LeftOut> {
    match member.content {
        Content::Unfit(why) => Err(LeftOut::plain(&member.name, why)),
        Content::File { size: 0, .. } => Err(LeftOut::plain(&member.name, Why::Empty)),
        Content::File { .. } | Content::Dir => Ok(()),
    }
}

/// Where a member goes; `None` is the directory that the archive is unpacked into.
pub(super) fn path_of(into: Option<&RelPath>, name: &[u8]) -> Result<Option<RelPath>, LeftOut> {
    if name.is_empty() {
        return Ok(None);
    }
    let path = match into {
        Some(dir) => RelPath::new(&[dir.as_bytes(), b"/", name].concat()),
        None => RelPath::new(name),
    };
    let path = path.and_then(|path| path.to_field().map(|_| path));
    path.map(Some).map_err(|err| LeftOut::new(name, Why::of_path(&err), err))
}
