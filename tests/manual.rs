// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks famfs(5), docs/reference/kernel-module.md and dkms.conf against the source: each must
//! document what the source has.

// Outside the test functions too, a failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The C sources of the module, concatenated.
fn module() -> String {
    let mut text = String::new();
    for entry in root().join("kmod").read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "c" || e == "h") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// The words of a text: letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// The names of errors in a text.
fn errors(text: &str) -> BTreeSet<&str> {
    words(text)
        .filter(|word| word.len() > 2 && word.starts_with('E'))
        .filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()))
        .filter(|word| is_error(word))
        .collect()
}

/// Whether a word is the name of an error that file systems use.
fn is_error(word: &str) -> bool {
    // File-system errors from the kernel's asm-generic/errno-base.h and errno.h.
    const NAMES: &str = "EPERM ENOENT EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT ENOTBLK \
         EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG \
         ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE ENOSYS ENOTEMPTY ENODATA EOVERFLOW \
         EOPNOTSUPP EHWPOISON ESTALE EDQUOT";
    NAMES.split_whitespace().any(|name| name == word)
}

/// The errors that the module's source returns.
fn returned(source: &str) -> BTreeSet<&str> {
    let names: BTreeSet<&str> =
        source.match_indices("-E").flat_map(|(at, _)| words(&source[at + 1..]).next()).collect();
    names.into_iter().filter(|name| is_error(name)).collect()
}

#[test]
fn every_error_is_documented_and_no_other() {
    let source = module();
    let real = returned(&source);
    assert!(real.len() > 15, "too few errors found: {real:?}");
    for (name, text) in [
        ("famfs(5)", read("docs/reference/famfs.5")),
        ("kernel-module.md", read("docs/reference/kernel-module.md")),
    ] {
        let told = errors(&text);
        let missing: Vec<_> = real.difference(&told).collect();
        let invented: Vec<_> = told.difference(&real).collect();
        assert!(missing.is_empty(), "{name} does not tell of {missing:?}");
        assert!(invented.is_empty(), "{name} tells of {invented:?}, which no source has");
    }
}

#[test]
fn every_mount_option_is_documented() {
    let source = read("kmod/super.c");
    let options: Vec<_> = source
        .split("fsparam_")
        .skip(1)
        .filter_map(|rest| {
            let (kind, rest) = rest.split_once("(\"")?;
            let (name, _) = rest.split_once('"')?;
            // Flags have no value.
            Some(if kind.starts_with("flag") { name.to_owned() } else { format!("{name}=") })
        })
        .collect();
    assert!(options.len() >= 3, "too few options found: {options:?}");
    let page = read("docs/reference/famfs.5");
    for option in options {
        let is_entry = |line: &str| {
            line.starts_with(".B") && line.split([' ', ',']).any(|word| word.starts_with(&option))
        };
        assert!(page.lines().any(is_entry), "famfs(5) has no entry for {option}");
    }
}

#[test]
fn every_counter_and_tracepoint_is_documented() {
    let counters = read("kmod/counters.c");
    let trace = read("kmod/trace.h");
    let named = |text: &str, before: &str| -> Vec<String> {
        let rest = text.split(before).skip(1);
        rest.filter_map(|r| words(r).next().map(str::to_owned)).filter(|w| !w.is_empty()).collect()
    };
    let mut names = named(&counters, "= __ATTR_RW(");
    names.extend(named(&counters, "= __ATTR_RO("));
    names.extend(named(&trace, "TRACE_EVENT("));
    assert_eq!(names.len(), 6, "{names:?}");
    for document in ["docs/reference/famfs.5", "docs/reference/kernel-module.md"] {
        let text = read(document);
        for name in &names {
            assert!(words(&text).any(|word| word == name), "{document} does not name {name}");
        }
    }
}

#[test]
fn the_tables_name_every_source_and_test() {
    let text = read("docs/inside/kernel-module.md");
    let sources = root().join("kmod").read_dir().unwrap();
    let tests = root().join("kmod/tests").read_dir().unwrap();
    for path in sources.chain(tests).map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|e| e == "c") {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                text.contains(&format!("`{name}`")),
                "docs/inside/kernel-module.md has no `{name}`"
            );
        }
    }
}

#[test]
fn dkms_has_the_version_of_the_project() {
    let conf = read("kmod/dkms.conf");
    let version = format!("PACKAGE_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(conf.lines().any(|line| line == version), "kmod/dkms.conf has no {version}");
}
