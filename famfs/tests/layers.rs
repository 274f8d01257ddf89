// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The library's modules import downwards only, and only `sys` has unsafe code.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::path::Path;

/// Modules from the bottom up; a module may use those before it. The layers of the design, in
/// an order that also forbids circles within a layer.
const ORDER: &[&str] = &[
    // What is said to people and programs.
    "error_report",
    "json_name",
    "terminal",
    "units",
    // What the bytes mean; no I/O.
    "format",
    "path",
    "names",
    "prng",
    "map",
    "fields",
    // Reaching bytes.
    "ownership",
    "view",
    "sys::cache",
    "sys::dax",
    "sys::signal",
    "holders",
    "lock",
    "media",
    "memory",
    // What the media holds.
    "superblock",
    "log",
    "alloc",
    "mkfs",
    "role",
    "lease",
    "takeover",
    // What it means as a whole.
    "replay",
    "size",
    "unsupported",
    "dropped",
    "compression",
    "tar_reader",
    "archive",
    "pack",
    "check",
    "compact",
    "dump",
    "picture",
    "sys::ioctl",
    "sys::mount_attr",
    // Acting on a file system.
    "mounts",
    "volume",
    "stream",
    "beneath",
    "output_file",
    "mount",
    "apply",
    "backlog",
    "play",
    "follow",
    "watcher",
    "writer",
    "transfer",
    "sources",
    "copy",
    "compare",
    "extract",
    "import",
    "export",
    "guest",
    "arrivals",
    "search",
    "faults",
];
/// The command line knows nothing but values.
const ALONE: &str = "args";

/// The source of a module, and of all modules inside it.
fn source(module: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module.replace("::", "/"));
    let file = path.with_extension("rs");
    let text = fs::read_to_string(&file).unwrap_or_else(|err| panic!("{}: {err}", file.display()));
    text + &sources_in(&path)
}

fn sources_in(dir: &Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return String::new() };
    let text = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { sources_in(&path) } else { fs::read_to_string(&path).unwrap() }
    });
    text.collect()
}

/// Modules that a source file names behind `crate::`.
fn imports(source: &str) -> Vec<&'static str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    let names = code.split("crate::").skip(1).map(|rest| {
        ORDER
            .iter()
            .copied()
            .chain(["sys", ALONE])
            .filter(|name| rest.starts_with(name))
            .max_by_key(|name| name.len())
            .unwrap_or_else(|| panic!("unknown module: crate::{}", &rest[..rest.len().min(20)]))
    });
    names.collect()
}

#[test]
fn modules_import_downwards_only() {
    for (rank, module) in ORDER.iter().copied().enumerate() {
        for import in imports(&source(module)) {
            let below = ORDER[..rank].contains(&import);
            assert!(below, "{module} uses {import}, which is not below it");
        }
    }
    assert_eq!(imports(&source(ALONE)), [""; 0]);
}

#[test]
fn every_module_has_its_place() {
    let lib = source("lib") + &source("sys/mod");
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let name = line.trim_end_matches(';');
        let known = [name.to_owned(), format!("sys::{name}")];
        let placed = known.iter().any(|name| ORDER.contains(&name.as_str()));
        assert!(placed || name == ALONE || name == "sys", "{name} has no place in ORDER");
    }
}

#[test]
fn only_sys_has_unsafe_code() {
    for module in ORDER.iter().copied().chain([ALONE]) {
        let allowed = source(module).contains("#![allow(unsafe_code)]");
        assert_eq!(allowed, module.starts_with("sys::"), "{module}");
    }
}
