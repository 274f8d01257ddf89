// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tree that archives make of what is there, before anything of it is written.
//!
//! A member below a symbolic link goes where the link leads, within the directory that the archive
//! is unpacked into: for the link, that directory is the root. So nothing is ever made outside.

use std::collections::HashMap;

use crate::archive::{Content, Map, Member};
use crate::format::component::Component;
use crate::format::extension::{MAX_LONG_PATH, MAX_TARGET, NO_ENTRY};
use crate::format::path::RelPath;
use crate::format::{MAX_PATH, path};
use crate::replay::tree::Tree;
use crate::replay::tree::object::{Object, ObjectKind};
use crate::replay::{Attributes, Owner};
use crate::text::terminal::escape_name;
use crate::write::dropped::Attribute;
use crate::write::unsupported::{LeftOut, Why, kept_owner};

/// Highest number of symbolic links on the way to a member, as in the kernel.
const MAX_LINKS: usize = 40;
/// Memory that a node takes besides its name, approximately.
const NODE: u64 = 256;
/// Permission bits of symbolic links.
const LINK_MODE: u32 = 0o777;
/// The node of the directory that archives are unpacked into.
pub(super) const ROOT: usize = 0;

/// How archives change what is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// They are layers: a member replaces what is at its place.
    pub layers: bool,
    /// The file system has extensions.
    pub extensions: bool,
}

/// A name in the tree.
pub(super) struct Node {
    pub parent: usize,
    pub name: Box<[u8]>,
    /// Bytes of its path in the file system.
    len: usize,
    pub kind: Kind,
    /// What it has and famfs does not keep.
    pub lost: Vec<Attribute>,
}

pub(super) enum Kind {
    /// A directory.
    Dir(Dir),
    /// The name of a new file.
    File(usize),
    /// A new symbolic link.
    Symlink { target: Vec<u8>, attributes: Attributes },
    /// Another name of a file that is in the file system, by the slot that made it.
    Link(u64),
    /// A file or symbolic link that is in the file system, by the slot of its name.
    Existing(u64),
}

/// A directory.
#[derive(Default)]
pub(super) struct Dir {
    /// The slot that made it, if it is in the file system.
    pub existing: Option<u64>,
    /// How often it was emptied; names of earlier times do not count.
    pub emptied: u32,
    /// Those of its member.
    pub attributes: Option<Attributes>,
    /// The last archive that has a member for it.
    archive: Option<usize>,
    /// Whether something was ever put into it.
    filled: bool,
}

/// A new file.
pub(super) struct NewFile {
    /// Number of its archive.
    pub archive: usize,
    /// Where its bytes are in that.
    pub position: u64,
    pub size: u64,
    /// The ranges with data; `None` if all of it is.
    pub map: Option<Map>,
    pub attributes: Attributes,
}

/// A place in a directory: the directory, how often that was emptied, and the name.
type PlaceName = (usize, u32, Box<[u8]>);

/// The tree.
pub(super) struct Stage {
    into: Option<RelPath>,
    rules: Rules,
    pub nodes: Vec<Node>,
    /// Nodes by place; `None` is a name that is gone.
    pub names: HashMap<PlaceName, Option<usize>>,
    pub files: Vec<NewFile>,
    /// Members that a later one of the same name replaced.
    pub superseded: u64,
    /// Memory that it takes, approximately.
    pub weight: u64,
}

/// Why there is no directory for a member.
type Reason = (Why, String);

impl Stage {
    /// What is in a directory; `None` is the root. It may be missing only in an empty tree.
    pub fn new(tree: &Tree, into: Option<RelPath>, rules: Rules) -> Self {
        let existing = match &into {
            None => Some(NO_ENTRY),
            Some(path) => tree.get(path).map(|listed| listed.name.object),
        };
        let root = Node {
            parent: ROOT,
            name: Box::default(),
            len: into.as_ref().map_or(0, |path| path.as_bytes().len()),
            kind: Kind::Dir(Dir { existing, ..Dir::default() }),
            lost: Vec::new(),
        };
        let (nodes, names, files) = (vec![root], HashMap::new(), Vec::new());
        Self { into, rules, nodes, names, files, superseded: 0, weight: 0 }
    }

