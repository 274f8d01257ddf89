// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands on a pool with extensions: what shows them, and what refuses.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the library's tests need more of it")]
#[path = "../../tests/common/formatting.rs"]
mod formatting;
#[allow(dead_code, reason = "the library's tests need more of it")]
#[path = "../../tests/extensions/log.rs"]
mod log;

use std::os::unix::fs::FileExt;
use std::process::Command;

use common::Pool;
use famfs::format::extension::{EXTENSIONS_OFFSET, NO_ENTRY};
use famfs::format::piece::Piece;
use famfs::format::{EntryKind, slot_offset};
use famfs::media::Media;
use log::{DEVICE_LEN, ExtendedLog, attributes, dir, file, link, symlink};
use zerocopy::IntoBytes;

/// A pool with something of everything.
fn pool() -> Pool {
    let mut log = ExtendedLog::new(true);
    log.store();
    let slab = log.file(".famfs/0", 1, 0);
    log.file("plain", 1, 0);
    let d = log.name(&dir(NO_ENTRY, b"dir"));
    let pieces = [
        Piece { slot: slab, page: 2, at: 0, pages: 1 },
        Piece { slot: slab, page: 7, at: 9, pages: 2 },
    ];
    let f = log.name(&file(d, b"sp\x01rse", 45_000, &pieces));
    log.name(&file(d, b"empty", 0, &[]));
    log.name(&symlink(NO_ENTRY, b"link", b"no\nwhere"));
    log.push(EntryKind::Link, link(f, NO_ENTRY, b"hard").as_bytes());
    log.push(EntryKind::Attr, attributes(d, 1, 0o700).as_bytes());
    let mut bytes = vec![0; usize::try_from(slot_offset(log.next)).unwrap()];
    log.media.read_at(0, &mut bytes).unwrap();
    Pool::new(&bytes, DEVICE_LEN)
}

/// Exit code, standard output and standard error.
fn famfs(pool: &Pool, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_famfs"))
        .arg("--pool")
        .arg(&pool.path)
        .args(args)
        .output()
        .unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    (output.status.code().unwrap(), out.into_owned(), err.into_owned())
}

