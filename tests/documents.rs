// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks the documents against what they mention: links, files, options and command lines.

// Outside the test functions too, a failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser};

/// Options of other programs that users' pages mention.
const FOREIGN: [&str; 2] = ["--pmem", "--vsock"];

/// Directories of the kernel's source.
const KERNEL: [&str; 2] = ["fs/", "drivers/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The tracked files.
fn tracked() -> BTreeSet<String> {
    let list = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(list.status.success(), "git ls-files failed: {list:?}");
    let names = String::from_utf8(list.stdout).unwrap();
    names.split_terminator('\0').map(str::to_owned).collect()
}

/// The pages for readers, with their texts: those in the root and in docs.
fn pages() -> Vec<(String, String)> {
    let is_page =
        |name: &String| name.ends_with(".md") && (name.starts_with("docs/") || !name.contains('/'));
    let pages: Vec<_> = tracked()
        .into_iter()
        .filter(is_page)
        .map(|name| (name.clone(), fs::read_to_string(root().join(name)).unwrap()))
        .collect();
    assert!(pages.len() > 10, "only {} pages", pages.len());
    pages
}

/// The lines of a page outside its code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !fence && !inside
    })
}

/// The lines of a page's shell blocks, without comments, and with continued lines joined.
fn commands(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for block in text.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        lines.extend(block.lines().map(|line| line.split("  #").next().unwrap().trim().to_owned()));
    }
    lines
}

/// The texts between single backticks in a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The anchors of a page's headings, as web sites generate them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
        })
        .collect()
}

/// A path with `.` and `..` resolved.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_str().unwrap()),
            _ => {}
        }
    }
    parts.join("/")
}

fn exists(files: &BTreeSet<String>, path: &str) -> bool {
    let dir = format!("{}/", path.trim_end_matches('/'));
    files.contains(path) || files.iter().any(|file| file.starts_with(&dir))
}

fn expect_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_link_leads_somewhere() {
    let files = tracked();
    let mut count = 0;
    let mut broken = Vec::new();
    for (name, text) in pages() {
        let lines: Vec<&str> = prose(&text).collect();
        let joined = lines.join("\n");
        for link in joined.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                name.clone()
            } else {
                normal(&Path::new(&name).parent().unwrap().join(path))
            };
            if !exists(&files, &target) {
                broken.push(format!("{name}: {link}: no such file"));
            } else if !anchor.is_empty() {
                let page = fs::read_to_string(root().join(&target)).unwrap();
                if !anchors(&page).contains(anchor) {
                    broken.push(format!("{name}: {link}: no such heading"));
                }
            }
        }
    }
    assert!(count > 40, "only {count} links");
    expect_none("links that lead nowhere", &broken);
}

/// For a path that ends in a placeholder, such as `fuzz/corpus/TARGET`, the part before it.
fn without_placeholder(path: &str) -> String {
    let is_name = |part: &&str| !part.chars().any(char::is_lowercase) && !part.is_empty();
    let mut parts = path.split('/');
    let top = parts.next();
    top.into_iter().chain(parts.take_while(|part| !is_name(part))).collect::<Vec<_>>().join("/")
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let files = tracked();
    let tops: BTreeSet<&str> =
        files.iter().filter_map(|file| file.split_once('/')).map(|(top, _)| top).collect();
    let mut missing = Vec::new();
    let mut count = 0;
    // The news use the names that files had at the time.
    for (name, text) in pages().into_iter().filter(|(name, _)| name != "NEWS.md") {
        for word in prose(&text).flat_map(code).flat_map(str::split_whitespace) {
            let word = word.trim_end_matches([',', ';', ':', '.']);
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            if !word.chars().all(plain) {
                continue;
            }
            let top = word.split_once('/').map(|(top, _)| top);
            let is_source = Path::new(word)
                .extension()
                .is_some_and(|end| ["rs", "c", "h"].iter().any(|known| end == *known));
            if top.is_some_and(|top| tops.contains(top)) {
                count += 1;
                let path = without_placeholder(word);
                if !exists(&files, &path) {
                    missing.push(format!("{name}: {word}"));
                }
            } else if is_source && !KERNEL.iter().any(|top| word.starts_with(top)) {
                count += 1;
                let end = format!("/{word}");
                if !files.iter().any(|file| file.ends_with(&end)) {
                    missing.push(format!("{name}: {word}"));
                }
            }
        }
    }
    assert!(count > 50, "only {count} files named");
    expect_none("files that do not exist", &missing);
}

