// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every option of the reference's standalone mode, in both spellings: the exit code, and whether
//! the pool is written. docs/reference/compatibility.md gives the reasons where ours differ.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What happens to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Same,
    Written,
    /// The command takes a device or a path of the host.
    None,
}
use Pool::{Same, Written};

/// A command line with both spellings of an option as `short|long`, and its result. The pool has
/// the files `one` (6 bytes, as `src/one`), `other` (6 other bytes) and `seeded` (2 MiB of seed 7).
const LINES: &[(&str, i32, Pool)] = &[
    // mkfs
    ("mkfs", 2, Same),
    ("mkfs -f|--force", 0, Written),
    ("mkfs -k|--kill", 2, Same),
    ("mkfs -f -k|--kill", 0, Written),
    ("mkfs -f -l|--loglen 0x800000", 0, Written),
    ("mkfs -f -l|--loglen 3m", 2, Same),
    ("mkfs -f -l|--loglen 08m", 2, Same),
    ("mkfs -f -F|--nofuse", 0, Written),
    ("mkfs -f --fuse", 2, Same),
    ("mkfs -f -D|--nodax", 0, Written),
    ("mkfs -f -v|--verbose", 0, Written),
    ("mkfs -?|--help", 0, Same),
    // fsck
    ("fsck", 0, Same),
    ("fsck -h|--human", 0, Same),
    ("fsck -v|--verbose", 0, Same),
    ("fsck -vvv", 0, Same),
    ("fsck -B|--nbuckets 2", 0, Same),
    ("fsck -F|--nofuse", 0, Same),
    ("fsck --fuse", 1, Same),
    ("fsck -m|--mmap", 0, Same),
    ("fsck -r|--read", 0, Same),
    ("fsck -D|--nodax", 0, Same),
    ("fsck -f|--force", 0, Same),
    ("fsck -?|--help", 0, Same),
    // mkdir
    ("mkdir new", 0, Written),
    ("mkdir one", 1, Same),
    ("mkdir -p|--parents a/b", 0, Written),
    ("mkdir a/b", 1, Same),
    ("mkdir -m|--mode 700 new", 0, Written),
    ("mkdir -u|--uid 0x10 new", 0, Written),
    ("mkdir -u|--uid 010 new", 2, Same),
    ("mkdir -g|--gid 7 new", 0, Written),
    ("mkdir -v|--verbose new", 0, Written),
    ("mkdir -vv new", 0, Written),
    // cp
    ("cp src/one new", 0, Written),
    ("cp src/one other", 0, Written),
    ("cp src/one seeded", 1, Same),
    ("cp src new", 1, Same),
    ("cp -r|--recursive src new", 0, Written),
    ("cp -t|--threadct 2 src/one new", 0, Written),
    ("cp -t|--threadct 257 src/one new", 2, Same),
    ("cp -m|--mode 600 src/one new", 0, Written),
    ("cp -u|--uid 1 src/one new", 0, Written),
    ("cp -g|--gid 1 src/one new", 0, Written),
    ("cp -v|--verbose src/one new", 0, Written),
    ("cp -vvv src/one new", 0, Written),
    ("cp -B|--nbuckets 2 -N|--nstrips 2 -C|--chunksize 2m src/one new", 0, Written),
    ("cp -c|--compare src/one one", 0, Same),
    ("cp -c|--compare src/one other", 1, Same),
    ("cp -c|--compare src/one new", 1, Same),
    ("cp -r -c|--compare src new", 1, Same),
    // creat
    ("creat -s|--size 4k new", 0, Written),
    ("creat -s|--size 0x1000 new", 0, Written),
    ("creat -s|--size 010 new", 2, Same),
    ("creat -s|--size 0 new", 1, Same),
    ("creat -s 4k -S|--seed 5 new", 0, Written),
    ("creat -s 4k -r|--randomize new", 0, Written),
    ("creat -s 4k -r -S|--seed 5 new", 0, Written),
    ("creat -s|--size 6 one", 0, Same),
    ("creat -s|--size 7 one", 1, Same),
    ("creat -s 2m -r|--randomize -S|--seed 9 seeded", 0, Same),
    ("creat -s 2m -S|--seed 9 seeded", 0, Same),
    ("creat -s 4k -m|--mode 600 new", 0, Written),
    ("creat -s 4k -u|--uid 1 new", 0, Written),
    ("creat -s 4k -g|--gid 1 new", 0, Written),
    ("creat -s 4k -v|--verbose new", 0, Written),
    ("creat -s 4k -vv new", 0, Written),
    ("creat -s 4m -B|--nbuckets 2 -N|--nstrips 2 -C|--chunksize 2m new", 0, Written),
    ("creat -M|--multi x,4k,1 -M|--multi y,4k", 0, Written),
    ("creat -M|--multi seeded,2m,9", 0, Same),
    ("creat -M x,4k -t|--threadct 2", 0, Written),
    ("creat -M x,4k -t|--threadct 257", 2, Same),
    // verify
    ("verify -S|--seed 7 -f|--filename seeded", 0, Same),
    ("verify -S|--seed 0x7 -f|--file seeded", 0, Same),
    ("verify -S|--seed 8 -f seeded", 1, Same),
    ("verify -m|--multi seeded,7", 0, Same),
    ("verify -m seeded,7 -t|--threadct 2", 0, Same),
    ("verify -q|--quiet -S 8 -f seeded", 1, Same),
    // getmap
    ("getmap one", 0, Same),
    ("getmap -q|--quiet one", 0, Same),
    ("getmap -c|--continue missing one", 9, Same),
    ("getmap", 2, Same),
    // clone
    ("clone -v|--verbose one crossed", 0, Written),
    // Commands that need a mounted famfs, a device or a file of the host.
    ("chkread src/one", 0, Pool::None),
    ("chkread -s|--superblock src/one", 1, Pool::None),
    ("chkread -l|--log src/one", 1, Pool::None),
    ("check -v|--verbose .", 1, Pool::None),
    ("check -vvv .", 1, Pool::None),
    ("check -q|--quiet .", 1, Pool::None),
    ("check", 2, Pool::None),
    ("flush -v|--verbose src/one", 1, Pool::None),
    ("flush -vv src/one", 1, Pool::None),
    ("mkmeta -v|--verbose /dev/null", 1, Pool::None),
    ("mkmeta -vv /dev/null", 1, Pool::None),
    ("mount /dev/no-such-device .", 19, Pool::None),
    ("mount -f|--fuse /dev/no-such-device .", 1, Pool::None),
    ("mount -F|--nofuse /dev/no-such-device .", 19, Pool::None),
    ("mount -S|--shadow x /dev/no-such-device .", 1, Pool::None),
    ("mount -t|--timeout 5 /dev/no-such-device .", 19, Pool::None),
    ("mount -d|--debug /dev/no-such-device .", 19, Pool::None),
    ("mount -v|--verbose /dev/no-such-device .", 19, Pool::None),
    ("mount -vvv /dev/no-such-device .", 19, Pool::None),
    ("mount -u|--nouseraccess /dev/no-such-device .", 19, Pool::None),
    ("mount -p|--nodefaultperm /dev/no-such-device .", 19, Pool::None),
    ("mount -r|--read /dev/no-such-device .", 19, Pool::None),
    ("mount -m|--mmap /dev/no-such-device .", 19, Pool::None),
    ("mount -R|--remount /dev/no-such-device .", 19, Pool::None),
    ("mount -D|--dummy /dev/no-such-device .", 19, Pool::None),
    ("mount -c|--cache none /dev/no-such-device .", 19, Pool::None),
    ("mount -b|--bouncedax /dev/no-such-device .", 19, Pool::None),
    ("logplay .", 1, Pool::None),
    ("logplay -n|--dryrun .", 1, Pool::None),
    ("logplay -v|--verbose .", 1, Pool::None),
    ("logplay -vvv .", 1, Pool::None),
    ("logplay -m|--mmap .", 1, Pool::None),
    ("logplay -r|--read .", 1, Pool::None),
    ("logplay -c|--client .", 1, Pool::None),
    ("logplay -s|--shadowtest .", 1, Pool::None),
    ("logplay -S|--shadow x .", 1, Pool::None),
    ("logplay -d|--daxdev /dev/null", 2, Pool::None),
    ("logplay -n -d|--daxdev /dev/no-such-device", 1, Pool::None),
    ("logplay -?|--help", 0, Pool::None),
    // The program.
    ("--help", 0, Pool::None),
    ("-?", 0, Pool::None),
    ("unknown", 2, Pool::None),
    ("fsck --unknown", 2, Same),
];

