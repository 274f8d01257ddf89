// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What commands do to files of the host: the user's own, and those that others put in the way.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Pool;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

struct Place {
    pool: Pool,
    dir: tempfile::TempDir,
}

impl Place {
    /// An empty directory, and a pool with one file.
    fn new() -> Self {
        let place = Self { pool: Pool::new(&[], 64 << 20), dir: tempfile::tempdir().unwrap() };
        place.run(&["mkfs"]);
        place.write("source", "contents");
        place.run(&["cp", "source", "/file"]);
        fs::remove_file(place.path("source")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.path(name)).unwrap().mode() & 0o7777
    }

    fn famfs(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
        command.current_dir(self.dir.path()).arg("--pool").arg(&self.pool.path).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Standard error of a command that works.
    fn run(&self, args: &[&str]) -> String {
        let Output { status, stderr, .. } = self.famfs(args);
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{args:?}: {stderr}");
        stderr
    }

    /// Standard error of a command that fails.
    fn refusal(&self, args: &[&str]) -> String {
        self.failure(args, 1)
    }

    /// Standard error of a command that ends with this code.
    fn failure(&self, args: &[&str], code: i32) -> String {
        let Output { status, stderr, .. } = self.famfs(args);
        assert_eq!(status.code(), Some(code), "{args:?}");
        String::from_utf8(stderr).unwrap()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// The commands that write a file for the user.
const WRITERS: [(&str, &str); 2] = [("export", "out.tar"), ("map", "out.svg")];

#[test]
fn a_device_and_a_pipe_get_the_bytes_and_stay_what_they_are() {
    let place = Place::new();
    for (command, name) in WRITERS {
        let pipe = place.path(name);
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read(&pipe).unwrap());
            place.run(&[command, "-o", name]);
            reader.join().unwrap()
        });
        assert!(read.len() > 512, "{command}: {} bytes", read.len());
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo(), "{command}");
        fs::remove_file(&pipe).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        match mknodat(CWD, &pipe, FileType::CharacterDevice, mode, makedev(1, 3)) {
            Ok(()) => {
                place.run(&[command, "-o", name]);
                let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
                assert!(kind.is_char_device(), "{command}");
                fs::remove_file(&pipe).unwrap();
            }
            Err(errno) => eprintln!("no device node can be made here: {errno}"),
        }
        assert!(names(place.dir.path()).is_empty(), "{command}");
    }
}

#[test]
fn links_lead_to_the_file_and_modes_and_part_files_stay() {
    let place = Place::new();
    for (command, name) in WRITERS {
        let part = format!("{name}.part");
        place.write(&part, "of the user");
        place.write("real", "old");
        place.chmod("real", 0o600);
        symlink("real", place.path(name)).unwrap();
        place.run(&[command, "-o", name]);
        assert!(place.path(name).is_symlink(), "{command}");
        assert!(fs::read(place.path("real")).unwrap().len() > 512, "{command}");
        assert_eq!(place.mode("real"), 0o600, "{command}");
        assert_eq!(fs::read(place.path(&part)).unwrap(), b"of the user", "{command}");
        assert_eq!(names(place.dir.path()), [name.to_owned(), part, "real".to_owned()]);
        for name in names(place.dir.path()) {
            fs::remove_file(place.path(&name)).unwrap();
        }
    }
}

#[test]
fn a_link_that_another_user_put_in_the_way_is_not_followed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no file of another user can be made here");
        return;
    }
    let place = Place::new();
    for (command, name) in WRITERS {
        place.write("secret", "secret");
        place.chmod("secret", 0o600);
        fs::create_dir(place.path("shared")).unwrap();
        place.chmod("shared", 0o1777);
        let target = format!("shared/{name}");
        for link in [format!("{target}.part"), target.clone()] {
            symlink(place.path("secret"), place.path(&link)).unwrap();
            std::os::unix::fs::lchown(place.path(&link), Some(65534), Some(65534)).unwrap();
        }
        place.refusal(&[command, "-o", &target]);
        fs::remove_file(place.path(&target)).unwrap();
        place.run(&[command, "-o", &target]);
        assert_eq!(fs::read(place.path("secret")).unwrap(), b"secret", "{command}");
        assert_eq!(place.mode("secret"), 0o600, "{command}");
        fs::remove_dir_all(place.path("shared")).unwrap();
    }
}