#[test]
fn every_path_of_the_maintainers_is_there() {
    let files = tracked();
    let list = fs::read_to_string(root().join("MAINTAINERS")).unwrap();
    let paths: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("F:\t")).collect();
    assert!(paths.len() > 20, "only {} paths", paths.len());
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| **path != "*" && !exists(&files, path))
        .map(|path| format!("MAINTAINERS: {path}"))
        .collect();
    expect_none("files that do not exist", &missing);
}

#[test]
fn every_page_that_a_file_names_is_there() {
    let files = tracked();
    let mut missing = Vec::new();
    for name in &files {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        // A roff page escapes hyphens.
        let text = text.replace("\\-", "-");
        let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        for word in text.split(|c: char| !is_part(c)).map(|word| word.trim_end_matches('.')) {
            let word = word.trim_start_matches("/../");
            let is_page = [".md", ".5", ".schema.json"].iter().any(|end| word.ends_with(end));
            if word.starts_with("docs/") && is_page && !files.contains(word) {
                missing.push(format!("{name}: {word}"));
            }
        }
    }
    expect_none("pages that do not exist", &missing);
}

/// The long options of a command and of all commands in it.
fn options(command: &clap::Command, found: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        let names = argument.get_long_and_visible_aliases().unwrap_or_default();
        found.extend(names.iter().map(|name| format!("--{name}")));
        found.extend(
            argument.get_all_aliases().unwrap_or_default().iter().map(|n| format!("--{n}")),
        );
    }
    for inner in command.get_subcommands() {
        options(inner, found);
    }
}

#[test]
fn every_option_of_the_users_pages_exists() {
    let mut known: BTreeSet<String> = ["--help", "--version"].map(str::to_owned).into();
    options(&famfs_cli::args::Cli::command(), &mut known);
    options(&vhost_famfs::args::Cli::command(), &mut known);
    known.extend(FOREIGN.map(str::to_owned));
    let users = |name: &str| name == "README.md" || name.starts_with("docs/using/");
    let mut unknown = Vec::new();
    for (name, text) in pages().into_iter().filter(|(name, _)| users(name)) {
        for span in prose(&text).flat_map(code) {
            // Nothing is known about other programs, whose name comes first.
            let program = span.split_whitespace().next().unwrap_or_default();
            if !(program.starts_with("--") || ["famfs", "vhost-famfs"].contains(&program)) {
                continue;
            }
            let words = span.split([' ', '=']).filter(|word| word.starts_with("--"));
            // After `--` comes another program's command line.
            for word in words.take_while(|word| *word != "--") {
                if !known.contains(word) {
                    unknown.push(format!("{name}: {word} in `{span}`"));
                }
            }
        }
    }
    expect_none("options that no program has", &unknown);
}

/// What a guest of a user's own relies on.
#[test]
fn the_contract_for_own_guests_is_as_the_protocol() {
    let page = fs::read_to_string(root().join("docs/using/own-guests.md")).unwrap();
    let (_, contract) = page.split_once("## The contract").unwrap();
    let version = format!("**{}**", protocol::exec::VERSION);
    let last = protocol::exec::port(protocol::exec::PORTS - 1);
    let words = [version, protocol::exec::port(0), last, famfs::system::port::NAME.to_owned()];
    let credentials = protocol::credentials::known().into_iter().map(str::to_owned);
    let units = fs::read_dir(root().join("packaging/vhost-famfs-guest/units")).unwrap();
    let units = units.map(|unit| unit.unwrap().file_name().into_string().unwrap());
    let missing: Vec<_> = words
        .into_iter()
        .chain(credentials)
        .chain(units)
        .filter(|word| !contract.contains(word))
        .collect();
    expect_none("missing in the contract", &missing);
}

#[test]
fn every_example_of_vhost_famfs_is_a_valid_command_line() {
    let mut count = 0;
    for (name, text) in pages() {
        for line in commands(&text).iter().filter(|line| line.starts_with("vhost-famfs ")) {
            let words = line.split_whitespace().take_while(|word| *word != "&" && *word != "|");
            let parsed = vhost_famfs::args::Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} examples");
}
