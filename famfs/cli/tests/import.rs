// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that a tar archive can have, as GNU tar and others write it, and container images.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Pool;
use famfs::format::path::RelPath;
use famfs::media::PoolFile;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Contents, Time};
use famfs::sys::dax::Access;
use tar::{Builder, EntryType, Header};
use trees::{Rules, compare_directories};

fn formatted() -> Pool {
    let pool = Pool::new(&[], 256 << 20);
    run(&pool, &["mkfs"]);
    pool
}

fn famfs(pool: &Pool, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path).args(args);
    command
}

fn run(pool: &Pool, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = famfs(pool, args).output().unwrap();
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

fn fails(pool: &Pool, args: &[&str], message: &str) {
    let Output { status, stderr, .. } = famfs(pool, args).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(1) && stderr.contains(message), "{args:?}: {stderr}");
}

fn tar(args: &[&str], dir: &Path) {
    let status = Command::new("tar").args(args).current_dir(dir).status().unwrap();
    assert!(status.success(), "tar {args:?}");
}

/// What is in a pool, copied out.
fn copied_out(pool: &Pool, from: &str, dir: &Path) -> PathBuf {
    let out = dir.join("out");
    let _ = fs::remove_dir_all(&out);
    run(pool, &["cp", "--out", "--keep-set-id", "-r", from, out.to_str().unwrap()]);
    out
}

/// Adds a member to an archive.
type Member<'m> = &'m dyn Fn(&mut Builder<Vec<u8>>);

/// An archive of members, each made by one of the functions below.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    members.iter().for_each(|member| member(&mut builder));
    builder.into_inner().unwrap()
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size as u64);
    header
}

fn file<'a>(name: &'a str, text: &'a str) -> impl Fn(&mut Builder<Vec<u8>>) + 'a {
    move |out| {
        let mut header = header(EntryType::Regular, text.len());
        out.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
}

fn dir(name: &str) -> impl Fn(&mut Builder<Vec<u8>>) + '_ {
    move |out| {
        out.append_data(&mut header(EntryType::Directory, 0), name, &[][..]).unwrap();
    }
}

fn link<'a>(
    kind: EntryType,
    name: &'a str,
    target: &'a str,
) -> impl Fn(&mut Builder<Vec<u8>>) + 'a {
    move |out| out.append_link(&mut header(kind, 0), name, target).unwrap()
}

/// Imports archives from files.
fn import(pool: &Pool, archives: &[Vec<u8>], args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = famfs(pool, &["import"]);
    for (number, archive) in archives.iter().enumerate() {
        let path = dir.path().join(format!("{number}.tar"));
        fs::write(&path, archive).unwrap();
        command.arg("--input").arg(path);
    }
    command.args(args).output().unwrap()
}

fn imported(pool: &Pool, archives: &[Vec<u8>], args: &[&str]) -> String {
    let Output { status, stdout, stderr } = import(pool, archives, args);
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn refused(pool: &Pool, archives: &[Vec<u8>], args: &[&str], message: &str) {
    let Output { status, stderr, .. } = import(pool, archives, args);
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(1) && stderr.contains(message), "{message}: {stderr}");
}

fn published(pool: &Pool) -> u64 {
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    Contents::read(&media).unwrap().log.published()
}

/// Trees as people have them, archived by GNU tar in its formats: equal to what tar makes of the
/// archive, in names, bytes, modes, owners, times, links and holes; and so through our own archive.
#[test]
fn trees_are_as_tar_unpacks_them() {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules { any_root: true, ..Rules::default() };
    for name in ["names", "deep", "links", "sizes", "sparse", "times", "node_modules"] {
        let tree = dir.path().join(name);
        trees::plant(name, &tree).unwrap();
        for format in ["pax", "gnu"] {
            let packed = dir.path().join("packed.tar");
            let file = format!("--file={}", packed.display());
            let format = format!("--format={format}");
            tar(&["--create", "--sparse", &format, &file, "--directory", name, "."], dir.path());
            let expected = dir.path().join("expected");
            let _ = fs::remove_dir_all(&expected);
            fs::create_dir(&expected).unwrap();
            tar(&["--extract", "--preserve-permissions", &file], &expected);
            if name == "links" {
                // Only files have several names in a famfs: of a link there is a second one.
                let script = "touch -r other ../time && cp -dp --no-preserve=links \
                              'other/same link' ../link && mv -f ../link 'other/same link' && \
                              touch -r ../time other";
                let mut shell = Command::new("sh");
                shell.args(["-c", script]).current_dir(&expected);
                assert!(shell.status().unwrap().success());
            }
            let pool = formatted();
            run(&pool, &["mkdir", "/in"]);
            run(&pool, &["import", "--input", packed.to_str().unwrap(), "/in"]);
            run(&pool, &["fsck"]);
            let out = copied_out(&pool, "/in", dir.path());
            compare_directories(&expected, &out, rules).unwrap();
            let again = formatted();
            let mut export = famfs(&pool, &["export", "--keep-set-id", "/in"]);
            let mut export = export.stdout(Stdio::piped()).spawn().unwrap();
            let input = export.stdout.take().unwrap();
            assert!(famfs(&again, &["import"]).stdin(input).status().unwrap().success());
            assert!(export.wait().unwrap().success());
            let out = copied_out(&again, "/", dir.path());
            compare_directories(&expected, &out, rules).unwrap();
        }
    }
}