fn famfs(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.current_dir(dir).args(args).env_remove("FAMFS_MODE").output().unwrap()
}

/// A directory with a source and a pool of three files.
fn make(dir: &Path) {
    fs::create_dir(dir.join("src")).unwrap();
    fs::write(dir.join("src/one"), "one\n12").unwrap();
    fs::write(dir.join("theirs"), "other\n").unwrap();
    fs::File::create(dir.join("fresh")).unwrap().set_len(24 << 20).unwrap();
    for line in ["mkfs --reference", "cp src/one one", "cp theirs other", "creat -s 2m -S 7 seeded"]
    {
        let words: Vec<&str> = ["--pool", "fresh"].into_iter().chain(line.split(' ')).collect();
        let output = famfs(dir, &words);
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

/// The contents of a pool without the master's lease, which a failing writer takes and releases.
fn contents(pool: &Path) -> Vec<u8> {
    let mut bytes = fs::read(pool).unwrap();
    bytes[0x4000..0x4088].fill(0);
    bytes
}

/// The line with the first or the second spelling of its options.
fn spelled(line: &'static str, long: bool) -> Vec<&'static str> {
    let spell = |word: &'static str| match word.split_once('|') {
        Some((_, word)) if long => word,
        Some((word, _)) => word,
        None => word,
    };
    line.split(' ').map(spell).collect()
}

#[test]
fn every_option_of_the_reference_does_what_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make(dir);
    let fresh = contents(&dir.join("fresh"));
    let pool = dir.join("pool");
    let mut wrong = Vec::new();
    for (line, code, expected) in LINES {
        for long in [false, true] {
            let words = spelled(line, long);
            if long && words == spelled(line, false) {
                continue;
            }
            fs::copy(dir.join("fresh"), &pool).unwrap();
            let mut args = words.clone();
            if *expected != Pool::None {
                args.splice(0..0, ["--pool", "pool"]);
            }
            let output = famfs(dir, &args);
            let same = contents(&pool) == fresh;
            let found = if same { Same } else { Written };
            let expected = if *expected == Pool::None { Same } else { *expected };
            if output.status.code() != Some(*code) || found != expected {
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!("{words:?}: {:?}, {found:?}: {stderr}", output.status.code()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