#[test]
fn a_dash_is_standard_output() {
    let place = Place::new();
    let archive = place.famfs(&["export"]).stdout;
    assert_eq!(place.famfs(&["export", "-o", "-"]).stdout, archive);
    let picture = place.famfs(&["map", "-o", "-"]).stdout;
    assert!(picture.starts_with(b"<") && picture.ends_with(b"</svg>\n"));
    for command in ["export", "map"] {
        let message = place.failure(&[command, "-o", "-", "--json"], 2);
        assert!(message.contains("standard output"), "{message}");
    }
    assert!(names(place.dir.path()).is_empty());
}

#[test]
fn an_archive_that_fails_leaves_what_was_there() {
    let place = Place::new();
    place.write("out.tar", "old");
    place.refusal(&["export", "-o", "out.tar", "/nothing"]);
    place.refusal(&["export", "-o", ".", "/file"]);
    assert_eq!(names(place.dir.path()), ["out.tar"]);
    assert_eq!(fs::read(place.path("out.tar")).unwrap(), b"old");
}

#[test]
fn a_copy_out_follows_no_link_below_the_directory_that_was_named() {
    let place = Place::new();
    place.run(&["mkdir", "/current"]);
    place.write("source", "from the pool");
    place.run(&["cp", "source", "/current/file"]);
    for dir in ["victim", "out"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    symlink("../victim", place.path("out/current")).unwrap();
    symlink("victim/new", place.path("out/file")).unwrap();
    for args in [&["/."][..], &["/current"], &["/file"]] {
        let args = [&["cp", "--out", "-r"], args, &["out"]].concat();
        let message = place.refusal(&args);
        assert!(message.contains("exists and is not a"), "{message}");
    }
    assert!(names(&place.path("victim")).is_empty());
    assert_eq!(names(&place.path("out")), ["current", "file"]);
    // A link to the directory is the user's own way of naming it.
    symlink("victim", place.path("mine")).unwrap();
    place.run(&["cp", "--out", "-r", "/.", "mine"]);
    assert_eq!(fs::read(place.path("victim/current/file")).unwrap(), b"from the pool");
    assert_eq!(names(&place.path("victim")), ["current", "file"]);
    let file = place.path("victim/file");
    place.run(&["cp", "--out", "/file", "victim/../victim/again"]);
    assert_eq!(fs::read(file).unwrap(), fs::read(place.path("victim/again")).unwrap());
}

#[test]
fn modes_come_out_whole_but_for_set_id_bits() {
    let place = Place::new();
    place.write("setuid", "#!/bin/sh\n");
    fs::create_dir(place.path("sticky")).unwrap();
    fs::create_dir(place.path("group")).unwrap();
    for (name, mode) in [("setuid", 0o4755), ("sticky", 0o1777), ("group", 0o2775)] {
        place.chmod(name, mode);
        assert_eq!(place.mode(name), mode, "the host takes it");
    }
    place.run(&["cp", "-r", "setuid", "sticky", "group", "/"]);
    let message = place.run(&["cp", "--out", "-r", "/.", "out"]);
    let modes =
        |dir: &str| ["setuid", "sticky", "group"].map(|name| place.mode(&format!("{dir}/{name}")));
    assert_eq!(modes("out"), [0o755, 0o1777, 0o775]);
    assert!(message.contains("2 copied without set-user-ID"), "{message}");
    assert!(message.contains("\n  setuid") && message.contains("\n  group"), "{message}");
    let message = place.run(&["cp", "--out", "--keep-set-id", "-r", "/.", "kept"]);
    assert_eq!((modes("kept"), message.as_str()), ([0o4755, 0o1777, 0o2775], ""));

    let modes = |archive: &[u8]| {
        let mut archive = tar::Archive::new(archive);
        let mode = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let entry: tar::Entry<'_, &[u8]> = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
        };
        archive.entries().unwrap().map(mode).collect::<std::collections::BTreeMap<_, _>>()
    };
    let Output { stdout, stderr, .. } = place.famfs(&["export"]);
    let found = modes(&stdout);
    assert_eq!((found["setuid"], found["sticky/"], found["group/"]), (0o755, 0o1777, 0o775));
    let message = String::from_utf8(stderr).unwrap();
    assert!(message.contains("2 copied without set-user-ID"), "{message}");
    let found = modes(&place.famfs(&["export", "--keep-set-id"]).stdout);
    assert_eq!((found["setuid"], found["sticky/"], found["group/"]), (0o4755, 0o1777, 0o2775));
}