/// GNU tar has four ways to write a sparse file.
#[test]
fn holes_stay_holes_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse");
    let file = fs::File::create(&sparse).unwrap();
    // More ranges than a header and one block after it have room for.
    for number in 0..60_u8 {
        file.write_all_at(&[number + 1; 5000], u64::from(number) << 20).unwrap();
    }
    file.set_len(1 << 30).unwrap();
    drop(file);
    for args in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        tar(&[&["-c", "--sparse", "-f", "s.tar"][..], args, &["sparse"]].concat(), dir.path());
        let packed = fs::read(dir.path().join("s.tar")).unwrap();
        let pool = formatted();
        imported(&pool, std::slice::from_ref(&packed), &[]);
        let gz = Command::new("gzip").args(["-c", "s.tar"]).current_dir(dir.path()).output();
        run(&pool, &["mkdir", "/d"]);
        imported(&pool, &[gz.unwrap().stdout], &["/d"]);
        let media = PoolFile::open(&pool.path, Access::Read).unwrap();
        let plan = Contents::read(&media).unwrap().plan;
        for path in ["sparse", "d/sparse"] {
            let found = plan.tree().get(&RelPath::new(path.as_bytes()).unwrap()).unwrap();
            let ObjectKind::File { size, bytes } = &found.object.kind else { panic!() };
            assert_eq!((*size, plan.tree().allocated(bytes)), (1 << 30, 60 * 8192), "{args:?}");
        }
        let out = copied_out(&pool, "/", dir.path());
        for path in ["sparse", "d/sparse"] {
            let status = Command::new("cmp").arg(&sparse).arg(out.join(path)).status().unwrap();
            assert!(status.success(), "{args:?} {path}");
        }
    }
}

/// Without extensions a sparse file takes all its space, and what cannot be held is refused by
/// number and name.
#[test]
fn a_pool_without_extensions_says_what_it_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse");
    fs::File::create(&sparse).unwrap().set_len(3 << 20).unwrap();
    tar(&["-c", "--sparse", "-f", "s.tar", "sparse"], dir.path());
    let pool = Pool::new(&vec![0xff; 64 << 20], 64 << 20);
    run(&pool, &["mkfs", "--reference", "--force"]);
    let Output { stderr, status, .. } =
        import(&pool, &[fs::read(dir.path().join("s.tar")).unwrap()], &[]);
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stderr.contains("holes of 1 file, times of 1"), "{stderr}");
    let out = copied_out(&pool, "/", dir.path());
    assert!(fs::read(out.join("sparse")).unwrap() == vec![0; 3 << 20]);
    let odd = archive(&[
        &file("empty", ""),
        &link(EntryType::Symlink, "link", "a"),
        &file("a", "a"),
        &link(EntryType::Link, "hard", "a"),
        &file(&"x".repeat(80), "long"),
    ]);
    let message = "4 of the members cannot be unpacked (1 path that is too long, 1 empty file, \
                   1 symbolic link, 1 hard link)";
    refused(&pool, std::slice::from_ref(&odd), &[], message);
    refused(
        &pool,
        std::slice::from_ref(&odd),
        &[],
        "`famfs upgrade` lets this file system hold more",
    );
    refused(&pool, std::slice::from_ref(&odd), &["--layers"], "`famfs upgrade`");
    let done = imported(&pool, &[odd], &["--skip-unsupported"]);
    assert!(done.contains("1 file, 0 directories, 4 skipped"), "{done}");
}

