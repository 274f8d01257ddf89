// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random sequences of extension entries against a tree that is kept by paths, as a user sees it.
//! The log is cut at every slot, and each time the tree must be the one of that moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use famfs::format::EntryKind;
use famfs::format::extension::{NO_ENTRY, PAGE};
use famfs::format::piece::Piece;
use famfs::kernel::note::Note;
use famfs::kernel::player::Task;
use famfs::replay::Plan;
use famfs::replay::Time;
use famfs::replay::tree::object::ObjectKind;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::log::{
    DEVICE_LEN, ExtendedLog, UNIT_PAGES, attributes, dir, far, file, group, link, listed, moved,
    removal, symlink,
};
use crate::mounted;

/// Names to choose from: few, so that they meet.
const NAMES: [&[u8]; 6] = [b"a", b"b", b"\xff\x01 ", b"d e", b"f", b".famfs"];

/// An operation, in numbers that choose among what is there.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    what: u8,
    of: usize,
    to: usize,
    name: usize,
    number: u32,
}

pub fn op() -> impl Strategy<Value = Op> {
    let parts = (0_u8..26, 0_usize..64, 0_usize..64, 0..NAMES.len(), 0_u32..4000);
    parts.prop_map(|(what, of, to, name, number)| Op { what, of, to, name, number })
}

/// What a user sees of a file, directory or link.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    kind: char,
    size: u64,
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: Option<(i64, u32)>,
    target: Vec<u8>,
    /// Page of the file, and where that is on the device.
    pub pages: BTreeMap<u64, u64>,
}

/// Path to slot of the name, slot of what it names, number of its names, and what it is.
pub type Listing = BTreeMap<Vec<u8>, (u64, u64, u64, Seen)>;

#[derive(Default)]
pub struct Model {
    /// Slot of the name, and of what it names, by path.
    paths: BTreeMap<Vec<u8>, (u64, u64)>,
    objects: HashMap<u64, Seen>,
    /// Pages of the device that a file has.
    taken: BTreeSet<u64>,
    /// Slots that must be refused.
    pub refused: BTreeSet<u64>,
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

impl Model {
    fn is_below(path: &[u8], dir: &[u8]) -> bool {
        path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/'
    }

    /// A path to work on, the root among them if there is no other.
    fn pick(&self, number: usize) -> (Vec<u8>, u64, u64) {
        let mut all = vec![(Vec::new(), NO_ENTRY, NO_ENTRY)];
        all.extend(self.paths.iter().map(|(path, (name, object))| (path.clone(), *name, *object)));
        all[number % all.len()].clone()
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        path.is_empty() || self.kind(path) == Some('d')
    }

    fn kind(&self, path: &[u8]) -> Option<char> {
        self.paths.get(path).map(|(_, object)| self.objects[object].kind)
    }

    fn is_empty(&self, path: &[u8]) -> bool {
        !self.paths.keys().any(|other| Self::is_below(other, path))
    }

    /// Number of names of what a slot made.
    fn names_of(&self, object: u64) -> usize {
        self.paths.values().filter(|(_, other)| *other == object).count()
    }

    /// Whether a new name may be there.
    fn is_free(&self, dir: &[u8], name: &[u8]) -> bool {
        let reserved = dir.is_empty() && name == b".famfs";
        self.is_dir(dir) && !reserved && !self.paths.contains_key(&join(dir, name))
    }

    fn add(&mut self, dir: &[u8], name: &[u8], slot: u64, seen: Seen) {
        self.taken.extend(seen.pages.values());
        self.objects.insert(slot, seen);
        self.paths.insert(join(dir, name), (slot, slot));
    }

    fn remove(&mut self, path: &[u8]) {
        let (_, object) = self.paths.remove(path).unwrap();
        if !self.paths.values().any(|(_, other)| *other == object) {
            let seen = self.objects.remove(&object).unwrap();
            self.taken.retain(|page| !seen.pages.values().any(|own| own == page));
        }
    }

