// SPDX-License-Identifier: Apache-2.0 OR MIT
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use famfs::archive::tar_writer::{Head, TarWriter};
use famfs::replay::{Owner, Time};
use tempfile::TempDir;

use crate::pack::{Source, Watcher, pack, size};
use crate::place::places;
use crate::unpack::{UnpackError, unpack, unpack_file};

/// More than a piece of a file, and not a whole number of them.
const LARGE: usize = (2 << 20) + 17;

#[derive(Default)]
struct Log {
    copied: u64,
    left_out: Vec<String>,
}

impl Watcher for Log {
    fn copied(&mut self, bytes: u64) {
        self.copied += bytes;
    }

    fn left_out(&mut self, what: String) {
        self.left_out.push(what);
    }
}

fn packed(paths: &[&Path], recursive: bool) -> (Vec<u8>, Log) {
    let (mut archive, mut log) = (Vec::new(), Log::default());
    let sources = paths.iter().map(|path| Source::Path(path.to_path_buf())).collect();
    pack(sources, recursive, &mut archive, &mut log).unwrap();
    (archive, log)
}

fn unpacked(archive: &[u8], target: &Path, names: &[&str]) -> Result<u64, UnpackError> {
    let names: Vec<OsString> = names.iter().map(OsString::from).collect();
    let mut copied = 0;
    unpack(archive, &places(target, &names).unwrap(), &mut |bytes| copied += bytes)?;
    Ok(copied)
}

/// Everything below a directory: what it is, its mode and its time.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let (mode, time) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
        let what = match meta.file_type() {
            kind if kind.is_symlink() => format!("link to {:?}", fs::read_link(&path).unwrap()),
            kind if kind.is_dir() => {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                format!("directory {mode:o} {time:?}")
            }
            _ => format!("file {mode:o} {time:?} {:?}", fs::read(&path).unwrap().len()),
        };
        found.insert(path.strip_prefix(dir).unwrap().to_owned(), what);
    }
    found
}

fn sample() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/b/large"), vec![7; LARGE]).unwrap();
    fs::write(root.join("a/empty"), "").unwrap();
    fs::write(root.join("a").join("n".repeat(255)), "long name").unwrap();
    symlink("../nowhere", root.join("a/link")).unwrap();
    symlink(root, root.join("a/b/absolute")).unwrap();
    for (path, mode) in [("a/empty", 0o4755), ("a/b/large", 0o400), ("a/b/c", 0o500)] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

#[test]
fn a_tree_arrives_as_it_was() {
    let (source, target) = (sample(), tempfile::tempdir().unwrap());
    let from = source.path().join("a");
    let (archive, log) = packed(&[&from], true);
    assert_eq!((log.left_out, log.copied), (vec![], LARGE as u64 + 9));
    assert_eq!(size(std::slice::from_ref(&from)), log.copied);
    // Into a directory, then under a new name, then over what is there: directories stay.
    for (to, at, is_new) in [("", "a", true), ("new", "new", true), ("", "a", false)] {
        assert_eq!(unpacked(&archive, &target.path().join(to), &["a"]).unwrap(), log.copied);
        let mut expected = listing(&from);
        expected.get_mut(Path::new("empty")).unwrap().replace_range(5..11, "100755");
        let mut found = listing(&target.path().join(at));
        for listing in [&mut expected, &mut found] {
            listing.retain(|_, what| is_new || !what.starts_with("directory"));
        }
        assert_eq!(found, expected);
    }
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 2, "nothing else is left");
    assert_eq!(fs::read(target.path().join("a/b/large")).unwrap(), vec![7; LARGE]);
}

