// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The library's folders import downwards only, and only `sys` has unsafe code.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/layers.rs"]
mod layers;

use std::path::Path;

use layers::Layers;

/// The folders from the bottom up; a folder may use those before it.
const ORDER: [&str; 11] = [
    "text",    // what people and programs read
    "format",  // what the bytes mean; no I/O
    "sys",     // unsafe code
    "system",  // this machine: processes, mounts, locks
    "media",   // reaching bytes
    "store",   // superblock, log, space, who may write
    "replay",  // what the log means as a whole
    "write",   // adding files
    "kernel",  // a file system of the kernel
    "archive", // tar archives, in and out
    "guest",   // a guest's devices
];

fn library() -> Layers {
    Layers::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "famfs", &ORDER)
}

#[test]
fn folders_import_downwards_only() {
    let faults = library().faults();
    assert!(faults.is_empty(), "{faults:#?}");
    println!("{} arrows between folders", library().between_folders());
}

/// The crate's documentation begins with the folders, in this order.
#[test]
fn the_documentation_lists_the_folders() {
    let library = library();
    let lines = library.texts("lib").flat_map(str::lines);
    let listed = lines.filter_map(|line| line.strip_prefix("//! * [`")?.split('`').next());
    assert_eq!(listed.collect::<Vec<_>>(), ORDER);
}

#[test]
fn planted_faults_are_found() {
    layers::planted_faults_are_found();
}

#[test]
fn only_sys_has_unsafe_code() {
    let library = library();
    for folder in ORDER {
        for text in library.texts(folder).filter(|text| text.contains("#![allow(unsafe_code)]")) {
            assert_eq!(folder, "sys", "{}", text.lines().nth(1).unwrap_or_default());
        }
    }
    assert!(library.texts("sys").any(|text| text.contains("#![allow(unsafe_code)]")));
}
