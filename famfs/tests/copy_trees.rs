// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trees as people have them go into a file system with extensions as they are.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/formatting.rs"]
mod formatting;
#[path = "common/pool_tree.rs"]
mod pool_tree;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use famfs::format::extension::PAGE;
use famfs::format::path::RelPath;
use famfs::media::in_memory::InMemory;
use famfs::replay::Contents;
use famfs::store::mkfs::mkfs;
use famfs::write::compare::compare;
use famfs::write::copy::{Copy, CopyError, Done};
use famfs::write::sources::{Destination, Options, SourceError, scan};
use famfs::write::transfer::How;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::Writer;
use pool_tree::manifest;
use trees::{Kind, Rules, Tree};

const ALL: Options = Options {
    recursive: true,
    dereference: false,
    conventional: false,
    skip_unsupported: false,
    mode: None,
    uid: None,
    gid: None,
};

type Pool = OfflineVolume<InMemory>;

fn pool(len: u64) -> Pool {
    let media = InMemory::new(len);
    mkfs(&media, &formatting::options(true)).unwrap();
    OfflineVolume::new(media)
}

fn path(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn copy_with(
    pool: &Pool,
    sources: &[&Path],
    destination: &Destination,
    options: &Options,
    atomic: bool,
) -> Result<Done, CopyError> {
    let sources: Vec<PathBuf> = sources.iter().map(|path| path.to_path_buf()).collect();
    let scan = scan(&sources, destination, options)?;
    let mut writer = Writer::open(pool, None).unwrap();
    if atomic {
        writer.atomic().unwrap();
    }
    Copy::prepare(scan, &mut writer)?.run(pool, &mut writer, &How::default(), |_| true)
}

/// Copies the contents of a directory into the root.
fn copy(pool: &Pool, source: &Path) -> Result<Done, CopyError> {
    copy_with(pool, &[&source.join(".")], &Destination::Into(None), &ALL, false)
}

/// What differs between a directory and the root, as `cp --compare` tells.
fn differences(pool: &Pool, source: &Path) -> Vec<String> {
    let found = scan(&[source.join(".")], &Destination::Into(None), &ALL).unwrap();
    let plan = Contents::read(pool.media()).unwrap().plan;
    let compared = compare(&found, &plan, pool, |_| true).unwrap();
    let text = |d: &famfs::write::compare::Difference| format!("{} {}", d.path, d.reason);
    compared.differences.iter().map(text).collect()
}

#[test]
fn every_tree_goes_in_as_it_is() {
    for (name, _) in trees::TREES {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join(name);
        trees::plant(name, &source).unwrap();
        let pool = pool(256 << 20);
        let done = copy(&pool, &source).unwrap();
        let mut expected = Tree::read(&source).unwrap();
        // Only files have several names in a famfs.
        let links = expected.entries.values_mut();
        for link in links.filter(|entry| matches!(entry.kind, Kind::Symlink(_))) {
            link.same_as = None;
        }
        let mut found = manifest(&pool);
        found.entries.insert(Vec::new(), expected.entries[&Vec::new()].clone());
        let rules = Rules { any_root: true, ..Rules::default() };
        trees::compare(&expected, &found, rules).none().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(differences(&pool, &source), Vec::<String>::new(), "{name}");
        // The same again finds everything.
        let again = copy(&pool, &source).unwrap();
        let unchanged = Done { unchanged: done.files, ..Done::default() };
        assert_eq!(again, unchanged, "{name}");
        trees::remove_all(&source).unwrap();
    }
}

#[test]
fn many_small_files_take_their_pages() {
    let source = tempfile::tempdir_in("/dev/shm").unwrap();
    let bytes = trees::plant_many(source.path(), 3000).unwrap();
    let pool = pool(64 << 20);
    for how in [How { threads: 1, verify: true }, How::default()] {
        let found = scan(&[source.path().join(".")], &Destination::Into(None), &ALL).unwrap();
        let mut writer = Writer::open(&pool, None).unwrap();
        Copy::prepare(found, &mut writer).unwrap().run(&pool, &mut writer, &how, |_| true).unwrap();
    }
    assert_eq!(differences(&pool, source.path()), Vec::<String>::new());
    let used = Contents::read(pool.media()).unwrap().plan.space.used();
    assert!(used <= (3000 * PAGE).next_multiple_of(2 << 20) + (4 << 20), "{used} for {bytes}");
    manifest(&pool);
}

#[test]
fn an_existing_tree_gets_modes_owners_and_times() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/public"), "1234").unwrap();
    fs::write(at("d/same"), "same").unwrap();
    symlink("same", at("d/link")).unwrap();
    let chmod = |name: &str, mode| {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod("d/public", 0o644);
    let pool = pool(64 << 20);
    copy(&pool, source.path()).unwrap();
    fs::write(at("d/public"), "abcd").unwrap();
    chmod("d/public", 0o600);
    chmod("d/same", 0o755);
    chmod("d", 0o700);
    assert_eq!(differences(&pool, source.path()).len(), 3);
    let done = copy(&pool, source.path()).unwrap();
    assert_eq!((done.overwritten, done.unchanged, done.attributes), (1, 1, 3));
    assert_eq!(differences(&pool, source.path()), Vec::<String>::new());
    // While the bytes were replaced, nobody else could read the file.
    let log = Contents::read(pool.media()).unwrap();
    let plan = &log.plan;
    let found = plan.tree().get(&path("d/public")).unwrap().object.owner;
    assert_eq!(found.mode, 0o600);
    // Other owners, of the link too; the directory that is copied into stays as it is.
    let options = Options { uid: Some(77), ..ALL };
    let into = Destination::Into(Some(path("d")));
    let done = copy_with(&pool, &[&at("d/.")], &into, &options, false).unwrap();
    assert_eq!((done.unchanged, done.attributes), (2, 3));
    let plan = Contents::read(pool.media()).unwrap().plan;
    let uid = |name: &str| plan.tree().get(&path(name)).unwrap().object.owner.uid;
    assert_eq!([uid("d/link"), uid("d/same")], [77, 77]);
    assert_ne!(uid("d"), 77);
}

#[test]
fn what_stands_in_the_way_is_named_before_anything_is_written() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("a"), "a").unwrap();
    fs::write(one.path().join("b"), "a").unwrap();
    symlink("x", one.path().join("l")).unwrap();
    fs::create_dir(one.path().join("dir")).unwrap();
    symlink("dir", one.path().join("to-dir")).unwrap();
    fs::write(two.path().join("a"), "a").unwrap();
    fs::hard_link(two.path().join("a"), two.path().join("b")).unwrap();
    symlink("y", two.path().join("l")).unwrap();
    fs::write(two.path().join("dir"), "").unwrap();
    fs::create_dir(two.path().join("to-dir")).unwrap();
    fs::write(two.path().join("to-dir/new"), "").unwrap();
    let pool = pool(64 << 20);
    copy(&pool, one.path()).unwrap();
    let before = Contents::read(pool.media()).unwrap().log.published();
    let CopyError::Taken(items) = copy(&pool, two.path()).unwrap_err() else { panic!() };
    let reasons: Vec<&str> = items.iter().map(|item| &*item.reason).collect();
    let expected = [
        "\"b\" exists and is not another name of \"a\"",
        "\"dir\" is a directory",
        "\"l\" is a symbolic link to \"x\", not to \"y\"",
        "\"to-dir\" is a symbolic link, not a directory",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(Contents::read(pool.media()).unwrap().log.published(), before);
    // Two names of one file there, two files here: one would overwrite the other.
    let pool = linked_pool(&two.path().join("a"), &two.path().join("b"));
    let error = copy(&pool, one.path()).unwrap_err().to_string();
    assert!(error.contains("another name of a file that another source replaces"), "{error}");
}