#[test]
fn several_sources_go_into_a_directory() {
    let (source, target) = (sample(), tempfile::tempdir().unwrap());
    let paths = ["a/empty", "a/b/large"].map(|path| source.path().join(path));
    let (archive, _) = packed(&[&paths[0], &paths[1]], false);
    unpacked(&archive, target.path(), &["empty", "large"]).unwrap();
    assert_eq!(listing(target.path()).len(), 3);
    let names = ["x", "x"].map(OsString::from);
    let error = places(target.path(), &names).unwrap_err().to_string();
    assert!(error.starts_with("two sources have the name x"), "{error}");
    for (to, names) in [("none", &names[..]), ("none/x", &names[..1]), ("none/", &names[..1])] {
        assert!(places(&target.path().join(to), names).is_err(), "{to}");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_copied() {
    let source = tempfile::tempdir().unwrap();
    let dir = source.path().join("d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("x"), "x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let none = source.path().join("none");
    let (archive, log) = packed(&[&none, &dir], true);
    assert!(log.left_out[0].contains("none: No such file"), "{:?}", log.left_out);
    assert!(log.left_out[1].ends_with("socket: is a socket"), "{:?}", log.left_out);
    let target = tempfile::tempdir().unwrap();
    unpacked(&archive, target.path(), &["none", "d"]).unwrap();
    assert_eq!(listing(target.path()).len(), 3);
    let (_, log) = packed(&[&dir], false);
    assert!(log.left_out[0].ends_with("is a directory; use -r to copy it"), "{:?}", log.left_out);
}

/// Wherever a stream ends, complete files are there and nothing else.
#[test]
fn a_stream_that_is_cut_leaves_no_part_of_a_file() {
    let source = tempfile::tempdir().unwrap();
    let dir = source.path().join("d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("one"), vec![1; 3000]).unwrap();
    fs::write(dir.join("two"), vec![2; (1 << 20) + 3000]).unwrap();
    let (archive, _) = packed(&[&dir], true);
    let cuts = (0..10).map(|cut| cut * 700).chain([1 << 20, archive.len() - 4000]);
    for cut in cuts.chain([archive.len() - 1024]) {
        let target = tempfile::tempdir().unwrap();
        let error = unpacked(&archive[..cut], target.path(), &["d"]).unwrap_err();
        assert!(matches!(error, UnpackError::Archive(_)), "{cut}: {error}");
        let dir = target.path().join("d");
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (name, len) = (entry.file_name(), entry.metadata().unwrap().len());
            assert!(name == "one" && len == 3000, "{cut}: {name:?} has {len} bytes");
        }
    }
}

#[test]
fn a_file_is_replaced_and_nothing_else_is() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, at) = (source.path().join("f"), target.path().join("f"));
    fs::write(&file, "new").unwrap();
    let (archive, _) = packed(&[&file], false);
    let elsewhere = source.path().join("elsewhere");
    fs::write(&elsewhere, "old").unwrap();
    // A link that the user names stands for its file; one in a directory is replaced.
    symlink(&elsewhere, &at).unwrap();
    unpacked(&archive, &at, &["f"]).unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"new");
    fs::write(&elsewhere, "old").unwrap();
    unpacked(&archive, target.path(), &["f"]).unwrap();
    assert!(fs::symlink_metadata(&at).unwrap().is_file());
    assert_eq!(fs::read(&elsewhere).unwrap(), b"old");
    fs::remove_file(&at).unwrap();
    fs::create_dir(&at).unwrap();
    let error = unpacked(&archive, target.path(), &["f"]).unwrap_err().to_string();
    assert!(error.ends_with("f is a directory; remove it first"), "{error}");
    let error = unpacked(&archive, Path::new("/dev/null"), &["f"]).unwrap_err().to_string();
    assert_eq!(error, "/dev/null is a device; remove it first");
}

#[test]
fn a_stream_becomes_a_file_and_a_file_a_stream() {
    let input: Box<dyn io::Read + Send> = Box::new(io::Cursor::new(vec![3; LARGE]));
    let (mut archive, mut log) = (Vec::new(), Log::default());
    pack(vec![Source::Stream(input)], false, &mut archive, &mut log).unwrap();
    let target = tempfile::tempdir().unwrap();
    unpacked(&archive, &target.path().join("f"), &[""]).unwrap();
    let error = places(target.path(), &[OsString::new()]).unwrap_err().to_string();
    assert!(error.ends_with("is a directory; name a file in it"), "{error}");
    assert_eq!(fs::read(target.path().join("f")).unwrap(), vec![3; LARGE]);
    let mut out = Vec::new();
    unpack_file(&archive[..], &mut out, &mut |_| ()).unwrap();
    assert_eq!(out, vec![3; LARGE]);
    assert!(unpack_file(&archive[..1 << 20], &mut out, &mut |_| ()).is_err());
    let (directory, _) = packed(&[target.path()], true);
    assert!(unpack_file(&directory[..], &mut out, &mut |_| ()).is_err());
}

