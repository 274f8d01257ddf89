// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Damaged images: each gives a clear error or is tolerated. What comes before the damage, or is
//! not touched by it, stays usable.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/images.rs"]
mod images;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::Pool;
use images::{DEVICE_LEN, image, vector};
use serde_json::Value;

/// Files and directories of the undamaged image.
const ALL: usize = 17;
const CLEAN: &str = "clean";

/// The effects of one image.
struct Case {
    image: &'static str,
    /// Files and directories that stay usable.
    usable: usize,
    /// Whether files can be added.
    writable: bool,
    /// What fsck says.
    message: &'static str,
}

const fn case(image: &'static str, usable: usize, writable: bool, message: &'static str) -> Case {
    Case { image, usable, writable, message }
}

const YES: bool = true;
const NO: bool = false;

#[rustfmt::skip]
const CASES: [Case; 31] = [
    case("00-good", ALL, YES, CLEAN),
    case("ent-crc-high", 7, NO, "log slot 7 at 0x200f10: checksum 0x100cc11af18, expected 0xcc11af18"),
    case("ent-crc-mid", 7, NO, "log slot 7 at 0x200f10: checksum"),
    case("ent-ext-end", ALL - 1, YES, "log slot 7 at 0x200f10: \"dir1/au_plus_1\": extent 0 is 4194304 bytes at 0x1000000000, expected within 0xa00000..0x1000000000"),
    case("ent-ext-len-huge", ALL - 1, YES, "extent 0 is 4611686018427387904 bytes at 0x1000000"),
    case("ent-ext-off0", ALL - 1, YES, "extent 0 is 4194304 bytes at 0x0, expected within"),
    case("ent-ext-type", ALL - 1, YES, "extent type is 9, expected 0 (simple) or 1 (interleaved)"),
    case("ent-half", 16, NO, "log slot 17 at 0x202450: checksum"),
    case("ent-next-17", ALL - 1, YES, "extent count is 17, expected 1 to 16"),
    case("ent-path-abs", ALL - 1, YES, "path \"/etc/passwd\" is absolute"),
    case("ent-path-dup", ALL - 1, YES, "log slot 7 at 0x200f10: \"one\": it already exists, from log slot 4"),
    case("ent-path-nonul", ALL - 1, YES, "is not terminated by one NUL"),
    case("ent-seq", 7, NO, "log slot 7 at 0x200f10: sequence number 0x63, expected 0x7"),
    case("ent-size-zero", ALL - 1, YES, "file size is 0, expected at least 1"),
    case("ent-type-7", ALL - 1, YES, CLEAN),
    case("il-chunk-0", ALL - 1, YES, "chunk size is 0, expected a power of two"),
    case("il-niext-2", ALL - 1, YES, "interleaved extent count is 2, expected 1 to 1"),
    case("il-nstrips-17", ALL - 1, YES, "strip count is 17, expected 1 to 16"),
    case("log-last-index", 0, NO, "log header at 0x200000: checksum"),
    case("log-next-index-huge", ALL, NO, "log slot 18 at 0x202670: checksum 0x0, expected"),
    case("log-next-index-short", 10, YES, "complete entries from slot 10 on are not published"),
    case("log-zero-header", 0, NO, "log header at 0x200000: magic 0x0, expected 0xbadcafef00d"),
    case("md-mode", 12, YES, "is absolute"),
    case("sb-alloc-unit-4k", 0, NO, "superblock: allocation unit is 4096, expected 2097152"),
    case("sb-crc-high", 0, NO, "superblock: checksum"),
    case("sb-devsize-zero", ALL, NO, "superblock: device size is 0, expected the real size"),
    case("sb-loglen", 0, NO, "log header at 0x200000: length 0x800000, expected 0x1000000"),
    case("sb-magic", 0, NO, "no famfs superblock: magic 0x0"),
    case("sb-omf-minor-99", ALL, YES, CLEAN),
    case("sb-version-47", 0, NO, "superblock: version is 47, expected 48"),
    case("trunc-4m", 0, NO, "the log ends at 10485760, but the device has only 4194304 bytes"),
];

struct Run {
    code: i32,
    text: String,
}

fn famfs(pool: &Pool, args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_famfs"))
        .arg("--pool")
        .arg(&pool.path)
        .args(args)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    Run { code: output.status.code().expect("ended by a signal"), text }
}

