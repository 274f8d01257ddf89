// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a file loses on its way into a famfs: extended attributes everywhere, and without
//! extensions also holes, hard links and times.

use serde::Serialize;

/// Something that files have and a famfs does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Extended attributes.
    Xattrs,
    /// An access control list.
    Acl,
    /// File capabilities.
    Capabilities,
    /// Holes, which become zeros.
    Holes,
    /// Another name of a file, which becomes a separate file.
    HardLink,
}

impl Attribute {
    /// All of them, in the order in which they are reported.
    const ALL: [Self; 5] =
        [Self::Xattrs, Self::Acl, Self::Capabilities, Self::Holes, Self::HardLink];

    /// What an extended attribute of this name is; `None` for labels that a system gives to all
    /// its files.
    pub fn of_xattr(name: &[u8]) -> Option<Self> {
        match name {
            b"security.capability" => Some(Self::Capabilities),
            name if name.starts_with(b"system.posix_acl_") => Some(Self::Acl),
            name if name.starts_with(b"security.") || name.starts_with(b"system.") => None,
            _ => Some(Self::Xattrs),
        }
    }

    /// What a record of a pax header keeps.
    pub fn of_record(key: &[u8]) -> Option<Self> {
        let prefixes = [&b"SCHILY.xattr."[..], b"LIBARCHIVE.xattr."];
        match prefixes.iter().find_map(|prefix| key.strip_prefix(*prefix)) {
            Some(name) => Self::of_xattr(name),
            None => key.starts_with(b"SCHILY.acl.").then_some(Self::Acl),
        }
    }

    /// What is lost, for the line of one file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xattrs => "extended attributes",
            Self::Acl => "ACL",
            Self::Capabilities => "capabilities",
            Self::Holes => "holes (stored as zeros)",
            Self::HardLink => "hard link (copied as a separate file)",
        }
    }

    fn count(self, number: usize) -> String {
        let files = if number == 1 { "file" } else { "files" };
        match self {
            Self::Xattrs => format!("extended attributes of {number} {files}"),
            Self::Acl => format!("ACLs of {number} {files}"),
            Self::Capabilities => format!("capabilities of {number} {files}"),
            Self::Holes => format!("holes of {number} {files}"),
            Self::HardLink if number == 1 => "1 hard link".to_owned(),
            Self::HardLink => format!("{number} hard links"),
        }
    }
}

/// How many files lost what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files with extended attributes.
    pub xattrs: usize,
    /// Files with an ACL.
    pub acls: usize,
    /// Files with capabilities.
    pub capabilities: usize,
    /// Files with holes.
    pub holes: usize,
    /// Additional names of files.
    pub hard_links: usize,
    /// Files and directories that lost their times.
    pub times: u64,
}

/// What files lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Files with what each lost, except its times.
    pub items: Vec<(String, Attribute)>,
    /// Files and directories that lost their times.
    pub times: u64,
}

impl Dropped {
    /// Adds what a file lost.
    pub fn add(&mut self, name: &str, attributes: impl IntoIterator<Item = Attribute>) {
        self.items.extend(attributes.into_iter().map(|attribute| (name.to_owned(), attribute)));
    }

    /// Adds what others lost.
    pub fn extend(&mut self, other: Self) {
        self.items.extend(other.items);
        self.times += other.times;
    }

    /// How many files lost something of a kind.
    pub fn count(&self, attribute: Attribute) -> usize {
        self.items.iter().filter(|(_, lost)| *lost == attribute).count()
    }

    /// How many files lost what.
    pub fn counts(&self) -> Counts {
        Counts {
            xattrs: self.count(Attribute::Xattrs),
            acls: self.count(Attribute::Acl),
            capabilities: self.count(Attribute::Capabilities),
            holes: self.count(Attribute::Holes),
            hard_links: self.count(Attribute::HardLink),
            times: self.times,
        }
    }

    /// Everything that was lost; `None` if that is only the times.
    pub fn summary(&self) -> Option<String> {
        let counts = Attribute::ALL.map(|attribute| (attribute, self.count(attribute)));
        let counts = counts.into_iter().filter(|(_, number)| *number > 0);
        let mut texts: Vec<String> = counts.map(|(lost, number)| lost.count(number)).collect();
        if texts.is_empty() {
            return None;
        }
        if self.times > 0 {
            texts.push(format!("times of {}", self.times));
        }
        Some(texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_told_by_their_names() {
        for (key, expected) in [
            ("SCHILY.xattr.user.note", Some(Attribute::Xattrs)),
            ("LIBARCHIVE.xattr.user.note", Some(Attribute::Xattrs)),
            ("SCHILY.xattr.security.capability", Some(Attribute::Capabilities)),
            ("SCHILY.xattr.security.selinux", None),
            ("SCHILY.xattr.system.posix_acl_default", Some(Attribute::Acl)),
            ("SCHILY.acl.access", Some(Attribute::Acl)),
            ("mtime", None),
        ] {
            assert_eq!(Attribute::of_record(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn times_alone_are_no_news() {
        let mut dropped = Dropped::default();
        dropped.times += 1;
        assert_eq!(dropped.summary(), None);
        dropped.add("b", [Attribute::Acl, Attribute::HardLink]);
        assert_eq!(dropped.summary().unwrap(), "ACLs of 1 file, 1 hard link, times of 1");
    }
}