/// A pool with two names of one file.
fn linked_pool(a: &Path, b: &Path) -> Pool {
    let pool = pool(64 << 20);
    let sources = [a, b];
    let done = copy_with(&pool, &sources, &Destination::Into(None), &ALL, false).unwrap();
    assert_eq!((done.files, done.hard_links), (1, 1));
    pool
}

#[test]
fn holes_are_kept_filled_and_refused() {
    let source = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = fs::File::create(source.path().join("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"far", 1 << 39).unwrap();
    let time = filetime(&file);
    let pool = pool(32 << 20);
    copy(&pool, source.path()).unwrap();
    // Other bytes where there is memory are replaced.
    file.write_all_at(b"START", 0).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(copy(&pool, source.path()).unwrap().overwritten, 1);
    // Data in a hole is not.
    file.write_all_at(b"more", 1 << 30).unwrap();
    let error = copy(&pool, source.path()).unwrap_err().to_string();
    assert!(error.starts_with("\"sparse\" exists and has a hole where "), "{error}");
}

fn filetime(file: &fs::File) -> std::time::SystemTime {
    file.metadata().unwrap().modified().unwrap()
}

#[test]
fn links_are_followed_if_asked_for() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("tree/sub")).unwrap();
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other/file"), "text").unwrap();
    symlink("../other", at("tree/link")).unwrap();
    symlink("../other/file", at("tree/file")).unwrap();
    let options = Options { dereference: true, ..ALL };
    let into = Destination::Into(None);
    let pool = pool(32 << 20);
    let done = copy_with(&pool, &[&at("tree")], &into, &options, false).unwrap();
    assert_eq!((done.files, done.directories, done.symlinks), (2, 3, 0));
    symlink("..", at("tree/sub/up")).unwrap();
    let error = copy_with(&pool, &[&at("tree")], &into, &options, false).unwrap_err();
    assert!(matches!(error, CopyError::Source(SourceError::Loop { .. })), "{error}");
    assert!(error.to_string().contains("sub/up is a symbolic link that leads back to"), "{error}");
    fs::remove_file(at("tree/sub/up")).unwrap();
    symlink("self", at("tree/self")).unwrap();
    let error = copy_with(&pool, &[&at("tree")], &into, &options, false).unwrap_err();
    assert!(error.to_string().contains("tree/self: dangling symbolic link"), "{error}");
    symlink("missing", at("tree/missing")).unwrap();
    let options = Options { skip_unsupported: true, ..options };
    let found = scan(&[at("tree"), at("tree/missing")], &into, &options).unwrap();
    assert_eq!(found.unsupported.len(), 3, "{:?}", found.unsupported);
    copy_with(&pool, &[&at("tree")], &into, &options, false).unwrap();
}

