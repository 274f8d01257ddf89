// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands that change names and attributes: what a crash, a failure or a reader sees of them.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::process::{Command, Output};

use common::Pool;
use famfs::format::path::RelPath;
use famfs::media::PoolFile;
use famfs::replay::{Contents, Time};
use famfs::sys::dax::Access;

fn formatted() -> Pool {
    let pool = Pool::new(&[], 64 << 20);
    run(&pool, &["mkfs"]);
    pool
}

fn famfs(pool: &Pool, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path).args(args).output().unwrap()
}

fn run(pool: &Pool, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = famfs(pool, args);
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn fails(pool: &Pool, args: &[&str], message: &str) {
    let Output { status, stderr, .. } = famfs(pool, args);
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(1) && stderr.contains(message), "{args:?}: {stderr}");
}

/// Number of entries in the log.
fn published(pool: &Pool) -> u64 {
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    Contents::read(&media).unwrap().log.published()
}

/// A tree of three directories with `count` empty files in each, and links.
fn planted(count: u32) -> Pool {
    let pool = formatted();
    let mut touch = vec!["touch".to_owned()];
    for dir in ["d", "d/e", "d/e/f"] {
        run(&pool, &["mkdir", "-m", "750", dir]);
        touch.extend((0..count).map(|number| format!("{dir}/{number}")));
    }
    run(&pool, &touch.iter().map(String::as_str).collect::<Vec<_>>());
    run(&pool, &["ln", "-s", "..", "d/e/up"]);
    run(&pool, &["ln", "d/0", "d/e/other"]);
    pool
}