    /// The path of a node; `name_of` gives the name of each.
    pub fn path<'s>(
        &'s self,
        node: usize,
        name_of: impl Fn(usize) -> &'s [u8],
    ) -> Result<RelPath, path::PathError> {
        let (mut at, mut parts) = (node, Vec::new());
        while at != ROOT {
            parts.push(name_of(at));
            at = self.nodes[at].parent;
        }
        parts.extend(self.into.as_ref().map(RelPath::as_bytes));
        parts.reverse();
        RelPath::new(&parts.join(&b'/'))
    }

    /// A node's final path for a message.
    fn shown(&self, node: usize) -> String {
        self.path(node, |node| &self.nodes[node].name).map_or("/".into(), |path| path.to_string())
    }

    pub fn dir(&self, node: usize) -> Option<&Dir> {
        match &self.nodes[node].kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    fn key(&self, dir: usize, name: &[u8]) -> (usize, u32, Box<[u8]>) {
        (dir, self.dir(dir).map_or(0, |dir| dir.emptied), name.into())
    }

    /// What is at a name.
    fn child(&mut self, tree: &Tree, dir: usize, name: &[u8]) -> Option<usize> {
        let key = self.key(dir, name);
        if let Some(known) = self.names.get(&key) {
            return *known;
        }
        let slot = match self.dir(dir)? {
            Dir { existing: Some(slot), emptied: 0, .. } => *slot,
            _ => return None,
        };
        let slot = tree.find(slot, &Component::new(name).ok()?)?;
        let listed = tree.listed(slot)?;
        let kind = match listed.object.kind {
            ObjectKind::Dir { .. } => {
                Kind::Dir(Dir { existing: Some(listed.name.object), ..Dir::default() })
            }
            _ => Kind::Existing(slot),
        };
        Some(self.insert(dir, name, kind, Vec::new()))
    }

    fn insert(&mut self, dir: usize, name: &[u8], kind: Kind, lost: Vec<Attribute>) -> usize {
        let len = self.nodes[dir].len + usize::from(self.nodes[dir].len > 0) + name.len();
        self.nodes.push(Node { parent: dir, name: name.into(), len, kind, lost });
        self.weight += NODE + 2 * name.len() as u64;
        let node = self.nodes.len() - 1;
        if let Kind::Dir(dir) = &mut self.nodes[dir].kind {
            dir.filled = true;
        }
        let key = self.key(dir, name);
        self.names.insert(key, Some(node));
        node
    }

    /// The target of a node that is a symbolic link.
    fn target<'s>(&'s self, tree: &'s Tree, node: usize) -> Option<&'s [u8]> {
        match &self.nodes[node].kind {
            Kind::Symlink { target, .. } => Some(target),
            Kind::Existing(slot) => match &tree.listed(*slot)?.object.kind {
                ObjectKind::Symlink { target } => Some(target),
                _ => None,
            },
            _ => None,
        }
    }

    /// The directory that a member is in, after the links on the way, and its name in it. Missing
    /// directories are made if `make` is set.
    fn place<'n>(
        &mut self,
        tree: &Tree,
        name: &'n [u8],
        make: bool,
    ) -> Result<(usize, &'n [u8]), Reason> {
        let (above, last) = match name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&name[..slash], &name[slash + 1..]),
            None => (&b""[..], name),
        };
        let parts = |path: &[u8]| -> Vec<Box<[u8]>> {
            path.split(|&byte| byte == b'/').rev().map(Into::into).collect()
        };
        let (mut dir, mut left, mut links) = (ROOT, parts(above), 0);
        while let Some(part) = left.pop() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    dir = self.nodes[dir].parent;
                    continue;
                }
                _ => {}
            }
            let Some(node) = self.child(tree, dir, &part) else {
                let missing = || (Why::Path, "its directory does not exist".to_owned());
                if !make {
                    return Err(missing());
                }
                self.check_name(dir, &part)?;
                dir = self.insert(dir, &part, Kind::Dir(Dir::default()), Vec::new());
                continue;
            };
            if self.dir(node).is_some() {
                dir = node;
                continue;
            }
            let Some(target) = self.target(tree, node).map(<[u8]>::to_vec) else {
                let text = format!("\"{}\" is a file, expected a directory", self.shown(node));
                return Err((Why::Taken, text));
            };
            links += 1;
            if links > MAX_LINKS {
                let text = format!(
                    "more than {MAX_LINKS} symbolic links on the way to it, the last one \"{}\"",
                    self.shown(node)
                );
                return Err((Why::Path, text));
            }
            // An absolute target begins at the directory that the archive is unpacked into.
            if target.first() == Some(&b'/') {
                dir = ROOT;
            }
            left.extend(parts(&target));
        }
        Ok((dir, last))
    }

    /// Whether a directory may have such a name.
    fn check_name(&self, dir: usize, name: &[u8]) -> Result<(), Reason> {
        let Node { len, .. } = self.nodes[dir];
        let component = Component::new(name).map_err(|err| (Why::LongPath, err.to_string()))?;
        if dir == ROOT && self.into.is_none() {
            let reserved = component.is_reserved() && self.rules.extensions;
            if reserved || name == path::META_DIR.as_bytes() {
                let text = format!("name \"{component}\" is reserved in the root directory");
                return Err((Why::Path, text));
            }
        }
        let len = len + usize::from(len > 0) + name.len();
        let most = if self.rules.extensions { MAX_LONG_PATH } else { MAX_PATH };
        match len <= most {
            true => Ok(()),
            false => {
                let text = format!("its path has {len} bytes, expected at most {most}");
                Err((Why::LongPath, text))
            }
        }
    }

    /// Adds a member of an archive.
    pub fn add(&mut self, tree: &Tree, member: Member, archive: usize) -> Result<(), LeftOut> {
        let Member { name, owner, mtime, content, attributes: lost } = member;
        let left_out = |(why, text): Reason| LeftOut::new(&name, why, text);
        let attributes = Attributes { owner, mtime };
        let without = !self.rules.extensions;
        match &content {
            Content::Unfit(why) => return Err(LeftOut::plain(&name, *why)),
            Content::Dir if name.is_empty() => return Ok(()),
            _ if name.is_empty() => {
                let text = "it is the directory that the archive is unpacked into";
                return Err(LeftOut::new(&name, Why::Taken, text));
            }
            Content::File { size: 0, .. } if without => {
                return Err(LeftOut::plain(&name, Why::Empty));
            }
            Content::Symlink(_) if without => {
                return Err(LeftOut::plain(&name, Why::SymbolicLink));
            }
            Content::HardLink(_) if without => return Err(LeftOut::plain(&name, Why::HardLink)),
            Content::Symlink(target) => check_target(target).map_err(left_out)?,
            _ => {}
        }
        let linked = match &content {
            Content::HardLink(old) => Some(self.linked(tree, old).map_err(left_out)?),
            _ => None,
        };
        let (dir, last) = self.place(tree, &name, true).map_err(left_out)?;
        self.check_name(dir, last).map_err(left_out)?;
        let there = self.child(tree, dir, last);
        if let (Some(node), Content::Dir) = (there, &content)
            && self.dir(node).is_some()
        {
            return self.set_dir(tree, node, attributes, (lost, archive)).map_err(left_out);
        }
        if there.is_some() && there == linked {
            return Ok(());
        }
        if let Some(node) = there {
            self.check_replace(tree, node).map_err(left_out)?;
        }
        let mut lost = lost;
        let kind = match content {
            Content::Dir => Kind::Dir(Dir {
                attributes: Some(attributes),
                archive: Some(archive),
                ..Dir::default()
            }),
            Content::File { size, position, map } => {
                self.weight += map.as_ref().map_or(0, |map| size_of_val(&**map) as u64);
                self.files.push(NewFile { archive, position, size, map, attributes });
                Kind::File(self.files.len() - 1)
            }
            Content::Symlink(target) => {
                self.weight += target.len() as u64;
                // As on Linux, whatever an archive says.
                let owner = Owner { mode: LINK_MODE, ..attributes.owner };
                Kind::Symlink { target, attributes: Attributes { owner, ..attributes } }
            }
            Content::HardLink(_) | Content::Unfit(_) => {
                let node = linked.unwrap_or(ROOT);
                if self.target(tree, node).is_some() {
                    // Only files have several names.
                    lost.push(Attribute::HardLink);
                }
                self.same(tree, node).map_err(left_out)?
            }
        };
        self.insert(dir, last, kind, lost);
        Ok(())
    }

    /// The node that a hard link names.
    fn linked(&mut self, tree: &Tree, old: &[u8]) -> Result<usize, Reason> {
        let reason =
            |text| (Why::HardLink, format!("hard link to \"{}\", {text}", escape_name(old)));
        let missing = || reason("which is not there");
        let (dir, last) = self.place(tree, old, false).map_err(|_| missing())?;
        let node = self.child(tree, dir, last).ok_or_else(missing)?;
        match self.dir(node) {
            Some(_) => Err(reason("which is a directory")),
            None => Ok(node),
        }
    }

    /// What another name of a node is.
    fn same(&self, tree: &Tree, node: usize) -> Result<Kind, Reason> {
        Ok(match &self.nodes[node].kind {
            Kind::File(file) => Kind::File(*file),
            Kind::Link(object) => Kind::Link(*object),
            Kind::Symlink { target, attributes } => {
                Kind::Symlink { target: target.clone(), attributes: *attributes }
            }
            Kind::Existing(slot) => match tree.listed(*slot) {
                Some(listed) => match &listed.object.kind {
                    ObjectKind::Symlink { target } => {
                        let Object { owner, mtime, .. } = *listed.object;
                        let attributes = Attributes { owner, mtime };
                        Kind::Symlink { target: target.to_vec(), attributes }
                    }
                    _ => Kind::Link(listed.name.object),
                },
                None => return Err((Why::HardLink, Why::HardLink.text())),
            },
            Kind::Dir(_) => return Err((Why::HardLink, Why::HardLink.text())),
        })
    }

    /// Gives a directory that is there the attributes of its member.
    fn set_dir(
        &mut self,
        tree: &Tree,
        node: usize,
        attributes: Attributes,
        (lost, archive): (Vec<Attribute>, usize),
    ) -> Result<(), Reason> {
        let existing = self.dir(node).and_then(|dir| dir.existing);
        let found = existing.and_then(|slot| tree.object(slot)).map(|object| object.owner);
        if let Some(found) = found.filter(|found| *found != attributes.owner)
            && !self.rules.extensions
        {
            let kept = kept_owner(found, attributes.owner);
            return Err((Why::Kept, format!("\"{}\" {kept}", self.shown(node))));
        }
        self.nodes[node].lost = lost;
        if let Kind::Dir(dir) = &mut self.nodes[node].kind {
            dir.attributes = Some(attributes);
            dir.archive = Some(archive);
        }
        Ok(())
    }

    /// Whether a member may take the place of a node: of everything in a layer, else of an earlier
    /// member, unless that is a directory with something in it.
    fn check_replace(&mut self, tree: &Tree, node: usize) -> Result<(), Reason> {
        let is_dir = match &self.nodes[node].kind {
            Kind::Existing(slot) => match (self.rules.layers, tree.listed(*slot)) {
                (true, _) | (_, None) => return Ok(()),
                (false, Some(_)) => {
                    let text = format!("\"{}\" exists already", self.shown(node));
                    return Err((Why::Taken, text));
                }
            },
            Kind::Dir(dir) => {
                let is_kept = dir.existing.is_some() || dir.filled;
                if is_kept && !self.rules.layers {
                    return Err((Why::Taken, format!("\"{}\" is a directory", self.shown(node))));
                }
                true
            }
            _ => false,
        };
        self.superseded += u64::from(!is_dir);
        Ok(())
    }

    /// Removes a name of the layers below; of a directory that this layer has too, only its
    /// contents.
    pub fn remove(&mut self, tree: &Tree, name: &[u8], archive: usize) {
        let Ok((dir, last)) = self.place(tree, name, false) else { return };
        match self.child(tree, dir, last) {
            Some(node) if self.dir(node).is_some_and(|dir| dir.archive == Some(archive)) => {
                self.empty_node(node);
            }
            Some(_) => {
                let key = self.key(dir, last);
                self.names.insert(key, None);
            }
            None => {}
        }
    }

    /// Removes all names of the layers below from a directory.
    pub fn empty(&mut self, tree: &Tree, name: &[u8]) {
        let node = match name.is_empty() {
            true => Some(ROOT),
            false => match self.place(tree, name, false) {
                Ok((dir, last)) => self.child(tree, dir, last),
                Err(_) => None,
            },
        };
        if let Some(node) = node {
            self.empty_node(node);
        }
    }

    fn empty_node(&mut self, node: usize) {
        if let Kind::Dir(dir) = &mut self.nodes[node].kind {
            dir.emptied += 1;
        }
    }
}

fn check_target(target: &[u8]) -> Result<(), Reason> {
    let most = usize::try_from(MAX_TARGET).unwrap_or(usize::MAX);
    if target.is_empty() || target.len() > most || target.contains(&0) {
        let text = format!(
            "symbolic link with a target of {} bytes, expected 1 to {MAX_TARGET} without NUL",
            target.len()
        );
        return Err((Why::SymbolicLink, text));
    }
    Ok(())
}