/// What is no file, directory or link is refused by name.
#[test]
fn pipes_and_sockets_are_refused_by_name() {
    let source = tempfile::tempdir().unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let pipe = source.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.path().join("socket")).unwrap();
    fs::write(source.path().join("empty"), "").unwrap();
    let pool = pool(32 << 20);
    let error = copy(&pool, source.path()).unwrap_err().to_string();
    assert!(error.starts_with("2 of the sources cannot be copied (1 named pipe, 1 socket)"));
    assert!(error.ends_with("use --skip-unsupported to copy the rest"), "{error}");
    let options = Options { skip_unsupported: true, ..ALL };
    let all = source.path().join(".");
    let done = copy_with(&pool, &[&all], &Destination::Into(None), &options, false).unwrap();
    assert_eq!(done.files, 1);
    // Without extensions, the empty file is refused too, and a way out is named.
    let options = Options { conventional: true, ..ALL };
    let error = scan(&[all], &Destination::Into(None), &options).unwrap_err().to_string();
    assert!(error.contains("famfs upgrade"), "{error}");
}

#[test]
fn a_directory_that_changes_is_no_success() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "1234").unwrap();
    fs::write(source.path().join("empty"), "").unwrap();
    for change in ["file", "empty"] {
        let pool = pool(32 << 20);
        let found = scan(&[source.path().join(".")], &Destination::Into(None), &ALL).unwrap();
        let mut writer = Writer::open(&pool, None).unwrap();
        let copy = Copy::prepare(found, &mut writer).unwrap();
        fs::write(source.path().join(change), "longer").unwrap();
        let error = copy.run(&pool, &mut writer, &How::default(), |_| true).unwrap_err();
        assert!(error.to_string().contains("changed while it was copied"), "{error}");
    }
    let pool = pool(32 << 20);
    let found = scan(&[source.path().join(".")], &Destination::Into(None), &ALL).unwrap();
    let mut writer = Writer::open(&pool, None).unwrap();
    let copy = Copy::prepare(found, &mut writer).unwrap();
    fs::remove_file(source.path().join("file")).unwrap();
    let error = copy.run(&pool, &mut writer, &How::default(), |_| true).unwrap_err();
    assert!(error.to_string().contains("examined, but vanished"), "{error}");
}