/// A tree of more names than a batch has goes in one group.
#[test]
fn a_tree_changes_as_one() {
    let pool = planted(400);
    let before = published(&pool);
    let report = run(&pool, &["chmod", "-R", "--json", "go=", "d"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    // Three directories and their files, each file once; not the link.
    assert_eq!(report["changed"].as_array().unwrap().len(), 3 + 1200);
    assert_eq!(published(&pool), before + 1 + 1203);
    assert_eq!(run(&pool, &["chmod", "-R", "-v", "go=", "d"]), "");
    assert_eq!(published(&pool), before + 1 + 1203, "nothing to change is no entry");
    let report = run(&pool, &["chown", "-R", "--json", "7:8", "d"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["changed"].as_array().unwrap().len(), 3 + 1200 + 1);
    let before = published(&pool);
    let report = run(&pool, &["rm", "-r", "--json", "d", "d/e"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((count("files"), count("directories"), count("symlinks")), (1201, 3, 1));
    assert_eq!(published(&pool), before + 1 + 1205);
    assert_eq!(run(&pool, &["ls"]), "");
    run(&pool, &["fsck"]);
}

/// If one of several changes cannot be made, none is.
#[test]
fn several_changes_are_all_or_none() {
    let pool = planted(2);
    let before = (published(&pool), run(&pool, &["ls", "-l"]));
    fails(&pool, &["mv", "d/0", "d/e", "d/e/f"], "directory \"e\" would be inside itself");
    fails(&pool, &["mv", "d/e", "d/e/new"], "directory \"e\" would be inside itself");
    fails(&pool, &["mv", "d/1", "d/e/up", "d/e"], "\"d/e/up\" is there already");
    fails(&pool, &["mv", "-n", "d/e/up", "d/0", "d/e/f/"], "\"d/e/f/0\": it already exists");
    fails(&pool, &["ln", "d/0", "d/e/f", "/"], "slot 2 made a directory, expected a file");
    fails(&pool, &["rm", "d/0", "d/e"], "\"d/e\" is a directory with 5 names in it");
    fails(&pool, &["chmod", "600", "d/0", "missing"], "\"missing\" does not exist");
    fails(&pool, &["touch", "new", "missing/new"], "its directory \"missing\" does not exist");
    assert_eq!((published(&pool), run(&pool, &["ls", "-l"])), before);
}

/// A link at the end of a path: who follows it, and who does not.
#[test]
fn links_at_the_end_of_a_path() {
    let pool = planted(1);
    run(&pool, &["ln", "-s", "d/0", "file"]);
    run(&pool, &["ln", "-s", "d/e", "dir"]);
    run(&pool, &["ln", "-s", "d/new", "dangling"]);
    run(&pool, &["ln", "-s", "/etc/passwd", "out"]);
    assert!(run(&pool, &["chmod", "-v", "7", "file"]).starts_with("d/0: "));
    assert!(run(&pool, &["chown", "-v", "7", "dir/other"]).starts_with("d/e/other: "));
    assert!(run(&pool, &["chown", "-v", "-h", ":7", "file"]).starts_with("file: "));
    assert!(run(&pool, &["touch", "-v", "dangling"]).starts_with("d/new: new, "));
    fails(&pool, &["touch", "out"], "outside of the file system");
    run(&pool, &["touch", "-h", "out"]);
    run(&pool, &["mkdir", "-p", "dir/sub"]);
    run(&pool, &["mkdir", "-p", "dir"]);
    fails(&pool, &["mkdir", "dir"], "\"dir\": it already exists");
    assert_eq!(run(&pool, &["mv", "-v", "file", "dir/"]), "file -> d/e/file\n");
    assert_eq!(run(&pool, &["mv", "-v", "d/e/file", "dir"]), "d/e/file -> dir\n");
    assert_eq!(run(&pool, &["ln", "-v", "d/new", "d/e/."]), "d/e/new = d/new\n");
    run(&pool, &["rm", "dir"]);
    assert!(run(&pool, &["ls", "d"]).contains("d/0"));
}

/// A program does not run as its new owner.
#[test]
fn another_owner_takes_set_id_bits_off() {
    let pool = planted(1);
    let mode = |path: &str| {
        let media = PoolFile::open(&pool.path, Access::Read).unwrap();
        let plan = Contents::read(&media).unwrap().plan;
        plan.tree().get(&RelPath::new(path.as_bytes()).unwrap()).unwrap().object.owner.mode
    };
    for (before, after) in [("6755", 0o755), ("2644", 0o2644), ("4644", 0o644), ("1755", 0o1755)] {
        run(&pool, &["chown", "0:0", "d/0"]);
        run(&pool, &["chmod", before, "d/0"]);
        run(&pool, &["chown", "5:6", "d/0"]);
        assert_eq!(mode("d/0"), after, "{before}");
    }
    run(&pool, &["chmod", "2755", "d/e"]);
    run(&pool, &["chown", "5", "d/e"]);
    assert_eq!(mode("d/e"), 0o2755);
}

#[test]
fn times_are_those_that_were_asked_for() {
    let pool = planted(1);
    run(&pool, &["touch", "-d", "1969-12-31T23:59:59.999999999Z", "d", "new"]);
    run(&pool, &["touch", "-r", "new", "/"]);
    run(&pool, &["touch", "-d", "@-1.5", "new"]);
    run(&pool, &["touch", "-c", "absent"]);
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let plan = Contents::read(&media).unwrap().plan;
    let time = |path: &str| {
        plan.tree().get(&RelPath::new(path.as_bytes()).unwrap()).unwrap().object.mtime.unwrap()
    };
    assert_eq!(time("d"), Time { sec: -1, nsec: 999_999_999 });
    assert_eq!(time("new"), Time { sec: -2, nsec: 500_000_000 });
    let root = plan.tree().object(famfs::format::extension::NO_ENTRY).unwrap();
    assert_eq!(root.mtime, Some(time("d")));
    assert!(plan.tree().get(&RelPath::new(b"absent").unwrap()).is_none());
}

#[test]
fn a_dry_run_changes_nothing() {
    let pool = planted(1);
    let before = std::fs::read(&pool.path).unwrap();
    for args in [
        &["mv", "d", "x"][..],
        &["ln", "d/0", "x"],
        &["ln", "-s", "d/0", "x"],
        &["chmod", "-R", "7", "d"],
        &["chown", "-R", "7", "d"],
        &["touch", "d", "x"],
        &["rm", "-r", "d"],
        &["mkdir", "-p", "x/y"],
    ] {
        let said = run(&pool, &[args, &["--dry-run"]].concat());
        assert!(said.contains("would "), "{args:?}: {said}");
    }
    assert!(std::fs::read(&pool.path).unwrap() == before);
}

/// A slash behind a name means a directory, also where a link leads to the name.
#[test]
fn a_slash_behind_a_file_is_refused() {
    let pool = planted(1);
    run(&pool, &["ln", "-s", "d/0", "file"]);
    let before = (published(&pool), run(&pool, &["ls", "-l"]));
    let is_file = "\"d/0\" is a file, expected a directory: leave out what follows its name";
    let commands =
        ["ls", "stat", "cat", "touch", "chmod 600", "chown 7", "rm", "du", "getmap", "sum"];
    for command in commands {
        let words = || command.split(' ');
        fails(&pool, &words().chain(["d/0/"]).collect::<Vec<_>>(), is_file);
        if command != "rm" {
            fails(&pool, &words().chain(["file/."]).collect::<Vec<_>>(), is_file);
        }
    }
    fails(&pool, &["cp", "--out", "d/0/", "/none"], is_file);
    fails(&pool, &["touch", "new/"], "no directory \"new\": make it with `famfs mkdir`");
    fails(&pool, &["creat", "--size", "1", "/new/"], "/new/ is the name of a directory");
    assert_eq!((published(&pool), run(&pool, &["ls", "-l"])), before);
}
