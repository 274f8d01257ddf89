// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a pool holds, as a manifest like that of a directory.

use std::collections::BTreeMap;
use std::ops::Range;

use famfs::format::extension::{NO_ENTRY, PAGE};
use famfs::format::map::Extent;
use famfs::format::path::RelPath;
use famfs::replay::Contents;
use famfs::replay::fsck::check;
use famfs::replay::tree::object::ObjectKind;
use famfs::sys::dax::Access;
use famfs::write::volume::Volume;
use trees::{Entry, Kind, Time, Tree};

/// Reads the root of a file system, which has to be clean.
pub fn manifest(pool: &dyn Volume) -> Tree {
    let contents = Contents::read(pool.media()).unwrap();
    let problems = check(pool.media(), &contents).problems;
    assert!(problems.is_empty(), "{problems:?}");
    let tree = contents.plan.tree();
    let mut entries = BTreeMap::new();
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut named: Vec<_> = Vec::new();
    tree.walk(NO_ENTRY, |at, listed| {
        named.push((at.to_vec(), listed));
        Ok::<(), ()>(())
    })
    .unwrap();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    for (at, listed) in named {
        let object = listed.object;
        let mtime = object.mtime.unwrap();
        let (mode, user, group) = (object.owner.mode, object.owner.uid, object.owner.gid);
        let time = Time { seconds: mtime.sec, nanoseconds: mtime.nsec };
        let kind = match &object.kind {
            ObjectKind::Dir { .. } => Kind::Directory,
            ObjectKind::Symlink { target } => Kind::Symlink(target.to_vec()),
            ObjectKind::File { size, bytes } => {
                let memory = tree.memory(bytes, *size);
                let data = tree.extents(bytes, *size);
                let file = pool
                    .open_file(&RelPath::new(&at).unwrap(), *size, &memory, Access::Read)
                    .unwrap();
                // What is behind the end is zero.
                if let Some((offset, extent)) = data.last()
                    && offset + extent.len > *size
                {
                    let mut tail = vec![1; usize::try_from(offset + extent.len - size).unwrap()];
                    let start = extent.offset + (size - offset);
                    pool.media().read_at(start, &mut tail).unwrap();
                    assert!(tail.iter().all(|byte| *byte == 0) && (tail.len() as u64) < PAGE);
                }
                let read = |offset, buf: &mut [u8]| Ok(file.read(offset, buf)?);
                Kind::File(trees::Contents::of(*size, joined(&data), read).unwrap())
            }
        };
        let same_as = match first.get(&listed.name.object) {
            Some(first) => Some(first.clone()),
            None => {
                first.insert(listed.name.object, at.clone());
                None
            }
        };
        entries.insert(at, Entry { kind, mode, user, group, time, same_as });
    }
    Tree { entries }
}

/// A file's ranges of data, in whole pages, joined.
fn joined(data: &[(u64, Extent)]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (at, extent) in data {
        match ranges.last_mut() {
            Some(last) if last.end == *at => last.end += extent.len,
            _ => ranges.push(*at..at + extent.len),
        }
    }
    ranges
}