/// A member never gets out of the directory that its archive is unpacked into.
#[test]
fn links_lead_nowhere_else() {
    let pool = formatted();
    run(&pool, &["mkdir", "-p", "/in/own"]);
    run(&pool, &["mkdir", "/other"]);
    let through = archive(&[
        &link(EntryType::Symlink, "up", "../../other"),
        &link(EntryType::Symlink, "abs", "/own"),
        &file("up/a", "a"),
        &file("abs/b", "b"),
        &link(EntryType::Symlink, "chain", "abs/../up"),
        &file("chain/c", "c"),
    ]);
    imported(&pool, &[through], &["/in"]);
    let listing = run(&pool, &["tree"]);
    assert_eq!(run(&pool, &["ls", "/other"]).lines().count(), 1, "{listing}");
    // For a link, the directory is the root: `other` is made in it.
    assert_eq!(run(&pool, &["cat", "/in/other/a", "/in/own/b", "/in/other/c"]), "abc", "{listing}");
    // A link that leads back to itself, or to what is no directory.
    for (members, message) in [
        (
            archive(&[
                &link(EntryType::Symlink, "x", "y"),
                &link(EntryType::Symlink, "y", "x"),
                &file("x/a", "a"),
            ]),
            "more than 40 symbolic links on the way to it",
        ),
        (
            archive(&[&file("f", "f"), &link(EntryType::Symlink, "l", "f"), &file("l/a", "a")]),
            "\"in/f\" is a file, expected a directory",
        ),
        (archive(&[&dir("z"), &link(EntryType::Link, "h", "z")]), "\"z\", which is a directory"),
        (archive(&[&link(EntryType::Link, "h", "missing")]), "\"missing\", which is not there"),
        (archive(&[&link(EntryType::Link, "h", "h")]), "\"h\", which is not there"),
        (
            archive(&[&link(EntryType::Symlink, "l", &"x".repeat(5000))]),
            "symbolic link with a target of 5000 bytes, expected 1 to 4095",
        ),
        (archive(&[&file("own", "own")]), "\"in/own\" is a directory"),
        (archive(&[&file("other/a", "again")]), "\"in/other/a\" exists already"),
    ] {
        let before = published(&pool);
        refused(&pool, &[members], &["/in"], message);
        assert_eq!(published(&pool), before, "{message}");
    }
}

/// What a member replaces: earlier members, and nothing of the file system.
#[test]
fn the_last_member_counts_whatever_it_is() {
    let pool = formatted();
    run(&pool, &["touch", "/there"]);
    let odd = archive(&[
        &file("a", "first"),
        &link(EntryType::Link, "b", "a"),
        &file("a", "second"),
        &file("c", "file"),
        &dir("c"),
        &file("c/d", "d"),
        &dir("e"),
        &file("e", "file"),
        &link(EntryType::Link, "f", "there"),
        &link(EntryType::Symlink, "g", "one"),
        &link(EntryType::Symlink, "g", "two"),
        &link(EntryType::Link, "h", "g"),
    ]);
    let done = imported(&pool, &[odd], &["-v"]);
    let summary = "4 files, 1 directory, 2 symbolic links, 1 hard link, 0 skipped, 16 B\n";
    assert!(done.ends_with(summary), "{done}");
    assert!(done.contains("not kept of h: hard link"), "{done}");
    assert_eq!(run(&pool, &["cat", "/a", "/b", "/c/d", "/e"]), "secondfirstdfile");
    assert!(run(&pool, &["stat", "/there"]).contains("2 names"));
    assert!(run(&pool, &["ls", "/"]).contains("h -> two"));
}

#[test]
fn an_atomic_import_is_one_group() {
    let pool = formatted();
    let names: Vec<String> = (0..600).map(|number| format!("d/{number}")).collect();
    let mut builder = Builder::new(Vec::new());
    names.iter().for_each(|name| file(name, "text")(&mut builder));
    let members = builder.into_inner().unwrap();
    let before = published(&pool);
    imported(&pool, std::slice::from_ref(&members), &["--atomic"]);
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let contents = Contents::read(&media).unwrap();
    // The group, the directory and its files, and those of the store.
    let entries = contents.log.published() - before;
    assert!((1 + 601 + 2..1 + 601 + 6).contains(&entries), "{entries}");
    assert_eq!(contents.plan.tree().counts().files, 600);
    drop(contents);
    // If anything fails, nothing is there.
    let pool = formatted();
    let before = published(&pool);
    refused(&pool, &[[&members[..members.len() / 2], b"x"].concat()], &["--atomic"], "cut short");
    assert_eq!(published(&pool), before);
    let Output { status, stderr, .. } = famfs(&pool, &["import", "--atomic"]).output().unwrap();
    assert_eq!(status.code(), Some(2), "{}", String::from_utf8_lossy(&stderr));
}

