// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an archive needs, for whoever makes a file system for it.

use std::fs::File;

use super::stage::{Rules, Stage};
use super::work::Work;
use super::{ImportError, layer, layout};
use crate::format::path::RelPath;
use crate::replay::tree::Tree;
use crate::write::need::Need;
use crate::write::unsupported::LeftOut;

/// What an archive needs, and what famfs cannot hold of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Number of files, directories and links, directories above them included.
    pub names: u64,
    /// Bytes of the files, with their holes.
    pub bytes: u64,
    /// Log entries and memory.
    pub need: Need,
    /// Members that no famfs can hold at this place.
    pub left_out: Vec<LeftOut>,
}

impl Survey {
    /// Surveys an archive that is to be unpacked into a directory of an empty file system with
    /// extensions; `None` is the root.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(file: &File, into: Option<&RelPath>) -> Result<Self, ImportError> {
        let (tree, mut survey) = (Tree::new(true), Self::default());
        let rules = Rules { layers: false, extensions: true };
        let mut stage = Stage::new(&tree, into.cloned(), rules);
        layer::add(&mut stage, &tree, (0, file), false, &mut survey.left_out)?;
        let work = Work::of(stage, &tree, true);
        let above = into.map_or(0, |path| path.as_bytes().split(|&byte| byte == b'/').count());
        for _ in 0..above + work.dirs.len() + work.links.len() {
            survey.names += 1;
            survey.need.add_name();
        }
        for node in &work.symlinks {
            survey.names += 1;
            survey.need.add_symlink(work.symlink(*node).0.len());
        }
        for (_, file) in work.files() {
            survey.names += 1;
            survey.bytes = survey.bytes.saturating_add(file.size);
            survey.need.add_file(&layout(file, true));
        }
        Ok(survey)
    }
}
