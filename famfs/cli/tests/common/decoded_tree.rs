// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays the log that [`super::decoder`] has read, as `docs/reference/format.md` says: the tree
//! that it describes, as a manifest.

use std::collections::BTreeMap;

use trees::{Contents, Entry as Listed, Kind, Time, Tree};

use super::decoder::{
    Conventional, Entry, Media, NONE, Piece, conventional, letters, tail, text_at, u32_at, u64_at,
};

/// A file, directory or symbolic link.
#[derive(Clone)]
struct Object {
    what: What,
    mode: u32,
    user: u32,
    group: u32,
    time: Option<Time>,
}

#[derive(Clone)]
enum What {
    Directory,
    Target(Vec<u8>),
    Conventional(Conventional),
    Pieces(u64, Vec<Piece>),
}

/// A name: where it is, and the object that it names.
struct Name {
    parent: u64,
    name: Vec<u8>,
    object: u64,
}

/// What a log has made so far, by slot.
struct Player {
    objects: BTreeMap<u64, Object>,
    names: BTreeMap<u64, Name>,
    /// What conventional paths name.
    conventional: BTreeMap<Vec<u8>, u64>,
    /// The `LIST` entries right before.
    lists: Vec<Vec<u8>>,
}

/// The tree that a log describes, without the store.
pub fn tree(media: &Media) -> Tree {
    let mut player = Player {
        objects: BTreeMap::new(),
        names: BTreeMap::new(),
        conventional: BTreeMap::from([(Vec::new(), NONE)]),
        lists: Vec::new(),
    };
    media.entries.iter().for_each(|entry| player.play(entry));
    player.tree(media)
}

fn time(body: &[u8], at: usize) -> Time {
    Time { seconds: u64_at(body, at).cast_signed(), nanoseconds: u32_at(body, at + 8) }
}

impl Player {
    fn play(&mut self, entry: &Entry) {
        let (slot, body) = (entry.slot, &entry.body[..]);
        let before = std::mem::take(&mut self.lists);
        match entry.kind {
            0 => {
                let file = conventional(body);
                let path = file.path.clone();
                self.add_conventional(slot, path, What::Conventional(file), &body[12..24]);
            }
            1 => self.add_conventional(slot, text_at(body, 12, 80), What::Directory, &body[..12]),
            2 => {
                let (made, path) = (u64_at(body, 0), text_at(body, 8, 80));
                // Of what is void, a deletion has no effect.
                if self.names.remove(&made).is_some() {
                    assert_eq!(self.conventional.remove(&path), Some(made));
                }
            }
            kind if kind == letters(*b"VOID") => {}
            kind if kind == letters(*b"NAME") => {
                let size = u64_at(body, 8);
                let what = match u32_at(body, 28) {
                    1 => {
                        let raw = tail(body, &before, 32);
                        What::Pieces(size, raw.chunks(32).map(Piece::of).collect())
                    }
                    2 => What::Directory,
                    3 => What::Target(tail(body, &before, 1)),
                    other => panic!("slot {slot}: kind {other}"),
                };
                let [user, group, mode] = [32, 36, 40].map(|at| u32_at(body, at));
                let time = Some(time(body, 16));
                self.objects.insert(slot, Object { what, mode, user, group, time });
                self.name(slot, u64_at(body, 0), text_at(body, 56, 256), slot);
            }
            kind if kind == letters(*b"LIST") => {
                self.lists = before;
                self.lists.push(body[..512].to_vec());
            }
            kind if kind == letters(*b"LINK") => {
                let object = u64_at(body, 0);
                if self.objects.contains_key(&object) {
                    self.name(slot, u64_at(body, 8), text_at(body, 16, 256), object);
                }
            }
            kind if kind == letters(*b"ATTR") => self.attributes(body),
            kind if kind == letters(*b"MOVE") => {
                let [moved, parent, replaced] = [0, 8, 16].map(|at| u64_at(body, at));
                if let Some(Name { object, .. }) = self.names.remove(&moved) {
                    // None, or void by now: then the name is free already.
                    self.names.remove(&replaced);
                    self.name(moved, parent, text_at(body, 24, 256), object);
                }
            }
            kind if kind == letters(*b"RMOV") => drop(self.names.remove(&u64_at(body, 0))),
            // What belongs together is published together.
            kind if kind == letters(*b"GRUP") => {}
            other => panic!("slot {slot}: type {other:#x}"),
        }
    }

    fn name(&mut self, slot: u64, parent: u64, name: Vec<u8>, object: u64) {
        assert!(!name.is_empty() && !name.contains(&b'/'), "slot {slot}");
        let twice = self.names.values().any(|other| other.parent == parent && other.name == name);
        assert!(!twice, "slot {slot}: {} is there", String::from_utf8_lossy(&name));
        self.names.insert(slot, Name { parent, name, object });
    }