fn pool(name: &str) -> Pool {
    let bytes = image(&format!("bad/{name}.img.zst"));
    let len = if name == "trunc-4m" { 4 << 20 } else { DEVICE_LEN };
    Pool::new(&bytes, len)
}

#[test]
fn every_image_has_its_case() {
    let images: BTreeSet<String> = fs::read_dir(vector("bad"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".img.zst").map(str::to_owned))
        .collect();
    let cases: BTreeSet<String> = CASES.iter().map(|case| case.image.to_owned()).collect();
    assert_eq!(images, cases);
}

#[test]
fn fsck_names_the_damage() {
    for Case { image, message, .. } in CASES {
        let run = famfs(&pool(image), &["fsck"]);
        assert!(run.text.contains(message), "{image}:\n{}", run.text);
        let tolerated = message == CLEAN || image == "log-next-index-short";
        assert_eq!(run.code, if tolerated { 0 } else { 1 }, "{image}:\n{}", run.text);
    }
}

/// Whatever cannot be read at all: the error names the pool, and a way out.
#[test]
fn damage_is_named_with_the_pool_and_a_way_out() {
    for image in ["sb-crc-high", "sb-alloc-unit-4k", "log-zero-header", "log-last-index"] {
        let pool = pool(image);
        for args in [&["fsck"][..], &["ls"], &["mkdir", "new"], &["compact"], &["upgrade"]] {
            let run = famfs(&pool, args);
            assert_eq!(run.code, 1, "{image} {args:?}:\n{}", run.text);
            let named = format!("pool {}: ", pool.path.display());
            assert!(run.text.contains(&named), "{image} {args:?}:\n{}", run.text);
            assert!(run.text.contains("restore the pool from a copy"), "{image}:\n{}", run.text);
        }
        let run = famfs(&pool, &["doctor"]);
        assert!(run.text.contains("restore the pool from a copy"), "{image}:\n{}", run.text);
        assert!(!run.text.contains(" fsck"), "{image}:\n{}", run.text);
    }
}

/// Where any of the reference's checks failed or crashed, ours reports a problem.
#[test]
fn fsck_finds_at_least_what_the_reference_finds() {
    let recorded: Value =
        serde_json::from_slice(&fs::read(vector("bad/expected.json")).unwrap()).unwrap();
    let recorded = recorded.as_array().unwrap();
    assert_eq!(recorded.len(), CASES.len());
    for record in recorded {
        let image = record["image"].as_str().unwrap().strip_suffix(".img.zst").unwrap();
        let checks = record["reference"].as_object().unwrap();
        let failed = |(name, result): (&String, &Value)| name != "role" && result != "rc=0";
        if checks.iter().any(failed) {
            let run = famfs(&pool(image), &["fsck"]);
            assert_eq!(run.code, 1, "{image}: {checks:?}\n{}", run.text);
        }
    }
}

#[test]
fn what_is_not_damaged_is_listed() {
    for Case { image, usable, .. } in CASES {
        let run = famfs(&pool(image), &["ls"]);
        let listed = run.text.lines().filter(|line| line.starts_with(['-', 'd'])).count();
        assert_eq!(listed, usable, "{image}:\n{}", run.text);
    }
}

/// File "one" has slot 4, which precedes every damage that leaves anything.
#[test]
fn files_before_the_damage_are_read() {
    for Case { image, usable, .. } in CASES {
        let pool = pool(image);
        for command in ["cat", "stat"] {
            let run = famfs(&pool, &[command, "one"]);
            assert_eq!(run.code, i32::from(usable == 0), "{image} {command}:\n{}", run.text);
        }
    }
}

/// After a damaged entry it is unknown which memory is taken, so nothing is added.
#[test]
fn only_an_intact_log_is_written() {
    for Case { image, writable, .. } in CASES {
        let run = famfs(&pool(image), &["mkdir", "new"]);
        assert_eq!(run.code, if writable { 0 } else { 1 }, "{image}:\n{}", run.text);
    }
}

/// An append that was interrupted between its last two stores is completed by the next one.
#[test]
fn an_interrupted_append_is_completed() {
    let pool = pool("log-next-index-short");
    assert_eq!(famfs(&pool, &["mkdir", "new"]).code, 0);
    let run = famfs(&pool, &["ls"]);
    assert_eq!(run.text.lines().count(), ALL + 1, "{}", run.text);
    assert!(famfs(&pool, &["fsck"]).text.contains(CLEAN));
}