    pub fn list(&self) -> Listing {
        let links = |object: u64| self.paths.values().filter(|(_, o)| *o == object).count() as u64;
        let item = |(path, (name, object)): (&Vec<u8>, &(u64, u64))| {
            (path.clone(), (*name, *object, links(*object), self.objects[object].clone()))
        };
        self.paths.iter().map(item).collect()
    }
}

/// The log and the model, which get the same operations.
pub struct Pair {
    pub log: ExtendedLog,
    pub model: Model,
    /// The file entries that hold bytes, and their first pages on the device.
    slabs: [(u64, u64); 2],
    /// Slots of conventional directories and files, and the path in the entry.
    conventional: Vec<(u64, String)>,
}

impl Pair {
    pub fn new() -> Self {
        let mut log = ExtendedLog::new(true);
        log.store();
        let slabs = [".famfs/0", ".famfs/1"].map(|path| {
            let first_page = log.free / PAGE;
            (log.file(path, 1, 0), first_page)
        });
        Self { log, model: Model::default(), slabs, conventional: Vec::new() }
    }

    /// Does it in the log, and in the model if it is legal.
    pub fn run(&mut self, op: Op) {
        let Op { what, of, to, name, number } = op;
        let name = NAMES[name];
        let (path, name_slot, object) = self.model.pick(of);
        let (dir_path, _, dir_slot) = self.model.pick(to);
        let mut slot = self.log.next;
        let plain = |kind| Seen {
            kind,
            size: 0,
            uid: 1000,
            gid: 100,
            mode: 0o750,
            mtime: Some((-5, 999_999_999)),
            target: Vec::new(),
            pages: BTreeMap::new(),
        };
        let free = self.model.is_free(&dir_path, name);
        let legal = match what {
            0..4 => {
                self.log.name(&dir(dir_slot, name));
                if free {
                    self.model.add(&dir_path, name, slot, plain('d'));
                }
                free
            }
            4..8 => {
                let legal = self.file(number, free, &dir_path, dir_slot, name, plain('f'));
                slot = self.log.next - 1;
                legal
            }
            8..10 => {
                let target = if path.is_empty() { b"..".to_vec() } else { path.clone() };
                if number.is_multiple_of(2) || target.len() > 208 {
                    self.log.lists(&target);
                    let len = u32::try_from(target.len()).unwrap();
                    slot = self.log.name(&far(symlink(dir_slot, name, b""), len));
                } else {
                    self.log.name(&symlink(dir_slot, name, &target));
                }
                if free {
                    let size = target.len() as u64;
                    self.model.add(&dir_path, name, slot, Seen { size, target, ..plain('l') });
                }
                free
            }
            10..12 => {
                self.log.push(EntryKind::Link, link(object, dir_slot, name).as_bytes());
                let legal = free && self.model.kind(&path) == Some('f');
                if legal {
                    self.model.paths.insert(join(&dir_path, name), (slot, object));
                }
                legal
            }
            12..14 => {
                let mask = number % 17;
                self.log.push(EntryKind::Attr, attributes(object, mask, number).as_bytes());
                let legal = (1..16).contains(&mask);
                if let Some(seen) = self.model.objects.get_mut(&object).filter(|_| legal) {
                    let set =
                        |bit: u32, new: u32, old: u32| if mask & bit != 0 { new } else { old };
                    seen.mode = set(1, number % 0o10000, seen.mode);
                    seen.uid = set(2, number + 1, seen.uid);
                    seen.gid = set(4, number + 2, seen.gid);
                    if mask & 8 != 0 {
                        seen.mtime = Some((number.into(), number));
                    }
                }
                legal
            }
            14..18 => self.rename(&path, name_slot, &dir_path, dir_slot, name, number),
            20 => {
                let path = format!("k{slot}");
                self.log.mkdir(&path);
                let seen = Seen { uid: 0, gid: 0, mode: 0o755, mtime: None, ..plain('d') };
                self.model.add(b"", path.as_bytes(), slot, seen);
                self.conventional.push((slot, path));
                true
            }
            21..23 => self.conventional_file(of, plain('f')),
            23 => self.delete(of),
            _ => {
                self.log.push(EntryKind::Remove, removal(name_slot).as_bytes());
                let legal = !path.is_empty() && self.model.is_empty(&path);
                if legal {
                    self.model.remove(&path);
                }
                legal
            }
        };
        if !legal {
            self.model.refused.insert(slot);
        }
    }

