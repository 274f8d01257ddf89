// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trees come out of a pool as they were: into archives that the host's tar unpacks, and into
//! directories.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Pool;
use famfs::format::path::RelPath;
use famfs::media::PoolFile;
use famfs::replay::{Attributes, Owner, Time};
use famfs::sys::dax::Access;
use famfs::write::layout::Layout;
use famfs::write::volume::OfflineVolume;
use famfs::write::writer::{WriteError, Writer};
use trees::{Kind, Rules, Tree};

const POOL_LEN: u64 = 256 << 20;

fn famfs(pool: &Pool, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a command that works.
fn run(pool: &Pool, args: &[&str]) -> Vec<u8> {
    let Output { status, stdout, stderr } = famfs(pool, args);
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Standard error of a command that fails.
fn refusal(pool: &Pool, args: &[&str]) -> String {
    let Output { status, stderr, .. } = famfs(pool, args);
    assert_eq!(status.code(), Some(1), "{args:?}");
    String::from_utf8(stderr).unwrap()
}

/// A pool with a directory of the host in it.
fn filled(dir: &Path) -> Pool {
    let pool = Pool::new(&[], POOL_LEN);
    run(&pool, &["mkfs"]);
    let volume = OfflineVolume::new(PoolFile::open(&pool.path, Access::Write).unwrap());
    let mut writer = Writer::open(&volume, None).unwrap();
    for (path, entry) in
        Tree::read(dir).unwrap().entries.iter().filter(|(path, _)| !path.is_empty())
    {
        let path = RelPath::new(path).unwrap();
        let owner = Owner { uid: entry.user, gid: entry.group, mode: entry.mode };
        let mtime = Time { sec: entry.time.seconds, nsec: entry.time.nanoseconds };
        let attributes = Attributes { owner, mtime: Some(mtime) };
        // Symbolic links have one name in a pool.
        let is_file = matches!(entry.kind, Kind::File(_));
        if let Some(first) = entry.same_as.as_ref().filter(|_| is_file) {
            writer.link(&RelPath::new(first).unwrap(), &path).unwrap();
            continue;
        }
        match &entry.kind {
            Kind::Directory => writer.mkdir(&path, attributes).unwrap(),
            Kind::Symlink(target) => writer.symlink(&path, target, attributes).unwrap(),
            Kind::File(contents) => {
                let source = File::open(dir.join(path.as_path())).unwrap();
                let layout = Layout::new(contents.size, contents.data.iter().cloned());
                let data: Vec<_> = layout.data().collect();
                let room = writer.allocate(&path, layout).unwrap();
                let fill = |bytes: &dyn famfs::write::volume::FileBytes| {
                    for range in data {
                        let mut buf = vec![0; usize::try_from(range.end - range.start).unwrap()];
                        source.read_exact_at(&mut buf, range.start).unwrap();
                        bytes.write(range.start, &buf).unwrap();
                    }
                    Ok::<_, WriteError>(())
                };
                writer.create(&path, attributes, room, fill).unwrap();
            }
            Kind::Special(..) => panic!("{path}: a special file"),
        }
    }
    writer.commit().unwrap();
    pool
}

/// A tree whose symbolic links have one name each.
fn with_single_links(dir: &Path) -> Tree {
    let mut tree = Tree::read(dir).unwrap();
    for entry in tree.entries.values_mut() {
        if matches!(entry.kind, Kind::Symlink(_)) {
            entry.same_as = None;
        }
    }
    tree
}

/// The rules of these copies: the directory itself is the user's.
fn rules() -> Rules {
    let any_owner = !rustix::process::geteuid().is_root();
    Rules { any_root: true, any_owner, ..Rules::default() }
}

#[test]
fn trees_come_out_as_they_were() {
    for name in ["names", "deep", "links", "sizes", "sparse", "times", "huggingface"] {
        let dir = tempfile::tempdir().unwrap();
        let [source, unpacked, copied] =
            ["source", "unpacked", "copied"].map(|name| dir.path().join(name));
        trees::plant(name, &source).unwrap();
        let pool = filled(&source);
        let expected = with_single_links(&source);
        run(&pool, &["fsck"]);

        let archive = dir.path().join("all.tar");
        run(&pool, &["export", "--keep-set-id", "-o", archive.to_str().unwrap()]);
        assert_eq!(fs::read(&archive).unwrap(), run(&pool, &["export", "--keep-set-id"]), "{name}");
        fs::create_dir(&unpacked).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xpf").arg(&archive).arg("-C").arg(&unpacked).arg("--numeric-owner");
        let Output { status, stderr, .. } = tar.output().unwrap();
        assert!(status.success(), "{name}: {}", String::from_utf8_lossy(&stderr));
        let found = Tree::read(&unpacked).unwrap();
        let told = trees::compare(&expected, &found, rules()).none();
        assert!(told.is_ok(), "{name} through tar: {told:?}");

        // The second time, everything is replaced.
        fs::create_dir(&copied).unwrap();
        for _ in 0..2 {
            run(&pool, &["cp", "--out", "-r", "--keep-set-id", "/", copied.to_str().unwrap()]);
            let found = Tree::read(&copied).unwrap();
            let told = trees::compare(&expected, &found, rules()).none();
            assert!(told.is_ok(), "{name} through cp: {told:?}");
        }

        // Pool and source have one list of sums, which are made at the same time.
        let mut sum = Command::new(env!("CARGO_BIN_EXE_famfs"));
        let sum = sum.arg("sum").arg(&source).stdout(Stdio::piped()).spawn().unwrap();
        let sums = run(&pool, &["sum"]);
        assert!(sum.wait_with_output().unwrap().stdout == sums, "{name}: lists differ");
        // It checks both. A check sums as a list does: that of four GiB need not be made again.
        if name != "sparse" {
            let list = dir.path().join("sums");
            fs::write(&list, sums).unwrap();
            let check = ["sum", "--check", list.to_str().unwrap()];
            let host = [&check[..], &[source.to_str().unwrap()]].concat();
            let output = Command::new(env!("CARGO_BIN_EXE_famfs")).args(&host).output().unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            run(&pool, &check);
        }
        trees::remove_all(dir.path()).unwrap();
    }
}

/// A tree with a link of each kind.
fn with_links() -> (tempfile::TempDir, Pool) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("d/e")).unwrap();
    fs::write(source.join("d/e/file"), "text\n").unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::hard_link(source.join("d/e/file"), source.join("other")).unwrap();
    symlink("d/e", source.join("to")).unwrap();
    symlink("to/file", source.join("chain")).unwrap();
    symlink("/etc/passwd", source.join("out")).unwrap();
    let pool = filled(&source);
    (dir, pool)
}

