// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tells two trees apart.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::contents::hex;
use crate::tree::{Contents, Entry, Kind, PAGE, Time, Tree};

/// How many differences are printed.
const PRINTED: usize = 20;

/// Which differences are none. By default all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Where the source has a hole, the copy may have zeros.
    pub zeros_for_holes: bool,
    /// Owners and groups may differ.
    pub any_owner: bool,
    /// Mode, owner and time of the directory itself may differ: only its contents were copied.
    pub any_root: bool,
}

/// The differences of two trees, as sentences that begin with the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences(pub Vec<String>);

impl Differences {
    /// An error that names the first of them, if there are any.
    pub fn none(&self) -> Result<()> {
        ensure!(self.0.is_empty(), "{self}");
        Ok(())
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} differences", self.0.len())?;
        self.0.iter().take(PRINTED).try_for_each(|text| write!(f, "\n  {text}"))?;
        match self.0.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Compares two directories; an error has the differences.
pub fn compare_directories(source: &Path, copy: &Path, rules: Rules) -> Result<()> {
    compare(&Tree::read(source)?, &Tree::read(copy)?, rules).none()
}

/// What differs in a copy. A hole where the source has zeros is no difference.
pub fn compare(source: &Tree, copy: &Tree, rules: Rules) -> Differences {
    let mut found = Differences::default();
    for (path, expected) in &source.entries {
        match copy.entries.get(path) {
            None => found.0.push(format!("{}: missing", shown(path))),
            Some(entry) => {
                let mut texts = Vec::new();
                differences(expected, entry, rules, path.is_empty(), &mut texts);
                found.0.extend(texts.into_iter().map(|text| format!("{}: {text}", shown(path))));
            }
        }
    }
    let new = copy.entries.iter().filter(|(path, _)| !source.entries.contains_key(*path));
    found.0.extend(new.map(|(path, entry)| {
        format!("{}: not in the source, is {}", shown(path), entry.kind.name())
    }));
    found
}

fn differences(source: &Entry, copy: &Entry, rules: Rules, is_root: bool, found: &mut Vec<String>) {
    if source.kind.name() != copy.kind.name() {
        found.push(differ("is", copy.kind.name(), source.kind.name()));
        return;
    }
    kinds(&source.kind, &copy.kind, rules, found);
    let both = |name: &Option<Vec<u8>>| match name {
        Some(name) => format!("a hard link to {}", shown(name)),
        None => "a file of its own".to_owned(),
    };
    if source.same_as != copy.same_as {
        found.push(differ("is", &both(&copy.same_as), &both(&source.same_as)));
    }
    if is_root && rules.any_root {
        return;
    }
    // The mode of a symbolic link means nothing, and some file systems have another one.
    if source.mode != copy.mode && !matches!(source.kind, Kind::Symlink(_)) {
        let mode = |entry: &Entry| format!("{:04o}", entry.mode);
        found.push(differ("mode", &mode(copy), &mode(source)));
    }
    let owner = |entry: &Entry| format!("{}:{}", entry.user, entry.group);
    if owner(source) != owner(copy) && !rules.any_owner {
        found.push(differ("owner", &owner(copy), &owner(source)));
    }
    if source.time != copy.time {
        found.push(differ("time", &time(copy.time), &time(source.time)));
    }
}

fn kinds(source: &Kind, copy: &Kind, rules: Rules, found: &mut Vec<String>) {
    match (source, copy) {
        (Kind::File(source), Kind::File(copy)) => contents(source, copy, rules, found),
        (Kind::Symlink(source), Kind::Symlink(copy)) if source != copy => {
            found.push(differ("target", &shown(copy), &shown(source)));
        }
        (Kind::Special(source, number), Kind::Special(copy, found_number)) => {
            let device = |letter, number| format!("{letter} {number}");
            let (expected, is) = (device(source, number), device(copy, found_number));
            if is != expected {
                found.push(differ("device", &is, &expected));
            }
        }
        _ => {}
    }
}

fn contents(source: &Contents, copy: &Contents, rules: Rules, found: &mut Vec<String>) {
    if source.size != copy.size {
        found.push(differ("size", &copy.size.to_string(), &source.size.to_string()));
    } else if source.digest != copy.digest {
        let digest = |contents: &Contents| hex(&contents.digest[..4]);
        found.push(differ("bytes with digest", &digest(copy), &digest(source)));
    }
    if let Some(filled) = filled_hole(source, copy).filter(|_| !rules.zeros_for_holes) {
        found.push(format!("data at {} to {}, expected a hole", filled.start, filled.end));
    }
}

/// The first range of whole pages where the copy has data and the source has none.
fn filled_hole(source: &Contents, copy: &Contents) -> Option<Range<u64>> {
    let mut ranges = source.data.iter().peekable();
    let whole = source.size / PAGE * PAGE;
    for data in &copy.data {
        let (mut start, end) = (data.start, data.end.min(whole));
        while start < end {
            while ranges.next_if(|range| range.end <= start).is_some() {}
            match ranges.peek() {
                Some(range) if range.start <= start => start = range.end,
                Some(range) => return Some(start..range.start.min(end)),
                None => return Some(start..end),
            }
        }
    }
    None
}

fn differ(what: &str, found: &str, expected: &str) -> String {
    format!("{what} {found}, expected {expected}")
}

fn time(time: Time) -> String {
    format!("{}.{:09}", time.seconds, time.nanoseconds)
}

/// A path or a link's text for messages.
fn shown(path: &[u8]) -> String {
    match path {
        b"" => ".".to_owned(),
        path => path.escape_ascii().to_string(),
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