    /// A conventional file at the top, or in a conventional directory.
    fn conventional_file(&mut self, of: usize, plain: Seen) -> bool {
        let slot = self.log.next;
        let dirs = self.conventional.iter().filter(|(_, path)| path.starts_with('k'));
        let dirs: Vec<_> = dirs.filter(|(_, path)| !path.contains('/')).cloned().collect();
        let dir = dirs.get(of % (dirs.len() + 1));
        let path = dir.map_or(format!("c{slot}"), |(_, dir)| format!("{dir}/c{slot}"));
        let first = self.log.free / PAGE;
        self.log.file(&path, 1, 0);
        // Wherever the directory is now.
        let place = dir.map_or(Some(Vec::new()), |(dir, _)| {
            let found = self.model.paths.iter().find(|(_, (name, _))| name == dir);
            found.map(|(path, _)| path.clone())
        });
        let Some(place) = place else { return false };
        let pages = (0..UNIT_PAGES).map(|n| (n, first + n)).collect();
        let (size, mtime) = (UNIT_PAGES * PAGE, None);
        let seen = Seen { size, mtime, uid: 0, gid: 0, mode: 0o644, pages, ..plain };
        self.model.add(&place, format!("c{slot}").as_bytes(), slot, seen);
        self.conventional.push((slot, path));
        true
    }

    /// A conventional deletion of a file, which may be gone but for its entry.
    fn delete(&mut self, of: usize) -> bool {
        let files = (0..self.conventional.len()).filter(|n| self.conventional[*n].1.contains('c'));
        let files: Vec<_> = files.collect();
        if files.is_empty() {
            self.log.delete(0, ".famfs");
            return false;
        }
        let index = files[of % files.len()];
        let (slot, path) = self.conventional[index].clone();
        self.log.delete(slot, &path);
        let names = self.model.paths.iter().filter(|(_, (_, object))| *object == slot);
        let names: Vec<_> = names.map(|(path, (name, _))| (path.clone(), *name)).collect();
        match &names[..] {
            [] => {}
            [(path, name)] if *name == slot => self.model.remove(path),
            _ => return false,
        }
        self.conventional.remove(index);
        true
    }

    /// A file of up to three pieces with holes between them.
    fn file(
        &mut self,
        number: u32,
        free: bool,
        dir_path: &[u8],
        dir_slot: u64,
        name: &[u8],
        plain: Seen,
    ) -> bool {
        let in_lists = number.is_multiple_of(3);
        let (mut pieces, mut pages) = (Vec::new(), BTreeMap::new());
        let (slab, first_page) = self.slabs[usize::from(number.is_multiple_of(4))];
        let mut number = u64::from(number);
        let mut at = 0;
        while number > 0 && pieces.len() < 3 {
            let (page, len, hole) = (number % UNIT_PAGES, 1 + number % 3, number % 2);
            at += hole;
            pieces.push(Piece { slot: slab, page, at, pages: len });
            for n in 0..len {
                pages.insert(at + n, first_page + page + n);
            }
            at += len;
            number /= 7;
        }
        let size = (at * PAGE).saturating_sub(100);
        let body = file(dir_slot, name, size, &pieces);
        let slot = if in_lists && !pieces.is_empty() {
            let raw: Vec<_> = pieces.iter().map(|piece| piece.to_raw()).collect();
            self.log.lists(raw.as_bytes());
            self.log.name(&listed(body, u32::try_from(raw.len()).unwrap()))
        } else {
            self.log.name(&body)
        };
        let wanted: u64 = pieces.iter().map(|piece| piece.pages).sum();
        let different: BTreeSet<&u64> = pages.values().collect();
        let own = different.len() as u64 == wanted;
        let inside = pieces.iter().all(|piece| piece.page + piece.pages <= UNIT_PAGES);
        let legal =
            free && own && inside && !pages.values().any(|page| self.model.taken.contains(page));
        if legal {
            self.model.add(dir_path, name, slot, Seen { size, pages, ..plain });
        }
        legal
    }

