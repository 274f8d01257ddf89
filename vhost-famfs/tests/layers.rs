// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folders of this crate import downwards only, and no files form a circle.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../famfs/tests/common/layers.rs"]
mod layers;

use std::path::Path;

use layers::Layers;

/// Folders from the bottom up; each may use those before it. `run` belongs to the program, not to
/// the library.
const ORDER: &[&str] = &[
    "bounded_log",
    "wake",
    "host",
    "pool",
    "device",
    "vm",
    "space",
    "cluster",
    "doctor",
    "args",
    "run",
];

fn sources() -> Layers {
    Layers::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "vhost_famfs", ORDER)
}

#[test]
fn folders_import_downwards_only() {
    let sources = sources();
    assert_eq!(sources.upward(), None, "of {ORDER:?} each may use those before it");
    println!("{} arrows between folders", sources.between_folders());
}

#[test]
fn files_form_no_circle() {
    assert_eq!(sources().circle(), None);
}

#[test]
fn every_folder_has_its_place() {
    assert_eq!(sources().folders(), ORDER.iter().copied().collect());
}

#[test]
fn what_must_not_be_is_found() {
    let mut sources = sources();
    sources.plant("pool::kind", "use crate::{host::sys, vm::Vm};\n");
    assert_eq!(sources.upward().as_deref(), Some("pool::kind uses vm"));
    sources.plant("device::pmem", "use super::{durability, queue::Batch};\n");
    let circle = "device::durability -> device::pmem -> device::durability";
    assert_eq!(sources.circle().as_deref(), Some(circle));
}

#[test]
fn only_host_has_unsafe_code() {
    let sources = sources();
    for folder in sources.folders() {
        let is_unsafe = sources.texts(folder).any(|text| text.contains("#![allow(unsafe_code)]"));
        assert_eq!(is_unsafe, folder == "host", "{folder}");
    }
}