/// An archive with the members that `write` appends.
fn hostile(write: impl FnOnce(&mut TarWriter<&mut Vec<u8>>)) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut tar = TarWriter::new(&mut archive);
    write(&mut tar);
    tar.finish().unwrap();
    archive
}

fn head(name: &[u8]) -> Head<'_> {
    let mtime = Some(Time { sec: 1, nsec: 0 });
    Head { name, owner: Owner { uid: 0, gid: 0, mode: 0o777 }, mtime }
}

#[test]
fn nothing_leaves_its_place() {
    let outer = tempfile::tempdir().unwrap();
    let target = outer.path().join("target");
    fs::create_dir(&target).unwrap();
    let before = listing(outer.path());
    let names: [&[u8]; 14] = [
        b"../x",
        b"/etc/x",
        b"0/../../x",
        b"0/..",
        b"0/./x",
        b"0//x",
        b"1",
        b"1/x",
        b"-1",
        b"x",
        b"",
        b"0/a\0b",
        b"18446744073709551616",
        &[b'0', b'/', 0xff, b'/', b'.', b'.'],
    ];
    for name in names {
        for archive in [
            hostile(|tar| tar.file(&head(name), 1, &b"x"[..]).unwrap()),
            hostile(|tar| tar.directory(&head(name)).unwrap()),
            hostile(|tar| tar.symlink(&head(name), b"/etc").unwrap()),
        ] {
            // A name that the format cuts at a zero is another name.
            let result = unpacked(&archive, &target, &["t"]);
            let shown = name.escape_ascii();
            assert!(result.is_err() || name.contains(&0), "{shown}");
            let _ = fs::remove_dir_all(target.join("t"));
            let _ = fs::remove_file(target.join("t"));
        }
    }
    assert_eq!(listing(outer.path()).len(), before.len(), "something was made elsewhere");
}

#[test]
fn no_link_is_followed() {
    let outer = tempfile::tempdir().unwrap();
    let target = outer.path().join("target");
    fs::create_dir(&target).unwrap();
    let outside = outer.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let outside = outside.as_os_str().as_encoded_bytes();
    for link in [outside, b"../..", b".."] {
        let archive = hostile(|tar| {
            tar.directory(&head(b"0")).unwrap();
            tar.symlink(&head(b"0/link"), link).unwrap();
            tar.file(&head(b"0/link/x"), 1, &b"x"[..]).unwrap();
        });
        assert!(unpacked(&archive, &target, &["t"]).is_err());
        let archive = hostile(|tar| {
            tar.symlink(&head(b"0"), link).unwrap();
            tar.directory(&head(b"0")).unwrap();
        });
        assert!(unpacked(&archive, &target, &["u"]).is_err());
    }
    assert_eq!(fs::read_dir(outer.path().join("outside")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
}

#[test]
fn what_is_neither_file_nor_directory_nor_link_is_refused() {
    let target = tempfile::tempdir().unwrap();
    let hard = hostile(|tar| tar.hard_link(&head(b"0"), b"/etc/passwd").unwrap());
    let more = hostile(|tar| tar.more(&head(b"0"), 1, &b"x"[..]).unwrap());
    let other = hostile(|tar| {
        tar.file(&head(b"0"), 1, &b"x"[..]).unwrap();
        tar.more(&head(b"1"), 1, &b"x"[..]).unwrap();
    });
    let sparse = hostile(|tar| tar.sparse(&head(b"0"), 1 << 40, &[], io::empty()).unwrap());
    for archive in [hard, more, other, sparse] {
        let error = unpacked(&archive, &target.path().join("x"), &["x"]).unwrap_err();
        assert!(matches!(error, UnpackError::Refused { .. }), "{error}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_target_that_cannot_be_written_is_named() {
    let source = sample();
    let (archive, _) = packed(&[&source.path().join("a/b/large")], false);
    let error = unpacked(&archive, Path::new("/proc/x"), &["large"]).unwrap_err();
    assert_eq!(error.to_string(), "cannot write /proc/x");
}