    fn rename(
        &mut self,
        path: &[u8],
        name_slot: u64,
        dir_path: &[u8],
        dir_slot: u64,
        name: &[u8],
        number: u32,
    ) -> bool {
        let new = join(dir_path, name);
        let there = self.model.paths.get(&new).copied();
        // Mostly what is right.
        let replaces = if number.is_multiple_of(8) { None } else { there.map(|(slot, _)| slot) };
        let body = moved(name_slot, dir_slot, name, replaces);
        self.log.push(EntryKind::Move, body.as_bytes());
        let is_dir = self.model.is_dir(path);
        let inside = is_dir && (dir_path == path || Model::is_below(dir_path, path));
        let reserved = dir_path.is_empty() && name == b".famfs";
        let place = there.is_none()
            || replaces.is_some()
                && new != path
                && self.model.is_dir(&new) == is_dir
                && there.is_some_and(|(_, object)| self.model.names_of(object) == 1)
                && self.model.is_empty(&new);
        let legal =
            !path.is_empty() && self.model.is_dir(dir_path) && !inside && !reserved && place;
        if legal {
            if there.is_some() {
                self.model.remove(&new);
            }
            let below = |other: &Vec<u8>| other == path || Model::is_below(other, path);
            let all: Vec<_> =
                self.model.paths.keys().filter(|other| below(other)).cloned().collect();
            for old in all {
                let value = self.model.paths.remove(&old).unwrap();
                self.model.paths.insert([&new, &old[path.len()..]].concat(), value);
            }
        }
        legal
    }
}

/// The tree of a plan as a user sees it.
pub fn listing(plan: &Plan) -> Listing {
    let tree = plan.tree();
    let mut listing = Listing::new();
    tree.walk(NO_ENTRY, |path, listed| {
        let object = listed.object;
        let (kind, size, target, pages) = match &object.kind {
            ObjectKind::Dir { .. } => ('d', 0, Vec::new(), BTreeMap::new()),
            ObjectKind::Symlink { target, .. } => {
                ('l', target.len() as u64, target.to_vec(), BTreeMap::new())
            }
            ObjectKind::File { size, bytes } => {
                let extents = tree.extents(bytes, *size);
                let pages = extents.iter().flat_map(|(at, extent)| {
                    let pages = 0..extent.len / PAGE;
                    pages.map(move |n| (at / PAGE + n, extent.offset / PAGE + n))
                });
                ('f', *size, Vec::new(), pages.collect())
            }
        };
        let famfs::replay::Owner { uid, gid, mode } = object.owner;
        let mtime = object.mtime.map(|Time { sec, nsec }| (sec, nsec));
        let seen = Seen { kind, size, uid, gid, mode, mtime, target, pages };
        let value = (listed.slot, listed.name.object, object.links, seen);
        assert!(listing.insert(path.to_vec(), value).is_none(), "a path twice");
        Ok::<(), ()>(())
    })
    .unwrap();
    listing
}

/// A log of operations, with a group among them.
struct History {
    pair: Pair,
    /// What is to be seen when so many entries are published.
    moments: Vec<Listing>,
    /// Slot of the entry that begins the group.
    group: Option<u64>,
}

impl History {
    fn new(ops: &[Op], group_at: usize, group_len: u64) -> Self {
        let mut pair = Pair::new();
        let mut moments = vec![Listing::new(); 4];
        let mut head = None;
        for (index, op) in ops.iter().enumerate() {
            if index == group_at && group_at as u64 + group_len <= ops.len() as u64 {
                head = Some(pair.log.push(EntryKind::Group, group(group_len).as_bytes()));
                moments.push(pair.model.list());
            }
            let before = pair.model.list();
            pair.run(*op);
            // Lists before a name change nothing.
            moments.resize(usize::try_from(pair.log.next).unwrap(), before);
            moments.push(pair.model.list());
        }
        Self { pair, moments, group: head }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_cut_is_the_tree_of_its_moment(
        ops in prop::collection::vec(op(), 1..80),
        group_at in 0_usize..80,
        group_len in 1_u64..12,
    ) {
        let History { pair, moments, group: head } = History::new(&ops, group_at, group_len);
        let mut follower: Option<Plan> = None;
        let mount = mounted::Mount::new();
        let mut player = None;
        for cut in 3..=pair.log.next {
            pair.log.cut(cut);
            let contents = pair.log.contents();
            let plan = &contents.plan;
            let in_group = head.filter(|head| (head + 1..=head + group_len).contains(&cut));
            prop_assert_eq!(plan.stopped.is_some(), in_group.is_some());
            let seen = in_group.unwrap_or(cut);
            let expected = &moments[usize::try_from(seen).unwrap()];
            prop_assert_eq!(&listing(plan), expected);
            let refused: BTreeSet<u64> = plan.refused.iter().map(|error| error.slot).collect();
            let expected: BTreeSet<u64> = pair.model.refused.range(..seen).copied().collect();
            prop_assert_eq!(refused, expected);
            // A mount follows, and so does a new one.
            let player = player.get_or_insert_with(|| mounted::player(&contents));
            mount.play(player, &contents, Task::default()).unwrap();
            mounted::follows(&mount, plan);
            if cut == pair.log.next {
                let late = mounted::Mount::new();
                late.play_all(&contents, Task::default());
                mounted::follows(&late, plan);
            }
            // One that reads on entry by entry ends equal.
            let plan = match follower.take() {
                None => contents.plan,
                Some(mut follower) => {
                    follower.read_on(&contents.log, contents.superblock.data_area(DEVICE_LEN));
                    prop_assert_eq!(listing(&follower), listing(plan));
                    follower
                }
            };
            follower = Some(plan);
        }
    }

    /// A player is killed when it has carried out entries that the note of the mount does not have
    /// yet. The next one makes up for it, and reads on.
    #[test]
    fn what_a_killed_player_left_becomes_the_tree(
        ops in prop::collection::vec(op(), 1..80),
        group_at in 0_usize..80,
        group_len in 1_u64..12,
        noted in 0_usize..80,
        played in 0_u64..20,
        more in 0_u64..20,
    ) {
        let History { pair, group, .. } = History::new(&ops, group_at, group_len);
        let end = pair.log.next;
        let noted = 3 + noted as u64 % (end - 2);
        let mount = mounted::Mount::new();
        pair.log.cut(noted);
        mount.play_all(&pair.log.contents(), Task::default());
        let note = mount.note();
        let played = end.min(noted + played);
        pair.log.cut(played);
        mount.play_all(&pair.log.contents(), Task::default());
        Note { complete: false, ..note }.write(mount.root()).unwrap();
        // Where a group is open, the mount is not complete.
        let more = end.min(played + more);
        let in_group = group.is_some_and(|head| (head + 1..=head + group_len).contains(&more));
        pair.log.cut(if in_group { end } else { more });
        let contents = pair.log.contents();
        mount.play_all(&contents, Task::default());
        mounted::follows(&mount, &contents.plan);
    }
}
