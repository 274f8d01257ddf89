// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs every command of the host on a pool whose bytes a hostile guest keeps changing: no panic,
//! no signal, no hang, bounded memory, and nothing written outside.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/commands.rs"]
mod commands;
#[path = "common/hostile_writer.rs"]
mod hostile_writer;

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hostile_writer::HostileWriter;

/// How long the commands run.
const TIME: Duration = Duration::from_secs(25);
/// The seed of what is written; without it one is taken from the clock and printed.
const SEED: &str = "VHOST_FAMFS_SEED";

const FAMFS: &str = env!("CARGO_BIN_EXE_famfs");

/// The commands to run on the pool. Those that only need a path get one that may or may not exist.
const LINES: [&str; 36] = [
    "ls",
    "ls -l --json",
    "tree",
    "stat f1 d1",
    "df --human",
    "du d1",
    "fsck",
    "fsck --json -h",
    "dump",
    "dump --json",
    "map",
    "map --json",
    "getmap f1",
    "cat f1 f2",
    "verify -S 1 -f f1",
    "sum",
    "sum --json f1",
    "chkread f1",
    "doctor",
    "role",
    "export -o out/x.tar --force",
    "export d1",
    "cp --out -r / out/all",
    "cp --out f1 out/f1",
    "cp -r src /new",
    "cp src/a /",
    "mkdir -p d9/x",
    "creat -s 2M d9/made",
    "creat --multi m1,2M,7",
    "import --input src.tar /imported",
    "rm f1",
    "compact",
    "takeover --yes",
    "upgrade",
    "mkfs --dry-run",
    "clone f1 f99",
];

#[test]
fn commands_survive_a_pool_that_changes() {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED}={text}: not a 32-bit number")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos(),
    };
    println!("{SEED}={seed}");
    let top = tempfile::tempdir_in("/dev/shm").unwrap();
    // Deep, so that a path that climbs out is noticed.
    let dir = top.path().join("1/2/work");
    fs::create_dir_all(dir.join("src/d")).unwrap();
    fs::create_dir(dir.join("out")).unwrap();
    fs::write(dir.join("src/a"), "a").unwrap();
    fs::write(dir.join("src/d/b"), vec![b'b'; 3 << 20]).unwrap();
    let pool = dir.join("pool");
    File::create(&pool).unwrap().set_len(128 << 20).unwrap();
    let famfs = |line: &str| {
        let mut command = Command::new(FAMFS);
        command.args(["--pool", "pool"]).args(line.split_whitespace()).current_dir(&dir);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    famfs("mkfs");
    famfs("mkdir d1");
    famfs("creat --multi f1,4M,1 --multi f2,1,2 --multi d1/f3,6M,3");
    let tar = Command::new("tar").args(["-cf", "src.tar", "src"]).current_dir(&dir).status();
    assert!(tar.unwrap().success());
    let lines = LINES.map(|line| format!("--pool pool {line}"));
    let writer = HostileWriter::new(&pool, 0, top.path(), seed);
    let count = commands::run_all(FAMFS, &lines, &dir, &[], TIME, writer);
    println!("{count} commands");
    for (at, only) in [("", "1"), ("1", "2"), ("1/2", "work")] {
        let found: Vec<_> = fs::read_dir(top.path().join(at)).unwrap().flatten().collect();
        assert!(found.len() == 1 && found[0].file_name() == only, "{found:?} in {at:?}");
    }
    // It was restored, and is as it was.
    famfs("fsck");
}

#[test]
fn a_wrong_end_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let noticed = |script: &str| {
        fs::write(dir.path().join("script"), script).unwrap();
        std::panic::catch_unwind(|| commands::run("sh", "script", dir.path())).is_err()
    };
    for script in ["kill -9 $$", "kill -ABRT $$", "exit 101", "echo x panicked at y >&2; exit 1"] {
        assert!(noticed(script), "{script}");
    }
    for script in ["exit 0", "exit 1", "echo an error >&2; exit 2"] {
        assert!(!noticed(script), "{script}");
    }
}