/// An image comes in as the tree that it stands for, at once.
#[test]
fn an_image_is_the_tree_that_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let (image, expected) = (dir.path().join("image"), dir.path().join("expected"));
    trees::plant_oci_image(&image).unwrap();
    trees::plant_oci_result(&expected).unwrap();
    let pool = formatted();
    run(&pool, &["mkdir", "/rootfs"]);
    let before = published(&pool);
    let oci = ["import", "--oci", image.to_str().unwrap(), "/rootfs"];
    let dry = run(&pool, &[&oci[..], &["--dry-run"]].concat());
    assert!(dry.starts_with("would make ") && published(&pool) == before, "{dry}");
    let done = run(&pool, &oci);
    assert!(done.contains("2 hard links") && !done.contains("removed"), "{done}");
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let contents = Contents::read(&media).unwrap();
    let counts = contents.plan.tree().counts();
    assert_eq!(contents.log.published() - before, 1 + 3 + counts.names - 1, "one group");
    drop(contents);
    let compare = || {
        let out = copied_out(&pool, "/rootfs", dir.path());
        // Directories that no layer has get the time of the import.
        let touch = "find usr/share -type d -exec touch -d @1650000000 {} +";
        let status = Command::new("sh").args(["-c", touch]).current_dir(&out).status().unwrap();
        assert!(status.success());
        let rules = Rules { any_root: true, ..Rules::default() };
        compare_directories(&expected, &out, rules).unwrap();
        run(&pool, &["fsck"]);
    };
    compare();
    // Over itself, and as it was.
    let done = run(&pool, &oci);
    assert!(done.contains(" removed"), "{done}");
    compare();
    // A blob that was changed.
    let blobs = image.join("blobs/sha256");
    for blob in fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&blob).unwrap();
        bytes[0] ^= 1;
        fs::write(&blob, bytes).unwrap();
    }
    fails(&pool, &oci, "is damaged: its sum is ");
    fs::remove_dir_all(&blobs).unwrap();
    fails(&pool, &oci, "cannot open ");
    fs::remove_file(image.join("oci-layout")).unwrap();
    fails(&pool, &oci, "is not an OCI image layout");
}