/// A group is all or nothing, also after an error or an interruption.
#[test]
fn an_atomic_copy_publishes_all_or_nothing() {
    let source = tempfile::tempdir().unwrap();
    trees::plant("links", &source.path().join("tree")).unwrap();
    let pool = pool(64 << 20);
    let into = Destination::Into(None);
    let tree = source.path().join("tree");
    let count = scan(std::slice::from_ref(&tree), &into, &ALL).unwrap().sizes().count();
    for stop in 0..2 {
        let found = scan(std::slice::from_ref(&tree), &into, &ALL).unwrap();
        let mut writer = Writer::open(&pool, None).unwrap();
        writer.atomic().unwrap();
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let copy = Copy::prepare(found, &mut writer).unwrap();
        let error = copy
            .run(&pool, &mut writer, &How::default(), |_| {
                calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < stop
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "interrupted; nothing was written");
        drop(writer);
        assert_eq!(Contents::read(pool.media()).unwrap().log.published(), 0);
    }
    let done = copy_with(&pool, &[&tree], &into, &ALL, true).unwrap();
    let made = done.files + done.directories + done.symlinks + done.hard_links;
    assert_eq!(made, count as u64);
    let published = Contents::read(pool.media()).unwrap().log.published();
    // What is the same may stay; what differs may not.
    copy_with(&pool, &[&tree], &into, &ALL, true).unwrap();
    assert_eq!(Contents::read(pool.media()).unwrap().log.published(), published);
    let options = Options { skip_unsupported: true, ..ALL };
    let file = walk_first_file(&tree);
    let len = file.metadata().unwrap().len();
    fs::write(&file, vec![b'!'; usize::try_from(len).unwrap()]).unwrap();
    fs::write(tree.join("new"), "new").unwrap();
    let error = copy_with(&pool, &[&tree], &into, &options, true).unwrap_err().to_string();
    assert!(error.contains("so the copy cannot appear at once; nothing was written"), "{error}");
    assert_eq!(Contents::read(pool.media()).unwrap().log.published(), published);
}

/// A file with bytes in a directory.
fn walk_first_file(dir: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    let is_file = |path: &&PathBuf| {
        path.symlink_metadata().is_ok_and(|found| found.is_file() && found.size() > 0)
    };
    match found.iter().find(is_file) {
        Some(file) => file.clone(),
        None => walk_first_file(found.iter().find(|path| path.is_dir()).unwrap()),
    }
}

/// Both names of the root that famfs keeps for itself are reported together, and can be skipped.
#[test]
fn reserved_names_are_unusable_paths() {
    let source = tempfile::tempdir().unwrap();
    for name in [".meta", ".famfs", "dir", "dir/.famfs"] {
        fs::create_dir(source.path().join(name)).unwrap();
    }
    fs::write(source.path().join(".famfs/file"), "text").unwrap();
    let pool = pool(32 << 20);
    let error = copy(&pool, source.path()).unwrap_err().to_string();
    assert!(error.starts_with("3 of the sources cannot be copied (3 unusable paths)"), "{error}");
    let options = Options { skip_unsupported: true, ..ALL };
    let all = source.path().join(".");
    let into = Destination::Into(None);
    let done = copy_with(&pool, &[&all], &into, &options, false).unwrap();
    assert_eq!((done.files, done.directories), (0, 2));
    // Below another directory they are names like any other.
    let options = Options { skip_unsupported: true, ..ALL };
    let into = Destination::Into(Some(path("dir")));
    let done = copy_with(&pool, &[&all], &into, &options, false).unwrap();
    assert_eq!((done.files, done.directories), (1, 3));
}

/// What may not be read is found before anything is written, named, and skipped on request.
#[test]
fn unreadable_sources_are_found_in_advance() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("tree/closed")).unwrap();
    fs::create_dir_all(at("tree/open")).unwrap();
    fs::create_dir_all(at("tree/listed")).unwrap();
    let large = vec![1; 2 * usize::try_from(PAGE).unwrap()];
    let files = [("open/file", b"read" as &[u8]), ("open/small", b"4"), ("open/large", &large)];
    for (name, bytes) in files.into_iter().chain([("closed/in", &b"in"[..]), ("listed/in", b"in")])
    {
        fs::write(at("tree").join(name), bytes).unwrap();
    }
    let modes = [("open/small", 0), ("open/large", 0), ("closed", 0), ("listed", 0o444)];
    let set = |mode: Option<u32>| {
        for (name, own) in modes {
            let mode = fs::Permissions::from_mode(mode.unwrap_or(own));
            fs::set_permissions(at("tree").join(name), mode).unwrap();
        }
    };
    set(None);
    let (error, kept, done, compared) = without_privileges(|| {
        let into = Destination::Into(None);
        let error = scan(&[at("tree")], &into, &ALL).unwrap_err().to_string();
        let pool = pool(32 << 20);
        let options = Options { skip_unsupported: true, ..ALL };
        let found = scan(&[at("tree"), at("tree/closed")], &into, &options).unwrap();
        let kept: Vec<_> = found.unsupported.iter().map(ToString::to_string).collect();
        let done = copy_with(&pool, &[&at("tree")], &into, &options, false).unwrap();
        let contents = Contents::read(pool.media()).unwrap();
        let compared = compare(&found, &contents.plan, &pool, |_| true).unwrap();
        (error, kept, done, compared.differences)
    });
    set(Some(0o755));
    assert!(error.starts_with("4 of the sources cannot be copied (4 unreadable names)"), "{error}");
    for name in ["open/small", "open/large", "closed", "listed"] {
        assert!(error.contains(&format!("tree/{name}: cannot ")), "{error}");
    }
    assert!(error.contains("Permission denied"), "{error}");
    assert_eq!(kept.len(), 5, "{kept:?}");
    assert_eq!((done.files, done.directories), (1, 2));
    assert!(compared.is_empty(), "{compared:?}");
}

/// Does something as a user whom modes bind, on a thread of its own.
fn without_privileges<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let unprivileged = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        job()
    };
    std::thread::scope(|scope| scope.spawn(unprivileged).join().unwrap())
}