/// By its name, through a link, and by a name that a guest chose.
#[test]
fn the_pool_is_not_replaced_by_what_comes_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool.svg");
    let at = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
        command.current_dir(dir.path()).args(["--pool", "pool.svg"]).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    };
    fs::File::create(&pool).unwrap().set_len(64 << 20).unwrap();
    fs::write(dir.path().join("file"), "contents").unwrap();
    fs::create_dir(dir.path().join("into")).unwrap();
    for args in [&["mkfs"][..], &["cp", "file", "/file"], &["cp", "file", "/pool.svg"]] {
        let made = at(args);
        assert!(made.status.success(), "{made:?}");
    }
    let found = fs::metadata(&pool).unwrap();
    symlink("pool.svg", dir.path().join("link.svg")).unwrap();
    fs::hard_link(&pool, dir.path().join("second.svg")).unwrap();
    for args in [
        &["export", "-o", "pool.svg"][..],
        &["export", "-o", "link.svg"],
        &["export", "-o", "second.svg"],
        &["map", "-o", "./pool.svg"],
        &["cp", "--out", "/file", "pool.svg"],
        &["cp", "--out", "/pool.svg", "."],
        &["cp", "--out", "--recursive", "/.", "."],
    ] {
        let Output { status, stderr, .. } = at(args);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("holds the file system that is being read"), "{args:?}: {stderr}");
        assert_eq!(fs::metadata(&pool).unwrap().ino(), found.ino(), "{args:?}");
    }
    assert!(at(&["fsck"]).status.success());
    assert_eq!(at(&["cat", "/file"]).stdout, b"contents");
}

#[test]
fn a_name_with_a_slash_behind_it_is_a_directory() {
    let place = Place::new();
    for args in [&["export", "-o", "new/"][..], &["cp", "--out", "/file", "new/"]] {
        let Output { status, stderr, .. } = place.famfs(args);
        assert_eq!(status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&stderr));
        assert!(!place.path("new").exists(), "{args:?}");
    }
}

/// A source that has fewer bytes than its size says is like one that shrinks during the copy.
#[test]
fn a_copy_that_fails_half_way_says_what_stays() {
    let place = Place::new();
    place.write("first", "complete");
    let short = "/sys/kernel/uevent_seqnum";
    let error = place.refusal(&["cp", "first", short, "/"]);
    let kept = "what was complete is kept, and the same command continues it: ";
    assert!(error.contains(kept) && error.contains(short), "{error}");
    let error = place.refusal(&["cp", "--atomic", "first", short, "/"]);
    assert!(error.contains("nothing was written: /sys/"), "{error}");
}

/// A directory that is missing is not the same as a file that is in its place.
#[test]
fn a_copy_says_what_is_wrong_with_its_target() {
    let place = Place::new();
    place.write("a", "text");
    place.write("b", "text");
    let missing = "no directory \"none\": make it with `famfs mkdir`";
    let taken = "\"file\" is a file, expected a directory";
    let [out, out_file] = ["no directory none", "a is not a directory"];
    for (args, message) in [
        (&["cp", "a", "/none/"][..], missing),
        (&["cp", "-r", ".", "/none/"], missing),
        (&["cp", "a", "b", "/none"], missing),
        (&["cp", "a", "/file/"], taken),
        (&["cp", "a", "b", "/file"], taken),
        (&["cp", "--out", "/file", "/file", "none"], out),
        (&["cp", "--out", "/file", "none/"], out),
        (&["cp", "--out", "/file", "/file", "a"], out_file),
    ] {
        let error = place.refusal(args);
        assert!(error.contains(message), "{args:?}: {error}");
    }
}
