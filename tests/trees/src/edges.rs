// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is at the edge of what a file system can hold.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::plant::Plant;
use crate::tree::Time;

const UNIT: usize = 2 << 20;

/// The bytes that a name may have.
fn name_bytes() -> impl Iterator<Item = u8> {
    (1..=255).filter(|byte| *byte != b'/')
}

/// Names with every byte, of every length, and such as differ in little only.
pub fn names(plant: &Plant) -> Result<()> {
    for byte in name_bytes().filter(|byte| *byte != b'.') {
        plant.file([b"bytes/".as_slice(), &[byte]].concat(), [byte])?;
        plant.dir([b"dirs/".as_slice(), &[byte, b'd']].concat())?;
    }
    plant.file([b"all/".to_vec(), name_bytes().collect()].concat(), "every byte")?;
    for length in [79, 80, 200, 254, 255] {
        plant.file(format!("lengths/{}", "f".repeat(length)), "long")?;
        plant.symlink(format!("lengths/{}", "l".repeat(length)), "f".repeat(length))?;
        plant.file(format!("lengths/{}/inside", "d".repeat(length)), "long")?;
    }
    // 255 bytes of letters of three bytes each.
    plant.file(format!("lengths/{}", "語".repeat(85)), "long")?;
    for name in ["Name", "name", "NAME", "n\u{e4}me", "na\u{308}me", "name ", " name", "name."] {
        plant.file(format!("alike/{name}"), name)?;
    }
    for name in ["-rf", "--", "...", "..a", ".hidden", "*", "~", "$HOME", "a\nb", "a\\b", "C:"] {
        plant.file(format!("odd/{name}"), name)?;
    }
    Ok(())
}

/// 60 levels, and paths of 4,000 bytes.
pub fn deep(plant: &Plant) -> Result<()> {
    let mut path = String::from("levels");
    for level in 1..60 {
        path.push_str(&format!("/level {level}"));
        plant.file(format!("{path}/file"), path.as_bytes())?;
    }
    plant.symlink(format!("{path}/link"), "../".repeat(59) + "level 1/file")?;

    let long = [format!("long/{}", "a".repeat(234)), vec!["b".repeat(249); 15].join("/")].join("/");
    debug_assert_eq!(long.len(), 3989);
    plant.file(format!("{long}/file as deep"), "deep")?;
    plant.file(format!("{long}/second.txt"), "deep")?;
    plant.symlink(format!("{long}/link.a.txt"), "second.txt")?;
    plant.link(format!("{long}/hard-link"), format!("{long}/second.txt"))?;
    plant.dir(format!("{long}/empty"))
}

/// Links of both kinds to all kinds of things.
pub fn links(plant: &Plant) -> Result<()> {
    plant.random("dir/file", 10_000)?;
    plant.link("dir/same", "dir/file")?;
    plant.link("other/dir/same", "dir/file")?;
    plant.link("a first name", "dir/file")?;
    plant.file("dir/empty", "")?;
    plant.link("other/empty", "dir/empty")?;
    plant.random("dir/large", UNIT + 5)?;
    plant.link("other/large", "dir/large")?;
    plant.symlink("dir/link", "file")?;
    plant.link("other/same link", "dir/link")?;
    for number in 0..100 {
        plant.link(format!("many/{number}"), "dir/same")?;
    }
    for (name, target) in [
        ("dangling", "nowhere"),
        ("absolute", "/etc/hostname"),
        ("self", "self"),
        ("loop a", "loop b"),
        ("loop b", "loop a"),
        ("up", "../.."),
        ("dot", "."),
        ("to dir", "dir/"),
        ("through", "to dir/link"),
        ("odd", "a\\b\n\u{fc} \t//c/./d"),
    ] {
        plant.symlink(format!("symbolic/{name}"), target)?;
    }
    plant.symlink("symbolic/not UTF-8", b"\xff\xfe/\x80")?;
    for length in [79, 80, 255, 256, 400, 520, 4095] {
        plant.symlink(format!("symbolic/{length}"), "t".repeat(length))?;
    }
    Ok(())
}

/// Sizes around pages and units, modes, and what is empty.
pub fn sizes(plant: &Plant) -> Result<()> {
    for size in [0, 1, 511, 4095, 4096, 4097, 8192, UNIT - 4096, UNIT - 1, UNIT, UNIT + 1] {
        plant.random(format!("of {size}"), size)?;
    }
    plant.random("three units and a bit", 3 * UNIT + 5)?;
    plant.file("zeros", vec![0; 3 * 4096])?;
    plant.file("zeros behind", [vec![1; 4096], vec![0; UNIT]].concat())?;
    plant.dir("empty")?;
    plant.dir("empties/a/b/c")?;
    for mode in [0o400, 0o444, 0o600, 0o644, 0o711, 0o755, 0o777, 0o4755, 0o2755, 0o6711] {
        plant.file(format!("modes/file {mode:o}"), "mode")?;
        plant.mode(format!("modes/file {mode:o}"), mode);
    }
    for mode in [0o500, 0o555, 0o700, 0o711, 0o750, 0o777, 0o1777, 0o2755] {
        plant.file(format!("modes/dir {mode:o}/inside/file"), "mode")?;
        plant.mode(format!("modes/dir {mode:o}"), mode);
    }
    for (user, group) in [(0, 1000), (1000, 1000), (65_534, 65_534), (4_000_000_000, 3)] {
        let name = format!("owners/{user} {group}");
        plant.file(&name, "owner")?;
        plant.owner(&name, user, group)?;
        plant.dir(format!("{name} dir"))?;
        plant.owner(format!("{name} dir"), user, group)?;
        plant.symlink(format!("{name} link"), "/")?;
        plant.owner(format!("{name} link"), user, group)?;
    }
    Ok(())
}

/// Modification times of files, directories and links.
pub fn times(plant: &Plant) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    for (name, seconds, nanoseconds) in [
        ("1901", -2_147_483_648, 0),
        ("1969", -1, 999_999_999),
        ("1970", 0, 0),
        ("1970 and a bit", 0, 1),
        ("2026", 1_790_000_000, 123_456_789),
        ("2038", 2_147_483_648, 500_000_000),
        ("2100", 4_102_444_800, 123_456_789),
        ("now", i64::try_from(now.as_secs())?, now.subsec_nanos()),
    ] {
        let time = Time { seconds, nanoseconds };
        plant.file(format!("{name}/file"), name)?;
        plant.symlink(format!("{name}/link"), "file")?;
        plant.dir(format!("{name}/dir"))?;
        for path in [format!("{name}/file"), format!("{name}/link"), format!("{name}/dir")] {
            plant.time(path, time);
        }
        plant.time(name, time);
    }
    Ok(())
}
