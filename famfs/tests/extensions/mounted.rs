// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A plain directory in memory that stands for a mounted famfs, and logs that are played in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use famfs::format::EntryKind;
use famfs::format::extension::NO_ENTRY;
use famfs::format::map::Memory;
use famfs::format::path::RelPath;
use famfs::kernel::apply::{Appeared, Applied, ApplyError};
use famfs::kernel::beneath::Root;
use famfs::kernel::note::Note;
use famfs::kernel::player::{Player, PlayerError, Site, Task};
use famfs::kernel::target::{Backed, Backing, Target};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Contents, Owner, Plan};
use tempfile::TempDir;
use zerocopy::IntoBytes;

use crate::log::{
    DEVICE_LEN, ExtendedLog, attributes, dir, file, group, link, moved, removal, symlink as link_to,
};
use crate::sample::{ROOT, piece, prepared};

/// What the files were given.
#[derive(Default)]
pub struct Given {
    by_inode: RefCell<HashMap<u64, (u64, Memory)>>,
}

/// Whether this process may give files to others.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Backing for Given {
    fn give(&self, file: BorrowedFd<'_>, size: u64, memory: &Memory) -> io::Result<()> {
        rustix::fs::ftruncate(file, size)?;
        let inode = rustix::fs::fstat(file)?.st_ino;
        self.by_inode.borrow_mut().insert(inode, (size, memory.clone()));
        Ok(())
    }

    fn compare(&self, file: BorrowedFd<'_>, size: u64, memory: &Memory) -> io::Result<Backed> {
        let inode = rustix::fs::fstat(file)?.st_ino;
        Ok(match self.by_inode.borrow().get(&inode) {
            None => Backed::Without,
            Some((found, given)) if (*found, given) == (size, memory) => Backed::Same,
            Some(_) => Backed::Other,
        })
    }

    fn owner(&self, owner: Owner) -> Owner {
        if is_root() {
            return owner;
        }
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { uid, gid, mode: owner.mode | 0o700 }
    }
}

/// What is seen at a path: kind, size, owner, time, target, and the first path of the same file.
#[derive(Debug, PartialEq)]
pub struct Seen {
    kind: char,
    size: u64,
    owner: Owner,
    mtime: Option<(i64, i64)>,
    target: Vec<u8>,
    first: Vec<u8>,
}

/// Something seen at each path.
pub type Listing = BTreeMap<Vec<u8>, Seen>;

/// A directory that stands for a mount.
pub struct Mount {
    dir: TempDir,
    root: Root,
    pub given: Given,
}