#[test]
fn paths_lead_through_links() {
    let (dir, pool) = with_links();
    for path in ["d/e/file", "to/file", "/chain", "other"] {
        assert_eq!(run(&pool, &["cat", path]), b"text\n", "{path}");
    }
    assert_eq!(run(&pool, &["cat", "empty"]), b"");
    let message = "symbolic link \"out\" leads to \"/etc/passwd\", which is outside";
    for args in [&["cat", "out"][..], &["getmap", "out"], &["sum", "out"], &["export", "out"]] {
        let error = refusal(&pool, args);
        assert!(error.contains(message), "{args:?}: {error}");
    }
    let shown = String::from_utf8(run(&pool, &["ls", "to"])).unwrap();
    assert!(shown.starts_with('l') && shown.ends_with("to -> d/e\n"), "{shown}");
    let below = String::from_utf8(run(&pool, &["ls", "to/"])).unwrap();
    assert!(below.ends_with("d/e/file\n"), "{below}");
    let sums = String::from_utf8(run(&pool, &["sum", "to"])).unwrap();
    assert!(sums.ends_with("  file\n") && sums.lines().count() == 1, "{sums}");
    // A link is copied as one, what is behind it only if that is asked for.
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    let to = target.to_str().unwrap();
    run(&pool, &["cp", "--out", "chain", "to", to]);
    assert_eq!(fs::read_link(target.join("to")).unwrap(), Path::new("d/e"));
    assert_eq!(fs::read_link(target.join("chain")).unwrap(), Path::new("to/file"));
    run(&pool, &["cp", "--out", "-r", "to/.", to]);
    assert_eq!(fs::read(target.join("file")).unwrap(), b"text\n");
    let error = refusal(&pool, &["cp", "--out", "d/e/file", target.join("to").to_str().unwrap()]);
    assert!(error.contains("exists and is not a regular file"), "{error}");
}

/// Links of the user below the target are not followed, neither to make files nor to replace them.
#[test]
fn no_link_leads_out_of_the_target() {
    let (dir, pool) = with_links();
    let [target, outside] = ["target", "outside"].map(|name| dir.path().join(name));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, target.join("d")).unwrap();
    let error = refusal(&pool, &["cp", "--out", "-r", "/", target.to_str().unwrap()]);
    assert!(error.contains("d exists and is not a directory"), "{error}");
    fs::remove_file(target.join("d")).unwrap();
    symlink(outside.join("victim"), target.join("empty")).unwrap();
    let error = refusal(&pool, &["cp", "--out", "-r", "/", target.to_str().unwrap()]);
    assert!(error.contains("empty exists and is not a regular file"), "{error}");
    fs::remove_file(target.join("empty")).unwrap();
    // A link of the same kind is replaced, and what it leads to stays.
    fs::write(outside.join("victim"), "mine").unwrap();
    symlink(outside.join("victim"), target.join("out")).unwrap();
    run(&pool, &["cp", "--out", "-r", "/", target.to_str().unwrap()]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"mine");
    assert_eq!(fs::read_link(target.join("out")).unwrap(), Path::new("/etc/passwd"));
    let [one, other] = ["d/e/file", "other"].map(|name| target.join(name).metadata().unwrap());
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
    let names: Vec<_> = fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.as_bytes().starts_with(b".famfs-")), "{names:?}");
}