/// What a command prints that succeeds.
fn shown(pool: &Pool, args: &[&str]) -> String {
    let (code, out, err) = famfs(pool, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    out
}

#[test]
fn the_tree_is_shown() {
    let pool = pool();
    assert_eq!(
        shown(&pool, &["ls"]),
        "drwx------  1000   100            0 dir\n\
         -rwxr-x---  1000   100            0 dir/empty\n\
         -rwxr-x---  1000   100        45000 dir/sp\\u0001rse\n\
         -rwxr-x---  1000   100        45000 hard\n\
         lrwxr-x---  1000   100            8 link -> no\\nwhere\n\
         -rw-r--r--     0     0      2097152 plain\n"
    );
    assert_eq!(
        shown(&pool, &["ls", "-l", "dir"]),
        "drwx------   1  1000   100            0 1969-12-31T23:59:55.999999999Z dir\n\
         -rwxr-x---   1  1000   100            0 1969-12-31T23:59:55.999999999Z dir/empty\n\
         -rwxr-x---   2  1000   100        45000 1969-12-31T23:59:55.999999999Z dir/sp\\u0001rse\n"
    );
    assert_eq!(
        shown(&pool, &["ls", "-l", "plain"]),
        "-rw-r--r--   1     0     0      2097152 -                              plain\n"
    );
    assert_eq!(
        shown(&pool, &["tree"]),
        "/\n\
         ├── dir\n\
         │   ├── empty\n\
         │   └── sp\\u0001rse\n\
         ├── hard\n\
         ├── link -> no\\nwhere\n\
         └── plain\n\n\
         1 directory, 5 files\n"
    );
    assert_eq!(
        shown(&pool, &["stat", "hard", "dir"]),
        "hard: file of 45000 bytes, 12288 allocated\n  \
           mode 0750, user 1000, group 100\n  \
           log slot 7\n  \
           changed 1969-12-31T23:59:55.999999999Z\n  \
           2 names of what slot 4 made\n  \
           byte 0x0: offset 0xa02000, length 0x1000\n  \
           byte 0x9000: offset 0xa07000, length 0x2000\n\
         dir: directory\n  \
           mode 0700, user 1000, group 100\n  \
           log slot 3\n  \
           changed 1969-12-31T23:59:55.999999999Z\n"
    );
    assert_eq!(
        shown(&pool, &["du"]),
        "       2109440        2142152  /\n         12288          45000  dir\n"
    );
    let fsck = shown(&pool, &["fsck"]);
    let lines = "  3 files, 1 directories\n  \
                 1 symbolic links, 6 names, 6 log entries of extensions\n  \
                 store: 1 files of 2097152, used 12288, free 2084864, free after famfs compact 0\n";
    assert!(fsck.contains(lines), "{fsck}");
}

#[test]
fn every_byte_is_dumped() {
    let dump = shown(&pool(), &["dump"]);
    let from = dump.find("mark of extensions").unwrap();
    let mark = &dump[from..from + dump[from..].find("\n\n").unwrap()];
    let fields: Vec<Vec<&str>> = mark
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().skip(1).take(3).collect())
        .collect();
    assert_eq!(
        fields,
        [
            ["8", "magic", "0x54584553464d4146"],
            ["4", "version", "1"],
            ["4", "pad", "zero"],
            ["16", "fs_uuid", "00000000-0000-0000-0000-000000000001"],
            ["8", "crc", fields[4][2]],
        ]
    );
    let from = dump.find("log slot 4 ").unwrap();
    let slot = &dump[from..from + dump[from..].find("\n\n").unwrap()];
    let fields: Vec<String> = slot
        .lines()
        .filter(|line| line.starts_with("  0x"))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().skip(2).collect();
            let words = words.iter().take_while(|word| !word.starts_with('['));
            words.copied().collect::<Vec<&str>>().join(" ")
        })
        .filter(|line| !line.starts_with("crc"))
        .collect();
    assert_eq!(
        fields,
        [
            "seqnum 4",
            "kind 1162690894 (name)",
            "pad zero",
            "parent 3",
            "size 45000",
            "mtime_sec -5",
            "mtime_nsec 999999999",
            "kind 1 (file)",
            "uid 1000",
            "gid 100",
            "mode 0750",
            "place 0 (entry)",
            "count 2",
            "pad zero",
            "name \"sp\\u0001rse\"",
            "tail.pieces[0].slot 1",
            "tail.pieces[0].page 2",
            "tail.pieces[0].at 0",
            "tail.pieces[0].pages 1",
            "tail.pieces[1].slot 1",
            "tail.pieces[1].page 7",
            "tail.pieces[1].at 9",
            "tail.pieces[1].pages 2",
            "tail.pieces[2..6] zero",
            "tail.rest zero",
        ]
    );
}

/// One damaged byte in the mark must not make files vanish in silence.
#[test]
fn a_lost_mark_is_an_error_of_all_commands_and_restored_by_one() {
    let pool = pool();
    let before = shown(&pool, &["ls", "-l"]);
    let device = std::fs::OpenOptions::new().write(true).open(&pool.path).unwrap();
    device.write_all_at(b"x", EXTENSIONS_OFFSET).unwrap();
    drop(device);
    let dir = tempfile::tempdir().unwrap();
    let [out, archive] = ["out", "x.tar"].map(|name| dir.path().join(name).display().to_string());
    let commands: [&[&str]; 12] = [
        &["fsck"],
        &["doctor"],
        &["ls"],
        &["tree"],
        &["sum"],
        &["export", "-o", &archive],
        &["cp", "--out", "-r", "/", &out],
        &["mkdir", "new"],
        &["mkdir", "--dry-run", "new"],
        &["rm", "-r", ".famfs"],
        &["cp", "-r", "src", "/"],
        &["compact"],
    ];
    for args in commands {
        let (code, out, err) = famfs(&pool, args);
        assert_eq!(code, 1, "{args:?}: {out}{err}");
        assert!((out + &err).contains("`famfs upgrade` restores the mark"), "{args:?}: {err}");
    }
    let (_, out, err) = famfs(&pool, &["ls"]);
    assert!(err.contains("all that 6 log entries of extensions made or changed"), "{out}{err}");
    assert!(shown(&pool, &["upgrade", "--dry-run"]).contains("would restore the mark"));
    assert!(shown(&pool, &["upgrade"]).contains("the mark of extensions is restored"));
    assert_eq!(shown(&pool, &["ls", "-l"]), before);
    assert!(shown(&pool, &["fsck"]).contains("clean"));
}