impl Mount {
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(if shm.is_dir() { shm } else { Path::new("/tmp") }).unwrap();
        fs::create_dir(dir.path().join(".meta")).unwrap();
        let root = Root::new(File::open(dir.path()).unwrap().into());
        Self { dir, root, given: Given::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn note(&self) -> Note {
        Note::read(&self.root).unwrap().unwrap()
    }

    /// Has a player play a log here; the paths that appeared.
    pub fn play(
        &self,
        player: &mut Player,
        contents: &Contents<'_>,
        task: Task,
    ) -> Result<(Applied, Vec<String>), PlayerError> {
        let mut appeared = Vec::new();
        let each = &mut |new: Appeared<'_>| appeared.push(new.path.to_string());
        let applied = self.play_each(player, contents, task, each)?;
        Ok((applied, appeared))
    }

    /// The same; `each` gets what appears.
    pub fn play_each(
        &self,
        player: &mut Player,
        contents: &Contents<'_>,
        task: Task,
        each: &mut dyn FnMut(Appeared<'_>),
    ) -> Result<Applied, PlayerError> {
        let has_no_writer = || true;
        let target = Target::new(&self.root, &self.given);
        let site = Site { target, is_ours: true, has_no_writer: &has_no_writer };
        let area = contents.superblock.data_area(DEVICE_LEN);
        player.play(&site, &contents.log, area, task, each)
    }

    /// The same with a player that has read nothing.
    pub fn play_all(&self, contents: &Contents<'_>, task: Task) -> Applied {
        self.play(&mut player(contents), contents, task).unwrap().0
    }

    /// All that is there.
    pub fn list(&self, plan: &Plan) -> Listing {
        let (mut listing, mut firsts) = (Listing::new(), HashMap::new());
        let mut left = vec![PathBuf::new()];
        let mut all = Vec::new();
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(self.dir.path().join(&dir)).unwrap() {
                let path = dir.join(entry.unwrap().file_name());
                if path == Path::new(".meta") {
                    continue;
                }
                let metadata = self.dir.path().join(&path).symlink_metadata().unwrap();
                if metadata.is_dir() {
                    left.push(path.clone());
                }
                all.push((path.as_os_str().as_bytes().to_vec(), path, metadata));
            }
        }
        all.sort_by(|one, other| one.0.cmp(&other.0));
        for (bytes, path, metadata) in all {
            let (kind, target) = if metadata.is_dir() {
                ('d', Vec::new())
            } else if metadata.is_symlink() {
                let target = fs::read_link(self.dir.path().join(&path)).unwrap();
                ('l', target.as_os_str().as_bytes().to_vec())
            } else {
                let open = File::open(self.dir.path().join(&path)).unwrap();
                self.check_memory(plan, &bytes, &open);
                ('f', Vec::new())
            };
            let mode = if kind == 'l' { 0 } else { metadata.mode() & 0o7777 };
            let owner = Owner { uid: metadata.uid(), gid: metadata.gid(), mode };
            let size = if kind == 'd' { 0 } else { metadata.size() };
            let has_time = plan.tree().get(&RelPath::new(&bytes).unwrap());
            let has_time = has_time.is_some_and(|listed| listed.object.mtime.is_some());
            let mtime = has_time.then(|| (metadata.mtime(), metadata.mtime_nsec()));
            let first = firsts.entry(metadata.ino()).or_insert_with(|| bytes.clone()).clone();
            listing.insert(bytes, Seen { kind, size, owner, mtime, target, first });
        }
        listing
    }

    fn check_memory(&self, plan: &Plan, path: &[u8], file: &File) {
        let Some(listed) = plan.tree().get(&RelPath::new(path).unwrap()) else { return };
        let ObjectKind::File { size, bytes } = &listed.object.kind else { return };
        let memory = plan.tree().memory(bytes, *size);
        assert_eq!(self.given.compare(file.as_fd(), *size, &memory).unwrap(), Backed::Same);
    }
}

pub fn player(contents: &Contents<'_>) -> Player {
    let area = contents.superblock.data_area(DEVICE_LEN);
    Player::new(area, contents.plan.has_extensions())
}

/// What is to be seen of a plan.
pub fn expected(plan: &Plan) -> Listing {
    let (mut listing, mut firsts) = (Listing::new(), HashMap::new());
    plan.tree()
        .walk(NO_ENTRY, |path, listed| {
            let object = listed.object;
            let (kind, size, target) = match &object.kind {
                ObjectKind::Dir { .. } => ('d', 0, Vec::new()),
                ObjectKind::File { size, .. } => ('f', *size, Vec::new()),
                ObjectKind::Symlink { target, .. } => ('l', target.len() as u64, target.to_vec()),
            };
            let mut owner = Given::default().owner(object.owner);
            owner.mode = if kind == 'l' { 0 } else { owner.mode };
            let mtime = object.mtime.map(|time| (time.sec, time.nsec.into()));
            listing.insert(
                path.to_vec(),
                Seen { kind, size, owner, mtime, target, first: path.to_vec() },
            );
            let all: &mut Vec<Vec<u8>> = firsts.entry(listed.name.object).or_default();
            all.push(path.to_vec());
            Ok::<(), ()>(())
        })
        .unwrap();
    for mut all in firsts.into_values() {
        all.sort();
        for path in &all {
            listing.get_mut(path).unwrap().first.clone_from(&all[0]);
        }
    }
    listing
}

/// The mount shows the plan, and has noted how far it is played.
pub fn follows(mount: &Mount, plan: &Plan) {
    assert_eq!(mount.list(plan), expected(plan));
    let Note { next, checksum, complete, .. } = mount.note();
    assert_eq!((next, checksum, complete), (plan.next_slot(), plan.last_checksum(), true));
}

fn errors(applied: &Applied) -> Vec<String> {
    applied.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_fresh_mount_shows_the_tree() {
    let mut all = prepared();
    all.log.push(EntryKind::Link, link(all.file, ROOT, b"again").as_bytes());
    all.log.name(&file(all.inner, b"empty", 0, &[]));
    all.log.name(&file(ROOT, b"hole", 1 << 40, &[piece(all.store, 9, 7, 1)]));
    all.log.push(EntryKind::Attr, attributes(all.inner, 15, 0o2711).as_bytes());
    all.log.push(EntryKind::Attr, attributes(ROOT, 8, 77).as_bytes());
    let contents = all.log.contents();
    let mount = Mount::new();
    let would = mount.play_all(&contents, Task { dry_run: true, ..Task::default() });
    assert_eq!((would.made(), fs::read_dir(mount.path(".meta")).unwrap().count()), (8, 0));
    let applied = mount.play_all(&contents, Task::default());
    let made = (applied.files, applied.directories, applied.symlinks, applied.links);
    assert_eq!((made, errors(&applied)), ((4, 2, 1, 1), vec![]));
    follows(&mount, &contents.plan);
    let root = mount.path("").metadata().unwrap();
    assert_eq!((root.mtime(), root.mtime_nsec()), (77, 77));
    let again = mount.play_all(&contents, Task { whole: true, ..Task::default() });
    assert_eq!((again.made(), again.existed, again.errors.len()), (0, 8, 0));
    follows(&mount, &contents.plan);
}

#[test]
fn only_what_is_new_is_played() {
    let mut all = prepared();
    let mount = Mount::new();
    mount.play_all(&all.log.contents(), Task::default());
    // Nobody looks at what was played.
    fs::remove_file(mount.path("plain")).unwrap();
    let new = all.log.name(&link_to(all.dir, b"new", b"x"));
    all.log.push(EntryKind::Move, moved(all.link, all.dir, b"l", None).as_bytes());
    let contents = all.log.contents();
    let mut watch = player(&contents);
    let (applied, appeared) = mount.play(&mut watch, &contents, Task::default()).unwrap();
    assert_eq!((appeared, applied.moved, applied.existed), (vec!["dir/new".to_owned()], 1, 0));
    assert!(!mount.path("plain").exists() && mount.note().next == new + 2);
    // `famfs logplay` does.
    let applied = mount.play_all(&contents, Task { whole: true, ..Task::default() });
    assert_eq!((applied.made(), applied.errors.len()), (1, 0));
    follows(&mount, &contents.plan);
}

#[test]
fn a_player_that_was_killed_is_made_up_for() {
    let mut all = prepared();
    let mount = Mount::new();
    mount.play_all(&all.log.contents(), Task::default());
    all.log.push(EntryKind::Move, moved(all.inner, ROOT, b"inner", None).as_bytes());
    all.log.push(EntryKind::Move, moved(all.link, ROOT, b"l", None).as_bytes());
    let other = all.log.name(&dir(all.dir, b"inner"));
    all.log.name(&file(other, b"file", 5000, &[piece(all.store, 14, 0, 2)]));
    // Some of it is done, some not, and something waits.
    fs::rename(mount.path("dir/inner"), mount.path("inner")).unwrap();
    fs::create_dir(mount.path("dir/inner")).unwrap();
    fs::write(mount.path("dir/inner/file"), "").unwrap();
    fs::create_dir_all(mount.path(".meta/.group/7/a")).unwrap();
    fs::create_dir_all(mount.path("never/made")).unwrap();
    Note { complete: false, ..mount.note() }.write(&mount.root).unwrap();
    let contents = all.log.contents();
    let applied = mount.play_all(&contents, Task::default());
    assert_eq!(errors(&applied), [""; 0]);
    follows(&mount, &contents.plan);
    assert!(!mount.path(".meta/.group").exists());
}

/// A directory with the set-group-ID bit gives its group and the bit to new directories.
#[test]
fn new_names_have_their_own_group_in_a_directory_that_gives_one() {
    let mut all = prepared();
    let mount = Mount::new();
    let contents = all.log.contents();
    let mut watch = player(&contents);
    mount.play(&mut watch, &contents, Task::default()).unwrap();
    for parent in [ROOT, all.dir] {
        all.log.name(&dir(parent, b"before"));
        let (mode_and_group, setgid) = (5, 0o2770);
        let given = attributes(parent, mode_and_group, setgid);
        all.log.push(EntryKind::Attr, given.as_bytes());
        all.log.name(&dir(parent, b"after"));
    }
    let contents = all.log.contents();
    mount.play(&mut watch, &contents, Task::default()).unwrap();
    follows(&mount, &contents.plan);
}

#[test]
fn what_is_in_the_way_keeps_nothing_back() {
    let mut all = prepared();
    let mount = Mount::new();
    fs::create_dir(mount.path("link")).unwrap();
    symlink("/etc", mount.path("dir")).unwrap();
    let contents = all.log.contents();
    let mut watch = player(&contents);
    let (applied, _) = mount.play(&mut watch, &contents, Task::default()).unwrap();
    assert_eq!(
        errors(&applied),
        [
            "\"dir\" of log slot 4 is in the way: found a symbolic link to \"/etc\", expected a \
             directory",
            "\"link\" of log slot 7 is in the way: found a directory, expected a symbolic link to \
             \"dir\"",
        ]
    );
    assert!(mount.path("plain").exists() && watch.has_failed() && !mount.note().complete);
    assert!(!Path::new("/etc/inner").exists());
    // It is tried again, also for what is new since.
    fs::remove_file(mount.path("dir")).unwrap();
    all.log.name(&file(all.inner, b"more", 0, &[]));
    let contents = all.log.contents();
    let (applied, _) = mount.play(&mut watch, &contents, Task::default()).unwrap();
    assert!(matches!(&applied.errors[..], [ApplyError::InTheWay { slot: 7, .. }]));
    fs::remove_dir(mount.path("link")).unwrap();
    mount.play(&mut watch, &contents, Task::default()).unwrap();
    assert!(!watch.has_failed());
    follows(&mount, &contents.plan);
}

#[test]
fn another_log_is_refused() {
    let mut all = prepared();
    let mount = Mount::new();
    mount.play_all(&all.log.contents(), Task::default());
    let next = all.log.next;
    all.log.cut(next - 1);
    let contents = all.log.contents();
    let refused = mount.play(&mut player(&contents), &contents, Task::default()).unwrap_err();
    assert!(matches!(refused, PlayerError::Rewritten { .. }), "{refused}");
    all.log.name(&dir(ROOT, b"another"));
    let contents = all.log.contents();
    let refused = mount.play(&mut player(&contents), &contents, Task::default()).unwrap_err();
    assert!(matches!(refused, PlayerError::Replaced { .. }), "{refused}");
    assert!(mount.path("link").is_symlink() && !mount.path("another").exists());
}

#[test]
fn a_group_appears_as_a_whole() {
    let mut all = prepared();
    let mount = Mount::new();
    let contents = all.log.contents();
    let mut watch = player(&contents);
    mount.play(&mut watch, &contents, Task::default()).unwrap();
    all.log.push(EntryKind::Group, group(5).as_bytes());
    let top = all.log.name(&dir(all.dir, b"top"));
    let below = all.log.name(&file(top, b"f", 5000, &[piece(all.store, 20, 0, 2)]));
    all.log.push(EntryKind::Link, link(below, top, b"g").as_bytes());
    all.log.push(EntryKind::Attr, attributes(top, 15, 0o1755).as_bytes());
    all.log.name(&link_to(ROOT, b"beside", b"dir/top"));
    let contents = all.log.contents();
    // Each name is made where no reader looks.
    let seen = RefCell::new(Vec::new());
    let applied = mount
        .play_each(&mut watch, &contents, Task::default(), &mut |new| {
            let there = ["dir/top", "beside"]
                .map(|name| mount.path(name).is_symlink() || mount.path(name).exists());
            seen.borrow_mut().push((new.path.to_string(), there));
        })
        .unwrap();
    assert_eq!(errors(&applied), [""; 0]);
    let names = ["dir/top", "dir/top/f", "dir/top/g", "beside"];
    let nothing = names.map(|name| (name.to_owned(), [false, false]));
    assert_eq!(seen.into_inner(), nothing);
    follows(&mount, &contents.plan);
    assert_eq!(fs::read_dir(mount.path(".meta/.group")).unwrap().count(), 0);
    // A move or a removal in a group is in order too.
    all.log.push(EntryKind::Group, group(4).as_bytes());
    let one = all.log.name(&dir(ROOT, b"one"));
    all.log.push(EntryKind::Move, moved(one, all.dir, b"two", None).as_bytes());
    let three = all.log.name(&file(one, b"three", 0, &[]));
    all.log.push(EntryKind::Remove, removal(three).as_bytes());
    let contents = all.log.contents();
    let (applied, _) = mount.play(&mut watch, &contents, Task::default()).unwrap();
    assert_eq!(errors(&applied), [""; 0]);
    follows(&mount, &contents.plan);
}

#[test]
fn a_move_in_place_of_another_name_of_the_same_file() {
    let mut all = prepared();
    let mount = Mount::new();
    let again = all.log.push(EntryKind::Link, link(all.file, ROOT, b"again").as_bytes());
    mount.play_all(&all.log.contents(), Task::default());
    all.log.push(EntryKind::Move, moved(all.file, ROOT, b"again", Some(again)).as_bytes());
    let contents = all.log.contents();
    let applied = mount.play_all(&contents, Task::default());
    assert_eq!(errors(&applied), [""; 0]);
    follows(&mount, &contents.plan);
}

#[test]
fn links_that_lead_out_are_left_out_for_good() {
    let mut all = prepared();
    let mount = Mount::new();
    all.log.name(&link_to(ROOT, b"out", b"/etc/passwd"));
    all.log.name(&link_to(all.inner, b"up", b"../../plain"));
    let task = Task { safe_links: true, ..Task::default() };
    let applied = mount.play_all(&all.log.contents(), task);
    assert_eq!(applied.unsafe_links.iter().map(ToString::to_string).collect::<Vec<_>>(), ["out"]);
    assert!(mount.path("dir/inner/up").is_symlink() && !mount.path("out").is_symlink());
    // Every later player knows, and what moves is looked at again.
    all.log.name(&link_to(ROOT, b"out2", b".."));
    all.log.push(EntryKind::Move, moved(all.inner, ROOT, b"inner", None).as_bytes());
    mount.play_all(&all.log.contents(), Task::default());
    assert!(!mount.path("out2").is_symlink() && !mount.path("inner/up").is_symlink());
    all.log.push(EntryKind::Move, moved(all.inner, all.dir, b"inner", None).as_bytes());
    let applied = mount.play_all(&all.log.contents(), Task::default());
    assert_eq!(errors(&applied), [""; 0]);
    assert!(mount.path("dir/inner/up").is_symlink() && mount.note().complete);
}

/// A path of 4,095 bytes has more directories than a process may keep open.
#[test]
fn deep_trees_appear() {
    let mut log = ExtendedLog::new(true);
    let mut parent = ROOT;
    for _ in 0..2047 {
        parent = log.name(&dir(parent, b"d"));
    }
    log.name(&link_to(parent, b"l", b"x"));
    let contents = log.contents();
    assert!(contents.plan.refused.is_empty());
    let mount = Mount::new();
    let applied = mount.play_all(&contents, Task::default());
    assert_eq!((applied.made(), errors(&applied)), (2048, vec![]));
    let applied = mount.play_all(&contents, Task { whole: true, ..Task::default() });
    assert_eq!((applied.existed, errors(&applied)), (2048, vec![]));
}
