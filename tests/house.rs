// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The house rules that a program can check, over every file that git tracks.

// A failed unwrap is a failed test here, outside the test functions too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A source file longer than this has more than one noun.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The tracked text files with their contents; licence texts are not ours to check.
fn files() -> Vec<(String, String)> {
    let list = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(list.status.success(), "git ls-files failed: {list:?}");
    let names = String::from_utf8(list.stdout).unwrap();
    let files: Vec<_> = names
        .split_terminator('\0')
        .filter(|name| !name.starts_with("LICENSES/"))
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)))
        .collect();
    assert!(files.len() > 30, "only {} files tracked: is this a checkout?", files.len());
    files
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    Path::new(name).extension().is_some_and(|e| extensions.iter().any(|x| e == *x))
}

/// The files with one of these texts in them, each with the text.
fn holding(files: Vec<(String, String)>, texts: &[String]) -> Vec<String> {
    files
        .iter()
        .flat_map(|(name, content)| {
            let found = texts.iter().filter(move |text| content.contains(*text));
            found.map(move |text| format!("{name}: {text}"))
        })
        .collect()
}

/// Collects what is wrong and fails with the whole list.
fn expect_none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_file_names_its_licence() {
    let sources = ["rs", "c", "h", "sh", "toml", "service", "target", "conf"];
    let found = files()
        .into_iter()
        .filter(|(name, _)| has_extension(name, &sources))
        .filter(|(_, text)| {
            !text.lines().take(3).any(|line| line.contains("SPDX-License-Identifier: "))
        })
        .map(|(name, _)| name)
        .collect();
    expect_none("no SPDX line in the first three lines", found);
}

#[test]
fn licences_are_the_right_ones() {
    let found = files()
        .into_iter()
        .filter_map(|(name, text)| {
            let expected = match name.as_str() {
                "kmod/uapi/famfs_ioctl.h" => "GPL-2.0 WITH Linux-syscall-note",
                n if n.starts_with("kmod/") && has_extension(n, &["c", "h"]) => "GPL-2.0",
                n if has_extension(n, &["rs"]) => "Apache-2.0 OR MIT",
                _ => return None,
            };
            let line = text.lines().next()?;
            let licence = line.split("SPDX-License-Identifier: ").nth(1)?;
            let licence = licence.trim_end_matches("*/").trim();
            (licence != expected).then(|| format!("{name}: {licence}, expected {expected}"))
        })
        .collect();
    expect_none("wrong licence", found);
}

#[test]
fn source_files_are_small() {
    let found = files()
        .into_iter()
        .filter(|(name, _)| has_extension(name, &["rs", "c", "h", "sh"]))
        .filter(|(_, text)| text.lines().count() > MAX_LINES)
        .map(|(name, text)| format!("{name}: {} lines, at most {MAX_LINES}", text.lines().count()))
        .collect();
    expect_none("too long", found);
}

#[test]
fn no_package_mirror_is_named() {
    // Written so that this file does not name one either.
    let hosts = [["deb.", "debian.org"], ["security.", "debian.org"], ["snapshot.", "debian.org"]];
    let found = holding(files(), &hosts.map(|host| host.concat()));
    expect_none("package sources come from the host's apt configuration", found);
}

#[test]
fn no_path_of_a_development_machine() {
    let checkout = root().to_string_lossy().into_owned();
    let cargo = std::env::var("HOME").map(|home| format!("{home}/.cargo"));
    // A path of one name, such as /src, is part of many others.
    let long = |place: &String| Path::new(place).components().count() > 2;
    let places: Vec<_> = [checkout].into_iter().chain(cargo).filter(long).collect();
    let found = holding(files(), &places);
    expect_none("an absolute path of this machine", found);
}

#[test]
fn nothing_is_left_unfinished() {
    // Written so that this file does not hold the words itself.
    let words = [["to", "do!("], ["unimpl", "emented!("], ["FIX", "ME"], ["TO", "DO:"]];
    let mut sources = files();
    sources.retain(|(name, _)| has_extension(name, &["rs", "c", "h", "sh"]));
    let found = holding(sources, &words.map(|word| word.concat()));
    expect_none("unfinished", found);
}

#[test]
fn kernel_versions_are_told_apart_in_one_file() {
    let found = files()
        .into_iter()
        .filter(|(name, _)| name.starts_with("kmod/") && has_extension(name, &["c", "h"]))
        .filter(|(name, text)| name != "kmod/compat.h" && text.contains("LINUX_VERSION_CODE"))
        .map(|(name, _)| name)
        .collect();
    expect_none("LINUX_VERSION_CODE outside kmod/compat.h", found);
}

/// Whether a file is a `sys` module or part of one.
fn is_sys(name: &str) -> bool {
    name.split('/').any(|part| part == "sys" || part == "sys.rs")
}

#[test]
fn unsafe_code_is_confined_to_sys_modules() {
    let found = files()
        .into_iter()
        .filter(|(name, _)| has_extension(name, &["rs"]) && !is_sys(name))
        .filter(|(_, text)| {
            let mut lines = text.lines().map(str::trim_start);
            lines.any(|line| line.starts_with('#') && line.contains("allow(unsafe_code)"))
        })
        .map(|(name, _)| name)
        .collect();
    expect_none("unsafe code outside a sys module", found);
}
