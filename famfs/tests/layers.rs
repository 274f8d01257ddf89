// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The library's folders import downwards only, and only `sys` has unsafe code.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/layers.rs"]
mod layers;

use std::path::Path;

use layers::Layers;

/// The folders from the bottom up; a folder may use those before it.
const ORDER: &[&str] = &[
    "text", "format", "sys", "system", "media", "store", "replay", "write", "kernel", "archive",
    "guest",
];

fn library() -> Layers {
    Layers::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "famfs", ORDER)
}

#[test]
fn folders_import_downwards_only() {
    let library = library();
    assert_eq!(library.upward(), None, "of {ORDER:?} each may use those before it");
    println!("{} arrows between folders", library.between_folders());
}

#[test]
fn files_form_no_circle() {
    assert_eq!(library().circle(), None);
}

#[test]
fn every_folder_has_its_place() {
    assert_eq!(library().folders(), ORDER.iter().copied().collect());
}

/// The crate's documentation begins with the folders, in this order.
#[test]
fn the_documentation_lists_the_folders() {
    let library = library();
    let lines = library.texts("").flat_map(str::lines);
    let listed = lines.filter_map(|line| line.strip_prefix("//! * [`")?.split('`').next());
    assert_eq!(listed.collect::<Vec<_>>(), ORDER);
}

#[test]
fn what_must_not_be_is_found() {
    let mut upward = library();
    upward.plant("format::map", "use crate::{store::log::Log, text};\n");
    assert_eq!(upward.upward().as_deref(), Some("format::map uses store::log"));
    let mut library = library();
    library.plant("replay::names", "use super::size;\n");
    library.plant("replay::size", "fn names() { famfs::replay::names::of() }\n");
    let circle = "replay -> replay::names -> replay::size -> replay";
    assert_eq!(library.circle().as_deref(), Some(circle));
}

#[test]
fn only_sys_has_unsafe_code() {
    let library = library();
    for folder in library.folders() {
        for text in library.texts(folder).filter(|text| text.contains("#![allow(unsafe_code)]")) {
            assert_eq!(folder, "sys", "{}", text.lines().nth(1).unwrap_or_default());
        }
    }
    assert!(library.texts("sys").any(|text| text.contains("#![allow(unsafe_code)]")));
}
