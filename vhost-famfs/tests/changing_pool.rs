// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs every `pool` command on a pool whose bytes a hostile guest keeps changing.
//! famfs/cli/tests/changing_pool.rs does the same with the commands of famfs.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../famfs/cli/tests/common/commands.rs"]
mod commands;
#[path = "../../famfs/cli/tests/common/hostile_writer.rs"]
mod hostile_writer;

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use famfs::format::view::INFO_BLOCK_OFFSET;
use hostile_writer::HostileWriter;

/// How long the commands run.
const TIME: Duration = Duration::from_secs(10);
/// The seed for the written data; if it is not set, one is taken from the clock and printed.
const SEED: &str = "VHOST_FAMFS_SEED";
/// Offset of the device in a pool with an info block.
const ORIGIN: u64 = 2 << 20;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-famfs");

const LINES: [&str; 10] = [
    "pool inspect pool",
    "pool inspect pool --json",
    "pool list .",
    "pool list . --json",
    "pool create pool --size 128M --mkfs",
    "pool grow pool --size 128M",
    "pool resize pool --size 128M",
    "pool resize pool --size 16M",
    "pool rm pool",
    "up cluster.toml --dry-run --qemu ./qemu --image image",
];

#[test]
fn commands_survive_a_pool_that_changes() {
    const { assert!(INFO_BLOCK_OFFSET < ORIGIN) };
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED}={text}: not a 32-bit number")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos(),
    };
    println!("{SEED}={seed}");
    let top = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = top.path().join("work");
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/cluster.in/.");
    let copied = Command::new("cp").args(["-r", input]).arg(&dir).status();
    assert!(copied.unwrap().success());
    std::fs::write(dir.join("cluster.toml"), "[pool]\npath = \"pool\"\n[[vm]]\n").unwrap();
    let made = Command::new(PROGRAM)
        .args(["pool", "create", "pool", "--size", "128M", "--mkfs"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pool = dir.join("pool");
    let writer = HostileWriter::new(&pool, ORIGIN, top.path(), seed);
    let lines = LINES.map(str::to_owned);
    let count = commands::run_all(PROGRAM, &lines, &dir, &[], TIME, writer);
    println!("{count} commands");
    assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 1, "something is outside");
}