/// What layers do to a tree that is there, and to each other.
#[test]
fn layers_remove_and_replace() {
    let pool = formatted();
    let first = archive(&[
        &dir("opaque"),
        &file("opaque/old", "old"),
        &dir("opaque/deep"),
        &file("opaque/deep/er", "old"),
        &dir("merged"),
        &file("merged/kept", "kept"),
        &file("merged/gone", "gone"),
        &dir("usr/bin"),
        &link(EntryType::Symlink, "bin", "usr/bin"),
        &file("kind", "file"),
        &dir("other"),
        &file("other/file", "x"),
        &file("linked", "linked"),
        &file("gone", "gone"),
        &dir("again"),
        &file("again/old", "old"),
    ]);
    let second = archive(&[
        // After what it does not remove, in the same layer.
        &dir("opaque"),
        &file("opaque/new", "new"),
        &file("opaque/.wh..wh..opq", ""),
        &file("merged/.wh.gone", ""),
        &file("merged/new", "new"),
        &file("bin/tool", "tool"),
        &dir("kind"),
        &file("kind/inside", "inside"),
        &link(EntryType::Symlink, "other", "kind"),
        // Another name of what is replaced after it.
        &link(EntryType::Link, "more", "linked"),
        &file("linked", "replaced"),
        &file(".wh.gone", ""),
        &file(".wh.again", ""),
        &dir("again"),
        &file("again/new", "new"),
        &file(".wh..wh.plnk", ""),
        &file("missing/.wh.name", ""),
    ]);
    let expected = "again/new bin kind/inside linked merged/kept merged/new more opaque/new other \
                    usr/bin/tool";
    let names = |pool: &Pool, below: &str| {
        let media = PoolFile::open(&pool.path, Access::Read).unwrap();
        let plan = Contents::read(&media).unwrap().plan;
        let entries = plan.tree().at_and_below(Some(&RelPath::new(below.as_bytes()).unwrap()));
        let files = entries
            .iter()
            .filter(|entry| !matches!(entry.listed.object.kind, ObjectKind::Dir { .. }));
        let names = files.map(|entry| entry.path.to_string()[below.len() + 1..].to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    run(&pool, &["mkdir", "/both"]);
    run(&pool, &["mkdir", "/steps"]);
    let both = imported(&pool, &[first.clone(), second.clone()], &["--layers", "/both"]);
    assert!(!both.contains("removed"), "{both}");
    assert_eq!(names(&pool, "both"), expected);
    // One after the other: the second removes and replaces what the file system has.
    imported(&pool, std::slice::from_ref(&first), &["--layers", "/steps"]);
    let before = published(&pool);
    let done = imported(&pool, std::slice::from_ref(&second), &["--layers", "/steps"]);
    // opaque/{old,deep,deep/er}, merged/gone, kind, other{,/file}, linked, gone, again/old.
    assert!(done.contains(", 10 removed,"), "{done}");
    assert!(published(&pool) > before);
    assert_eq!(names(&pool, "steps"), expected);
    assert_eq!(run(&pool, &["cat", "/steps/more", "/steps/linked"]), "linkedreplaced");
    run(&pool, &["fsck"]);
    // Names that nothing can have.
    for name in ["a/.wh.", "a/.wh..", "a/.wh..."] {
        let odd = archive(&[&file(name, "")]);
        refused(&pool, &[odd], &["--layers", "/both"], "removes a name that nothing can have");
    }
    // Without the option they are names like others.
    let done = imported(&pool, &[archive(&[&file("q/.wh.a", "")])], &["/both"]);
    assert!(done.starts_with("1 file, 1 directory"), "{done}");
}

/// From a pipe, what a file can have and what needs the whole archive.
#[test]
fn a_pipe_has_links_too() {
    let pool = formatted();
    let members = archive(&[
        &dir("d"),
        &file("d/a", "a"),
        &link(EntryType::Link, "d/b", "d/a"),
        &link(EntryType::Symlink, "l", "d"),
        &file("l/c", "c"),
    ]);
    let pipe = |args: &[&str], bytes: &[u8]| {
        let mut command = famfs(&pool, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(bytes);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(pipe(&["import"], &members).0, Some(0));
    assert_eq!(run(&pool, &["cat", "/d/a", "/d/b", "/d/c"]), "aac");
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let plan = Contents::read(&media).unwrap().plan;
    let found = plan.tree().get(&RelPath::new(b"d/b").unwrap()).unwrap().object;
    assert_eq!((found.links, found.mtime), (2, Some(Time { sec: 1, nsec: 0 })));
    drop((plan, media));
    let twice = archive(&[&file("x", "1"), &link(EntryType::Symlink, "x", "2")]);
    let (code, stderr) = pipe(&["import"], &twice);
    assert!(code == Some(1) && stderr.contains("\"x\" is in the archive twice"), "{stderr}");
    let (code, stderr) = pipe(&["import", "--layers", "--input", "/dev/stdin"], &members);
    assert!(code == Some(1) && stderr.contains("need a regular file"), "{stderr}");
}

/// Links have the mode that Linux gives all of them, whatever the archive says.
#[test]
fn links_have_all_permission_bits() {
    let pool = formatted();
    let members = archive(&[&file("a", "text"), &link(EntryType::Symlink, "l", "a")]);
    imported(&pool, &[members], &[]);
    let listed = run(&pool, &["ls"]);
    assert!(listed.lines().any(|line| line.starts_with("lrwxrwxrwx ")), "{listed}");
}

/// What a later layer replaces is no loss; what a later member of one archive replaces may be one.
#[test]
fn only_members_that_may_be_missed_are_mentioned() {
    let pool = formatted();
    let once = archive(&[&file("a", "first")]);
    let both = [once, archive(&[&file("a", "second")])];
    let said = |args: &[&str]| String::from_utf8(import(&pool, &both, args).stderr).unwrap();
    let plain = said(&["--dry-run"]);
    assert!(plain.contains(": 1 member was skipped, because"), "{plain}");
    assert_eq!(said(&["--layers"]), "");
}
