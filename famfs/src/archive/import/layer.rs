// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads archives into the tree that they make, plain ones and the layers of a container image.
//!
//! A layer says by names what it removes of the layers below: `.wh.NAME` the name, `.wh..wh..opq`
//! all that is in its directory. Its own members are never removed by it, in whatever order they
//! come.

use std::fs::File;

use super::stage::Stage;
use super::{ImportError, MAX_NAMES};
use crate::archive::compression::Compression;
use crate::archive::{Content, Member, compression, from_start, read_headers};
use crate::replay::tree::Tree;
use crate::write::unsupported::{LeftOut, Why};

/// The beginning of a name that removes another one.
const WHITEOUT: &[u8] = b".wh.";
/// The beginning of names that mean something else.
const META: &[u8] = b".wh..wh.";
/// The name that removes all that is in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Memory that a member takes besides its names.
const MEMBER: u64 = 256;

/// Reads the headers of an archive, and adds its members. What cannot be unpacked is left out.
pub(super) fn add(
    stage: &mut Stage,
    tree: &Tree,
    (archive, file): (usize, &File),
    layers: bool,
    left_out: &mut Vec<LeftOut>,
) -> Result<(), ImportError> {
    let is_plain = compression(&mut &*file)? == Compression::None;
    let check = |weight: u64| match !is_plain && weight > MAX_NAMES {
        true => Err(ImportError::Names),
        false => Ok(()),
    };
    let mut layer = Layer::default();
    read_headers(from_start(file)?, |member| {
        match member {
            Ok(member) if layers => layer.take(member, left_out),
            Ok(member) => left_out.extend(stage.add(tree, member, archive).err()),
            Err(found) => {
                stage.weight += MEMBER + (found.name.len() + found.reason.len()) as u64;
                left_out.push(found);
            }
        }
        check(stage.weight + layer.weight)
    })?;
    stage.weight += layer.weight;
    for member in layer.dirs {
        left_out.extend(stage.add(tree, member, archive).err());
    }
    for dir in layer.opaque {
        stage.empty(tree, &dir);
    }
    for name in layer.removed {
        stage.remove(tree, &name, archive);
    }
    for member in layer.others {
        left_out.extend(stage.add(tree, member, archive).err());
    }
    check(stage.weight)
}

/// What a layer has.
#[derive(Default)]
struct Layer {
    dirs: Vec<Member>,
    /// Directories without what they had before.
    opaque: Vec<Vec<u8>>,
    /// Names of the layers below that are gone.
    removed: Vec<Vec<u8>>,
    others: Vec<Member>,
    weight: u64,
}

impl Layer {
    fn take(&mut self, member: Member, left_out: &mut Vec<LeftOut>) {
        self.weight += MEMBER + member.name.len() as u64;
        let (dir, name) = match member.name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&member.name[..slash], &member.name[slash + 1..]),
            None => (&b""[..], &member.name[..]),
        };
        if member.content == Content::Dir && !name.starts_with(WHITEOUT) {
            self.dirs.push(member);
        } else if name == OPAQUE {
            self.opaque.push(dir.to_vec());
        } else if name.starts_with(META) {
            // What other programs note for themselves.
        } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
            if matches!(gone, b"" | b"." | b"..") {
                let text = "it removes a name that nothing can have";
                left_out.push(LeftOut::new(&member.name, Why::Path, text));
                return;
            }
            let path = if dir.is_empty() { gone.to_vec() } else { [dir, b"/", gone].concat() };
            self.removed.push(path);
        } else {
            self.others.push(member);
        }
    }
}
