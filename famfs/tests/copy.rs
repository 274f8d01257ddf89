// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a copy makes of its sources, and that it writes nothing if it cannot write everything.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;
#[path = "common/formatting.rs"]
mod formatting;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::Pool;
use famfs::format::map::Memory;
use famfs::format::view::{INFO_BLOCK_OFFSET, InfoBlock};
use famfs::media::PoolFile;
use famfs::replay::NodeKind;
use famfs::store::mkfs::{self, mkfs};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs::write::copy::{Copy, CopyError, Done};
use famfs::write::sources::{Destination, Options, scan};
use famfs::write::transfer::How;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};
use uuid::Uuid;
use zerocopy::IntoBytes;

const POOL_LEN: u64 = 64 << 20;

fn open(pool: &Pool) -> OfflineVolume {
    OfflineVolume::new(PoolFile::open(&pool.path, Access::Write).unwrap())
}

fn format(volume: &OfflineVolume, log_len: Option<u64>) {
    let options = mkfs::Options { log_len, ..formatting::options(false) };
    mkfs(volume.media(), &options).unwrap();
}

fn copy(
    volume: &OfflineVolume,
    sources: &[&Path],
    destination: &Destination,
    options: &Options,
) -> Result<Done, CopyError> {
    let sources: Vec<PathBuf> = sources.iter().map(|path| path.to_path_buf()).collect();
    let scan = scan(&sources, destination, options)?;
    let mut writer = Writer::open(volume, None).unwrap();
    Copy::prepare(scan, &mut writer)?.run(volume, &mut writer, &How::default(), |_| true)
}

/// Path, mode and size (of files) of everything there is.
fn contents(volume: &OfflineVolume) -> Vec<(String, u32, Option<u64>)> {
    let writer = Writer::open(volume, None).unwrap();
    let item = |node: &famfs::replay::Node| {
        let size = match node.kind {
            NodeKind::Dir => None,
            NodeKind::File { size, .. } => Some(size),
        };
        (node.path.to_string(), node.owner.mode, size)
    };
    writer.plan().nodes().iter().map(item).collect()
}

const ALL: Options = Options {
    recursive: true,
    dereference: false,
    conventional: true,
    skip_unsupported: true,
    mode: None,
    uid: Some(7),
    gid: Some(8),
};

