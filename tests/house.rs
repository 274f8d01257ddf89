// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The house rules that a program can check, applied to every file that git tracks.

// Outside the test functions too, a failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A source file longer than this has more than one noun.
const MAX_LINES: usize = 600;

/// Comments may be as wide as rustfmt.toml allows code to be.
const MAX_WIDTH: usize = 100;

/// Columns from one tab stop to the next, as in the kernel.
const TAB: usize = 8;

/// The extensions of files written for this project, except texts for readers and test data.
const SOURCES: [&str; 11] =
    ["rs", "c", "h", "sh", "toml", "service", "socket", "target", "conf", "config", "jq"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The tracked text files with their contents, except licence texts.
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

/// The files that contain one of these texts, each with the text.
fn holding(files: Vec<(String, String)>, texts: &[String]) -> Vec<String> {
    files
        .iter()
        .flat_map(|(name, content)| {
            let found = texts.iter().filter(move |text| content.contains(*text));
            found.map(move |text| format!("{name}: {text}"))
        })
        .collect()
}

/// Collects all violations, and fails with the whole list.
fn expect_none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_file_names_its_licence() {
    let found = files()
        .into_iter()
        .filter(|(name, _)| has_extension(name, &SOURCES))
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
                n if !has_extension(n, &SOURCES) => return None,
                n if n.starts_with("kmod/") => "GPL-2.0",
                _ => "Apache-2.0 OR MIT",
            };
            let mut lines = text.lines().take(3);
            let licence = lines.find_map(|line| line.split("SPDX-License-Identifier: ").nth(1));
            let licence = licence.unwrap_or("none").trim_end_matches("*/").trim();
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

/// How comments begin in a file.
fn comment_marks(name: &str, text: &str) -> &'static [&'static str] {
    if has_extension(name, &["rs"]) {
        &["//"]
    } else if has_extension(name, &["c", "h"]) {
        &["//", "/*", "*"]
    } else if has_extension(name, &SOURCES)
        || name.starts_with("image/modules.")
        || text.starts_with("#!")
    {
        &["#"]
    } else {
        &[]
    }
}

/// How many columns a line takes.
fn width(line: &str) -> usize {
    line.chars().fold(0, |column, character| match character {
        '\t' => (column / TAB + 1) * TAB,
        _ => column + 1,
    })
}

/// Whether a line is a comment that is too wide. URLs and table rows cannot be wrapped.
fn is_wide_comment(line: &str, marks: &[&str]) -> bool {
    let text = line.trim_start();
    let Some(mark) = marks.iter().find(|mark| text.starts_with(**mark)) else { return false };
    let text = text[mark.len()..].trim_start_matches(['/', '!']).trim_start();
    width(line) > MAX_WIDTH && !line.contains("://") && !text.starts_with('|')
}

#[test]
fn comments_are_as_wide_as_code() {
    let long = "x".repeat(MAX_WIDTH - 3);
    for (line, wide) in [
        (format!("// {long}"), false),
        (format!("// {long}x"), true),
        (format!("\t// {}", &long[8..]), false),
        (format!("\t// {}", &long[7..]), true),
        (format!("let {long} = 1;"), false),
        (format!("//! | {long}"), false),
        (format!("// https://{long}"), false),
    ] {
        assert_eq!(is_wide_comment(&line, &["//"]), wide, "{line}");
    }
    let found = files()
        .into_iter()
        .flat_map(|(name, text)| {
            let marks = comment_marks(&name, &text);
            let lines: Vec<_> = text.lines().map(str::to_owned).zip(1..).collect();
            let wide = lines.into_iter().filter(|(line, _)| is_wide_comment(line, marks));
            wide.map(move |(line, number)| format!("{name}:{number}: {} columns", width(&line)))
        })
        .collect();
    expect_none("a comment wider than the code", found);
}

#[test]
fn no_package_mirror_is_named() {
    // Spelled so that this file does not contain one either.
    let hosts = [["deb.", "debian.org"], ["security.", "debian.org"], ["snapshot.", "debian.org"]];
    let found = holding(files(), &hosts.map(|host| host.concat()));
    expect_none("package sources come from the host's apt configuration", found);
}

#[test]
fn no_path_of_a_development_machine() {
    let checkout = root().to_string_lossy().into_owned();
    let cargo = std::env::var("HOME").map(|home| format!("{home}/.cargo"));
    // A path with a single name, such as /src, is part of many others.
    let long = |place: &String| Path::new(place).components().count() > 2;
    let places: Vec<_> = [checkout].into_iter().chain(cargo).filter(long).collect();
    let found = holding(files(), &places);
    expect_none("an absolute path of this machine", found);
}

#[test]
fn nothing_is_left_unfinished() {
    // Spelled so that this file does not contain the words themselves.
    let words = [["to", "do!("], ["unimpl", "emented!("], ["FIX", "ME"], ["TO", "DO:"]];
    let mut sources = files();
    sources.retain(|(name, _)| has_extension(name, &["rs", "c", "h", "sh"]));
    let found = holding(sources, &words.map(|word| word.concat()));
    expect_none("unfinished", found);
}

/// Failures that a shell script does not notice, although it ends at the first failure: a line that
/// begins with `!`, and a command substitution that is only tested for being empty or is part of a
/// declaration.
fn unnoticed(line: &str) -> bool {
    let line = line.trim_start();
    let declares = ["local ", "export ", "declare ", "readonly "].iter().any(|word| {
        let assigned = line.strip_prefix(word).and_then(|rest| rest.split_once('='));
        assigned.is_some_and(|(_, value)| value.trim_start_matches('"').starts_with("$("))
    });
    // `[[ $(COMMAND) ]]` without a comparison of the output.
    let tests = line.split("[[ ").skip(1).filter_map(|rest| rest.split_once(" ]]"));
    let only_output = tests.map(|(test, _)| test.trim_matches('"')).any(|test| {
        let inside = test.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')'));
        inside.is_some_and(|inside| !inside.contains(')'))
    });
    line.starts_with("! ") || declares || only_output
}

#[test]
fn shell_scripts_notice_every_failure() {
    for line in ["! false", "[[ $(false) ]]", "  [[ \"$(a b)\" ]] || c", "local x=$(false)"] {
        assert!(unnoticed(line), "{line}");
    }
    for line in ["if ! a; then", "[[ $(a) == b ]]", "x=$(a)", "local x", "[[ ! -e $x ]]"] {
        assert!(!unnoticed(line), "{line}");
    }
    // Scripts are files, and also texts in the programs that run them.
    let found = files()
        .into_iter()
        .filter(|(name, text)| has_extension(name, &["sh", "rs"]) || text.starts_with("#!"))
        .filter(|(name, _)| name != "tests/house.rs")
        .flat_map(|(name, text)| {
            let lines: Vec<_> = text.lines().map(str::to_owned).zip(1..).collect();
            let found = lines.into_iter().filter(|(line, _)| unnoticed(line));
            found.map(move |(line, number)| format!("{name}:{number}: {}", line.trim_start()))
        })
        .collect();
    expect_none("a failure that the script does not notice", found);
}

#[test]
fn shell_scripts_end_at_the_first_failure() {
    let found = files()
        .into_iter()
        .filter(|(_, text)| {
            let shebang = text.lines().next().unwrap_or_default();
            shebang.starts_with("#!") && shebang.ends_with("bash")
        })
        .filter(|(_, text)| !text.lines().any(|line| line == "set -euo pipefail"))
        .map(|(name, _)| name)
        .collect();
    expect_none("no line `set -euo pipefail`", found);
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
