// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares the kernel header with its Rust mirror: a C program prints what the compiler makes of
//! `kmod/uapi/famfs_ioctl.h`.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use famfs::format::{ALLOC_UNIT, MAX_EXTENTS};
use famfs::sys::ioctl::{
    EDIT, EXTENT_INTERLEAVED, EXTENT_SIMPLE, ExtentV42, FileType, Fmap, GET_PIECES, GetFmap,
    GetInterleaved, InterleavedExtent, MAP_CREATE_V42, MAP_CREATE_V43, MAP_GET_V42, MAP_GET_V43,
    MAP_PIECES, MAX_PIECES, MapV42, NOP, PAGE, Piece, Pieces, SimpleExtent,
};

/// Name and value of everything that the probe prints.
fn header() -> BTreeMap<String, u64> {
    let kmod = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kmod");
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("uapi_probe");
    let compiled = Command::new("cc")
        .args(["-Wall", "-Werror", "-I"])
        .arg(kmod.join("uapi"))
        .arg("-o")
        .arg(&program)
        .arg(kmod.join("tests/uapi_probe.c"))
        .status()
        .unwrap();
    assert!(compiled.success(), "cc: {compiled}");
    let output = Command::new(&program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// The same names with the values of the mirror.
fn mirror() -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    let mut put = |name: &str, value: u64| assert_eq!(values.insert(name.to_owned(), value), None);

    macro_rules! layout {
        ($name:literal = $type:ty { $($field:ident),* }) => {
            put(concat!("sizeof.", $name), size_of::<$type>() as u64);
            $(put(
                concat!("offsetof.", $name, ".", stringify!($field)),
                offset_of!($type, $field) as u64,
            );)*
        };
    }

    layout!("famfs_extent" = ExtentV42 { offset, len });
    layout!(
        "famfs_ioc_map" = MapV42 { extent_type, file_type, file_size, ext_list_count, ext_list }
    );
    layout!("famfs_ioc_simple_extent" = SimpleExtent { devindex, offset, len });
    layout!(
        "famfs_ioc_interleaved_extent" = InterleavedExtent { nstrips, chunk_size, nbytes, strips }
    );
    layout!(
        "famfs_ioc_fmap" = Fmap { file_size, file_type, ext_type, nextents, reserved, extents }
    );
    layout!("famfs_ioc_get_fmap" = GetFmap { fmap });
    layout!("famfs_ioc_piece" = Piece { file_offset, offset, len });
    layout!("famfs_ioc_pieces" = Pieces { file_size, count, reserved, pieces });
    // The header's arms of the union are anonymous.
    let union = offset_of!(GetFmap, extents) as u64;
    let interleaved = union + offset_of!(GetInterleaved, interleaved) as u64;
    let strips = union + offset_of!(GetInterleaved, strips) as u64;
    put("offsetof.famfs_ioc_get_fmap.simple", union);
    put("offsetof.famfs_ioc_get_fmap.interleaved", interleaved);
    put("offsetof.famfs_ioc_get_fmap.strips", strips);

    put("FAMFS_PAGE", PAGE);
    put("FAMFS_ALIGN", ALLOC_UNIT);
    put("FAMFS_V42_MAX_EXTENTS", MapV42::default().ext_list.len() as u64);
    put("FAMFS_MAX_EXTENTS", MAX_EXTENTS as u64);
    put("FAMFS_MAX_STRIPS", GetInterleaved::default().strips.len() as u64);
    put("FAMFS_MAX_PIECES", MAX_PIECES as u64);
    put("FAMFS_FILE_REGULAR", FileType::Regular as u64);
    put("FAMFS_FILE_SUPERBLOCK", FileType::Superblock as u64);
    put("FAMFS_FILE_LOG", FileType::Log as u64);
    put("FAMFS_EXTENT_SIMPLE", EXTENT_SIMPLE.into());
    put("FAMFS_EXTENT_INTERLEAVED", EXTENT_INTERLEAVED.into());
    put("FAMFSIOC_MAP_CREATE", MAP_CREATE_V42.into());
    put("FAMFSIOC_MAP_GET", MAP_GET_V42.into());
    put("FAMFSIOC_NOP", NOP.into());
    put("FAMFSIOC_MAP_CREATE_V2", MAP_CREATE_V43.into());
    put("FAMFSIOC_MAP_GET_V2", MAP_GET_V43.into());
    put("FAMFSIOC_EDIT", EDIT.into());
    put("FAMFSIOC_MAP_PIECES", MAP_PIECES.into());
    put("FAMFSIOC_GET_PIECES", GET_PIECES.into());
    values
}

/// What the tools do not need.
const NOT_MIRRORED: [&str; 2] = ["FAMFSIOC_MAP_GETEXT", "FAMFS_STATFS_MAGIC"];

#[test]
fn header_and_mirror_agree() {
    let mut header = header();
    for name in NOT_MIRRORED {
        assert!(header.remove(name).is_some(), "{name} is gone from the header");
    }
    assert_eq!(header, mirror());
}