#[test]
fn a_tree_keeps_its_shape_and_modes() {
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let source = tempfile::tempdir().unwrap();
    let long = "n".repeat(60);
    fs::create_dir_all(source.path().join("a").join(&long).join(&long)).unwrap();
    fs::write(source.path().join("a").join(&long).join("x"), "x").unwrap();
    fs::write(source.path().join("a").join(&long).join(&long).join("y"), "y").unwrap();
    fs::write(source.path().join("a/exec"), "exec").unwrap();
    for (name, mode) in [("a", 0o750), ("a/exec", 0o4711)] {
        fs::set_permissions(source.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(source.path().join("a").join(&long), fs::Permissions::from_mode(0o700))
        .unwrap();
    fs::set_permissions(
        source.path().join("a").join(&long).join("x"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();

    let into_root = Destination::Into(None);
    let refused = copy(
        &volume,
        &[&source.path().join("a")],
        &into_root,
        &Options { skip_unsupported: false, ..ALL },
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("has 123 bytes, expected at most 79"), "{message}");
    // The directory, and the file in it, which would be lost too.
    assert!(message.starts_with("2 of the sources cannot be copied (2 paths that are too long)"));
    assert!(contents(&volume).is_empty(), "nothing was written");

    copy(&volume, &[&source.path().join("a")], &into_root, &ALL).unwrap();
    let expected = [
        ("a".to_owned(), 0o750, None),
        (format!("a/{long}"), 0o700, None),
        ("a/exec".to_owned(), 0o4711, Some(4)),
        (format!("a/{long}/x"), 0o600, Some(1)),
    ];
    assert_eq!(contents(&volume), expected);
}

#[test]
fn two_sources_of_one_name_are_refused() {
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let source = tempfile::tempdir().unwrap();
    for dir in ["one", "two"] {
        fs::create_dir(source.path().join(dir)).unwrap();
        fs::write(source.path().join(dir).join("same"), "text").unwrap();
    }
    let sources = [&*source.path().join("one/same"), &*source.path().join("two/same")];
    let error = copy(&volume, &sources, &Destination::Into(None), &ALL).unwrap_err();
    assert!(error.to_string().contains("another source has the same target"), "{error}");
    assert!(contents(&volume).is_empty());

    // Directories of one name become one, in a second copy too.
    let sources = [&*source.path().join("one/."), &*source.path().join("two/same")];
    copy(&volume, &sources[..1], &Destination::Into(None), &ALL).unwrap();
    let done = copy(&volume, &sources, &Destination::Into(None), &ALL);
    assert!(matches!(done, Err(CopyError::Taken(_))));
    let done = copy(&volume, &sources[1..], &Destination::Into(None), &ALL).unwrap();
    assert_eq!((done.files, done.overwritten, done.unchanged), (0, 0, 1));
}

#[test]
fn a_full_log_is_seen_before_anything_is_written() {
    let pool = Pool::new(&[], 16 << 30);
    let volume = open(&pool);
    format(&volume, Some(2 << 20));
    let source = tempfile::tempdir().unwrap();
    for number in 0..3854 {
        fs::write(source.path().join(format!("f{number}")), "x").unwrap();
    }
    let everything = source.path().join(".");
    copy(&volume, &[&everything], &Destination::Into(None), &ALL).unwrap();
    let one_more = source.path().join("f0");
    let as_new = Destination::As(famfs::format::path::RelPath::new(b"more").unwrap());
    let error = copy(&volume, &[&one_more], &as_new, &ALL).unwrap_err();
    assert!(matches!(error, CopyError::Write(WriteError::Log(_))), "{error:?}");
    assert!(error.to_string().starts_with("the log is full: "), "{error}");
    assert!(error.to_string().contains("0 of 3854 slots free"), "{error}");
    assert_eq!(contents(&volume).len(), 3854);

    // An empty one, and one that is shorter than requested.
    let pool = Pool::new(&[], 16 << 30);
    let volume = open(&pool);
    format(&volume, Some(2 << 20));
    fs::write(source.path().join("one more"), "x").unwrap();
    let error = copy(&volume, &[&everything], &Destination::Into(None), &ALL).unwrap_err();
    let expected = "the log is too short for this: 3855 more entries needed, 3854 of 3854 slots";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(error.to_string().contains("which erases them"), "{error}");
}

#[test]
fn a_source_that_shrinks_is_not_published() {
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("file");
    fs::write(&path, vec![1; 5 << 20]).unwrap();
    let scan = scan(std::slice::from_ref(&path), &Destination::Into(None), &ALL).unwrap();
    let mut writer = Writer::open(&volume, None).unwrap();
    let free = writer.plan().space.free();
    let copy = Copy::prepare(scan, &mut writer).unwrap();
    fs::write(&path, "short").unwrap();
    let error = copy.run(&volume, &mut writer, &How::default(), |_| true).unwrap_err();
    assert!(error.to_string().contains("changed while it was copied"), "{error}");
    assert_eq!(writer.plan().space.free(), free, "its memory is free again");
    drop(writer);
    assert!(contents(&volume).is_empty());
}

/// What was examined is what is copied, even if the owner of the source plays tricks.
#[test]
fn a_source_that_becomes_another_file_is_not_published() {
    let source = tempfile::tempdir().unwrap();
    let (path, secret) = (source.path().join("file"), source.path().join("secret"));
    fs::write(&secret, "secret").unwrap();
    let link = || std::os::unix::fs::symlink(&secret, &path).unwrap();
    let pipe = || {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    for replace in [&link as &dyn Fn(), &pipe] {
        fs::write(&path, "public").unwrap();
        let pool = Pool::new(&[], POOL_LEN);
        let volume = open(&pool);
        format(&volume, None);
        let scan = scan(std::slice::from_ref(&path), &Destination::Into(None), &ALL).unwrap();
        let mut writer = Writer::open(&volume, None).unwrap();
        let copy = Copy::prepare(scan, &mut writer).unwrap();
        fs::remove_file(&path).unwrap();
        replace();
        let error = copy.run(&volume, &mut writer, &How::default(), |_| true).unwrap_err();
        assert!(error.to_string().contains("expected the same file with 6 bytes"), "{error}");
        drop(writer);
        assert!(contents(&volume).is_empty());
        fs::remove_file(&path).unwrap();
    }
}

/// Sparse files can claim more bytes than 64 bits count.
#[test]
fn sources_of_any_size_are_added_up() {
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let source = tempfile::tempdir_in("/dev/shm").unwrap();
    for number in 0..3 {
        let file = fs::File::create(source.path().join(format!("f{number}"))).unwrap();
        file.set_len(i64::MAX as u64).unwrap();
    }
    let error = copy(&volume, &[source.path()], &Destination::Into(None), &ALL).unwrap_err();
    assert!(matches!(error, CopyError::NoSpace { needed: u64::MAX, .. }), "{error:?}");
}

#[test]
fn a_pipe_is_no_pool() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = PoolFile::open(&path, Access::Read).unwrap_err().to_string();
    assert!(error.ends_with("expected a regular file or a block device"), "{error}");
}

#[test]
fn the_info_block_of_a_pool_stays() {
    let pool = Pool::new(&[], POOL_LEN);
    let block = InfoBlock::build(POOL_LEN, Uuid::from_u128(5)).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&pool.path).unwrap();
    file.write_all_at(block.as_bytes(), INFO_BLOCK_OFFSET).unwrap();
    let volume = open(&pool);
    format(&volume, None);
    copy(&volume, &[Path::new("Cargo.toml")], &Destination::Into(None), &ALL).unwrap();

    let mut found = [0; 4096];
    file.read_exact_at(&mut found, INFO_BLOCK_OFFSET).unwrap();
    assert_eq!(found, block.as_bytes());
    let mut superblock = [0; 200];
    file.read_exact_at(&mut superblock, 2 << 20).unwrap();
    let superblock = Superblock::parse(&superblock, 2 << 20).unwrap();
    assert_eq!(superblock.dev_size, POOL_LEN - (2 << 20));
    assert_eq!(superblock.dev_size, volume.media().len());
    assert_eq!(contents(&volume).len(), 1);
}

/// Makes files `f0`, `f1` ... of seeded bytes, one of them in many pieces.
fn seeded_files(dir: &Path, count: usize) {
    for number in 0..count {
        let len = if number == 3 { 9 << 20 } else { 1000 * number + 1 };
        let mut bytes = vec![0; len];
        let seed = u32::try_from(number).unwrap() + 1;
        famfs::write::prng::SeededBytes::new(seed).fill(&mut bytes);
        fs::write(dir.join(format!("f{number}")), bytes).unwrap();
    }
}

/// The bytes of a file of the file system.
fn read_back(volume: &OfflineVolume, name: &str) -> Vec<u8> {
    let writer = Writer::open(volume, None).unwrap();
    let path = famfs::format::path::RelPath::new(name.as_bytes()).unwrap();
    let NodeKind::File { size, map } = &writer.plan().get(&path).unwrap().kind else {
        panic!("{name} is a directory")
    };
    let bytes = volume.open_file(&path, *size, &Memory::Map(map.clone()), Access::Read).unwrap();
    let mut found = vec![0; usize::try_from(*size).unwrap()];
    bytes.read(0, &mut found).unwrap();
    found
}

/// For any number of threads, the log is the same and the bytes are right.
#[test]
fn threads_change_nothing_but_the_time() {
    let source = tempfile::tempdir().unwrap();
    seeded_files(source.path(), 12);
    let mut logs = Vec::new();
    for threads in [1, 2, 7] {
        let pool = Pool::new(&[], POOL_LEN);
        let volume = open(&pool);
        format(&volume, None);
        let mut writer = Writer::open(&volume, None).unwrap();
        let found = scan(&[source.path().join(".")], &Destination::Into(None), &ALL).unwrap();
        let how = How { threads, verify: true };
        let copy = Copy::prepare(found, &mut writer).unwrap();
        let done = copy.run(&volume, &mut writer, &how, |_| true).unwrap();
        assert_eq!((done.files, done.overwritten, done.unchanged), (12, 0, 0));
        drop(writer);
        for number in 0..12 {
            let name = format!("f{number}");
            assert!(read_back(&volume, &name) == fs::read(source.path().join(&name)).unwrap());
        }
        let mut log = vec![0; 20 * 544];
        famfs::media::Media::read_at(volume.media(), 2 << 20, &mut log).unwrap();
        logs.push(log);
    }
    assert!(logs[0] == logs[1] && logs[1] == logs[2]);
}

/// An interrupted copy keeps what was complete; the same copy again does only the rest.
#[test]
fn a_second_run_goes_on_after_an_interruption() {
    let source = tempfile::tempdir().unwrap();
    seeded_files(source.path(), 12);
    let everything = [source.path().join(".")];
    for stop_at in [1, 4, 5, 9, 14] {
        let pool = Pool::new(&[], POOL_LEN);
        let volume = open(&pool);
        format(&volume, None);
        let mut writer = Writer::open(&volume, None).unwrap();
        let free = writer.plan().space.free();
        let found = scan(&everything, &Destination::Into(None), &ALL).unwrap();
        let pieces = std::sync::atomic::AtomicU64::new(0);
        let error = Copy::prepare(found, &mut writer)
            .unwrap()
            .run(&volume, &mut writer, &How { threads: 3, verify: false }, |_| {
                pieces.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 < stop_at
            })
            .unwrap_err();
        assert!(matches!(error, CopyError::Interrupted { .. }), "{error:?}");
        let taken = free - writer.plan().space.free();
        drop(writer);
        let kept = contents(&volume);
        assert!(kept.len() < 12, "stopped after {stop_at} pieces, but all is there");
        let sizes = kept.iter().map(|(_, _, size)| size.unwrap().next_multiple_of(2 << 20));
        assert_eq!(taken, sizes.sum::<u64>(), "what is not complete takes no space");

        let sources = [everything[0].as_path()];
        let done = copy(&volume, &sources, &Destination::Into(None), &ALL).unwrap();
        let kept = kept.len() as u64;
        assert_eq!((done.files, done.unchanged, done.overwritten), (12 - kept, kept, 0));
        for number in 0..12 {
            let name = format!("f{number}");
            assert!(read_back(&volume, &name) == fs::read(source.path().join(&name)).unwrap());
        }
    }
}

/// Only what differs is written to an existing file.
#[test]
fn a_changed_source_changes_the_copy() {
    let source = tempfile::tempdir().unwrap();
    seeded_files(source.path(), 4);
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let everything = source.path().join(".");
    copy(&volume, &[&everything], &Destination::Into(None), &ALL).unwrap();
    let file = fs::OpenOptions::new().write(true).open(source.path().join("f3")).unwrap();
    file.write_all_at(b"changed", 5 << 20).unwrap();
    let done = copy(&volume, &[&everything], &Destination::Into(None), &ALL).unwrap();
    assert_eq!((done.files, done.unchanged, done.overwritten), (0, 3, 1));
    assert!(read_back(&volume, "f3") == fs::read(source.path().join("f3")).unwrap());
}

/// A preview makes every check, and changes no byte.
#[test]
fn a_preview_writes_nothing() {
    let source = tempfile::tempdir().unwrap();
    seeded_files(source.path(), 4);
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let before = fs::read(&pool.path).unwrap();
    let mut writer = Writer::preview(&volume, None).unwrap();
    let found = scan(&[source.path().join(".")], &Destination::Into(None), &ALL).unwrap();
    let copy = Copy::prepare(found, &mut writer).unwrap();
    assert_eq!(copy.actions().count(), 4);
    let owner = famfs::replay::Owner { uid: 0, gid: 0, mode: 0o755 };
    let dir = famfs::format::path::RelPath::new(b"dir").unwrap();
    writer.mkdir(&dir, owner).unwrap();
    assert!(writer.mkdir(&dir, owner).is_err(), "it counts as made");
    writer.commit().unwrap();
    assert!(fs::read(&pool.path).unwrap() == before);
}

/// An existing file keeps its owner and mode, so a copy that asks for others does not succeed.
#[test]
fn another_owner_or_mode_of_what_is_there_is_refused_or_told() {
    let pool = Pool::new(&[], POOL_LEN);
    let volume = open(&pool);
    format(&volume, None);
    let source = tempfile::tempdir().unwrap();
    let (dir, file) = (source.path().join("d"), source.path().join("d/s"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "public").unwrap();
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(&dir, 0o755);
    chmod(&file, 0o644);
    let strict = Options { skip_unsupported: false, ..ALL };
    let again = |options: &Options| copy(&volume, &[&dir], &Destination::Into(None), options);
    again(&strict).unwrap();
    assert_eq!(again(&strict).unwrap().unchanged, 1, "the same again is fine");
    fs::write(&file, "secret").unwrap();
    chmod(&dir, 0o700);
    chmod(&file, 0o600);
    let error = again(&strict).unwrap_err().to_string();
    assert!(error.starts_with("2 of the targets exist with another owner or mode"), "{error}");
    let line = "\"d/s\" exists with owner and mode 7:8 0644, not 7:8 0600\n";
    assert!(error.contains(line) && error.contains("famfs rm"), "{error}");
    assert_eq!(read_back(&volume, "d/s"), b"public", "nothing was written");
    for options in [Options { uid: Some(9), ..strict }, Options { gid: Some(9), ..strict }] {
        assert!(matches!(again(&options), Err(CopyError::Kept(_))));
    }
    let found = scan(std::slice::from_ref(&dir), &Destination::Into(None), &ALL).unwrap();
    let mut writer = Writer::open(&volume, None).unwrap();
    assert_eq!(Copy::prepare(found, &mut writer).unwrap().kept.len(), 2);
    drop(writer);
    assert_eq!(again(&ALL).unwrap().overwritten, 1);
    assert_eq!(read_back(&volume, "d/s"), b"secret");
    assert_eq!(contents(&volume)[1].1, 0o644);
}

/// What famfs does not keep is counted.
#[test]
fn attributes_holes_and_links_are_counted() {
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name);
    fs::write(path("file"), "text").unwrap();
    fs::hard_link(path("file"), path("link")).unwrap();
    let sparse = fs::File::create(path("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"end", (8 << 20) - 3).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let attributes = rustix::fs::setxattr(path("file"), "user.note", b"a\nb", flags);
    let found = scan(&[path(".")], &Destination::Into(None), &ALL).unwrap();
    use famfs::write::dropped::Attribute;
    assert_eq!(found.dropped.count(Attribute::HardLink), 1);
    assert_eq!(found.dropped.count(Attribute::Holes), 1);
    assert_eq!(found.dropped.times, 3);
    match attributes {
        // Both names of the file have it.
        Ok(()) => assert_eq!(found.dropped.count(Attribute::Xattrs), 2),
        Err(errno) => eprintln!("no extended attributes here: {errno}"),
    }
    let holes = (path(".").join("sparse").to_string_lossy().into_owned(), Attribute::Holes);
    assert!(found.dropped.items.contains(&holes));
}
