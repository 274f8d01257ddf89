// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs dump` on intact and damaged images: every byte is accounted for once, and wrong fields
//! are marked.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/images.rs"]
mod images;

use std::fs;
use std::process::Command;

use common::Pool;
use images::{DEVICE_LEN, image, vector};
use serde_json::Value;

/// Start of the log, which follows the superblock's area.
const LOG_OFFSET: u64 = 2 << 20;

/// Exit code and report.
fn dump(bytes: &[u8], len: u64) -> (Option<i32>, Value) {
    let pool = Pool::new(bytes, len);
    let output = Command::new(env!("CARGO_BIN_EXE_famfs"))
        .arg("--pool")
        .arg(&pool.path)
        .args(["dump", "--json"])
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn damaged(name: &str) -> (Option<i32>, Value) {
    let len = if name == "trunc-4m" { 4 << 20 } else { DEVICE_LEN };
    dump(&image(&format!("bad/{name}.img.zst")), len)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}

/// The wrong fields as "area[slot].field".
fn wrong(report: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for area in report["areas"].as_array().unwrap() {
        let place = match &area["slot"] {
            Value::Null => area["area"].as_str().unwrap().to_owned(),
            slot => format!("slot {slot}"),
        };
        for field in area["fields"].as_array().into_iter().flatten() {
            let expected = &field["expected"];
            if !expected.is_null() && *expected != field["value"] {
                names.push(format!("{place}: {}", field["name"].as_str().unwrap()));
            }
        }
    }
    names
}

#[test]
fn areas_and_fields_follow_each_other() {
    for file in fs::read_dir(vector("bad")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".img.zst") else { continue };
        let (code, report) = damaged(name);
        assert_eq!(code, Some(i32::from(name == "trunc-4m")), "{name}");
        let mut at = number(&report["origin"]);
        for area in report["areas"].as_array().unwrap() {
            assert_eq!(number(&area["offset"]), at, "{name}: {area}");
            let mut field_at = at;
            for field in area["fields"].as_array().into_iter().flatten() {
                assert_eq!(number(&field["offset"]), field_at, "{name}: {field}");
                field_at += number(&field["bytes"]);
            }
            at += number(&area["bytes"]);
            assert!(field_at == at || area["fields"].is_null(), "{name}: {area}");
        }
        assert_eq!(at, LOG_OFFSET + number(&report["log_bytes"]), "{name}");
        let counts = &report["counts"];
        let [slots, published, unpublished, zero] =
            ["slots", "published", "unpublished", "zero"].map(|name| number(&counts[name]));
        if name != "trunc-4m" {
            assert_eq!(slots, published + unpublished + zero, "{name}");
        }
        assert_eq!(number(&counts["wrong_fields"]), wrong(&report).len() as u64, "{name}");
    }
}

#[test]
fn what_is_wrong_is_marked() {
    for (name, expected) in [
        ("00-good", &[][..]),
        ("ent-crc-high", &["slot 7: crc"]),
        ("ent-crc-mid", &["slot 7: crc"]),
        ("ent-seq", &["slot 7: seqnum"]),
        (
            "log-zero-header",
            &["log_header: magic", "log_header: len", "log_header: last_index", "log_header: crc"],
        ),
        ("log-next-index-short", &["log_header: next_seqnum"]),
        ("sb-alloc-unit-4k", &["superblock: alloc_unit"]),
        ("sb-crc-high", &["superblock: crc"]),
        ("sb-magic", &["superblock: magic", "superblock: crc"]),
        ("sb-version-47", &["superblock: version"]),
    ] {
        let found = wrong(&damaged(name).1);
        assert_eq!(found, expected, "{name}");
    }
}

/// Without its superblock a log is found by its header, and a cut device shows what is left.
#[test]
fn the_log_is_found_without_a_superblock() {
    let mut bytes = image("mixed.img.zst");
    assert_eq!(dump(&bytes, DEVICE_LEN).1["log_length_from"], "superblock");
    bytes[..4096].fill(0);
    let (code, report) = dump(&bytes, DEVICE_LEN);
    assert_eq!((code, &report["log_length_from"]), (Some(0), &"log_header".into()));
    assert_eq!(report["counts"]["published"], 18);
    let (code, report) = dump(&[], 16 << 20);
    assert_eq!((code, &report["log_length_from"]), (Some(0), &"default".into()));
    let (code, report) = damaged("trunc-4m");
    let last = report["areas"].as_array().unwrap().last().unwrap();
    assert_eq!((code, &last["area"]), (Some(1), &"unreadable".into()));
    assert_eq!(last["bytes"], report["counts"]["unreadable_bytes"]);
}

/// An interrupted append, and garbage in places without meaning.
#[test]
fn what_readers_do_not_look_at_is_shown_too() {
    let report = damaged("log-next-index-short").1;
    assert_eq!(report["counts"]["published"], 10);
    assert_eq!(report["counts"]["unpublished"], 8);
    let mut bytes = image("empty.img.zst");
    bytes.resize(usize::try_from(LOG_OFFSET + (8 << 20)).unwrap(), 0);
    bytes[300] = 1;
    bytes[4096..5000].fill(0xee);
    *bytes.last_mut().unwrap() = 1;
    let report = dump(&bytes, DEVICE_LEN).1;
    let unused: Vec<&Value> = report["areas"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|area| area["area"] == "unused")
        .collect();
    assert_eq!([&unused[0]["not_zero"], &unused[1]["not_zero"]], [905, 1]);
    assert_eq!([&unused[0]["first"], &unused[0]["last"]], [300, 4999]);
}