    /// Owner, group and mode are next to each other.
    fn add_conventional(&mut self, slot: u64, path: Vec<u8>, what: What, owner: &[u8]) {
        let [user, group, mode] = [0, 4, 8].map(|at| u32_at(owner, at));
        self.objects.insert(slot, Object { what, mode, user, group, time: None });
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (path[..at].to_vec(), path[at + 1..].to_vec()),
            None => (Vec::new(), path.clone()),
        };
        self.name(slot, self.conventional[&parent], name, slot);
        self.conventional.insert(path, slot);
    }

    fn attributes(&mut self, body: &[u8]) {
        let (target, mask) = (u64_at(body, 0), u32_at(body, 8));
        // The root's are not shown.
        let Some(object) = self.objects.get_mut(&target) else { return };
        if mask & 1 != 0 {
            object.mode = u32_at(body, 12);
        }
        if mask & 2 != 0 {
            object.user = u32_at(body, 16);
        }
        if mask & 4 != 0 {
            object.group = u32_at(body, 20);
        }
        if mask & 8 != 0 {
            object.time = Some(time(body, 24));
        }
    }

    /// The path of a name; none below the store, and below what is gone.
    fn path(&self, slot: u64) -> Option<Vec<u8>> {
        let Name { parent, name, .. } = self.names.get(&slot)?;
        if *parent == NONE {
            return (name != b".famfs").then(|| name.clone());
        }
        Some([&self.path(*parent)?[..], b"/", name].concat())
    }

    fn tree(&self, media: &Media) -> Tree {
        let (mut tree, mut first) = (Tree::default(), BTreeMap::new());
        let mut paths: Vec<_> =
            self.names.iter().filter_map(|(slot, name)| Some((self.path(*slot)?, name))).collect();
        paths.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, Name { object: slot, .. }) in paths {
            let Object { what, mode, user, group, time } = self.objects[slot].clone();
            let kind = match what {
                What::Directory => Kind::Directory,
                What::Target(text) => Kind::Symlink(text),
                What::Conventional(file) => Kind::File(whole(media, &file)),
                What::Pieces(size, pieces) => Kind::File(self.parts(media, size, &pieces)),
            };
            let same_as = first.get(slot).cloned();
            first.entry(*slot).or_insert_with(|| path.clone());
            let time = time.unwrap_or(Time { seconds: 0, nanoseconds: 0 });
            tree.entries.insert(path, Listed { kind, mode, user, group, time, same_as });
        }
        tree
    }

    /// Bytes that lie in the store; what is behind the end in the last page is zero.
    fn parts(&self, media: &Media, size: u64, pieces: &[Piece]) -> Contents {
        let store = |piece: &Piece| match &self.objects[&piece.slot].what {
            What::Conventional(file) => file,
            _ => panic!("slot {} is no file of the store", piece.slot),
        };
        let mut data: Vec<std::ops::Range<u64>> = Vec::new();
        for piece in pieces {
            let (start, end) = (piece.at * 4096, (piece.at + piece.pages) * 4096);
            match data.last_mut() {
                Some(last) if last.end == start => last.end = end,
                Some(last) => {
                    assert!(last.end < start, "pieces are not in order");
                    data.push(start..end);
                }
                None => data.push(start..end),
            }
            if end > size {
                assert!(end - size < 4096, "a piece behind the end");
                let last = store(piece).place((piece.page + piece.pages - 1) * 4096).0;
                let mut page = [0; 4096];
                media.bytes(last, &mut page);
                let used = usize::try_from(size % 4096).unwrap();
                assert!(page[used..].iter().all(|byte| *byte == 0), "bytes behind the end");
            }
        }
        let read = |offset: u64, buf: &mut [u8]| {
            for (number, page) in buf.chunks_mut(4096).enumerate() {
                let at = offset / 4096 + number as u64;
                let piece = pieces.iter().find(|p| (p.at..p.at + p.pages).contains(&at)).unwrap();
                media.bytes(store(piece).place((piece.page + at - piece.at) * 4096).0, page);
            }
            Ok(())
        };
        Contents::of(size, data, read).unwrap()
    }
}

/// The bytes of a file without extensions.
fn whole(media: &Media, file: &Conventional) -> Contents {
    let read = |offset: u64, buf: &mut [u8]| {
        for (number, page) in buf.chunks_mut(4096).enumerate() {
            media.bytes(file.place(offset + 4096 * number as u64).0, page);
        }
        Ok(())
    };
    Contents::of(file.size, vec![0..file.size.next_multiple_of(4096)], read).unwrap()
}
