// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far the log of a mount is played: a note in the mount itself, for every player.
//!
//! The note is the target of a symbolic link, because such a link needs no memory of the device,
//! and is replaced as a whole. It is gone with the mount.

use std::fmt;
use std::io;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::format::path::META_DIR;
use crate::kernel::beneath::Root;

/// Name of the note in [`META_DIR`].
pub const NOTE_FILE: &str = ".played";
/// Name of the next note, until it takes the place of the last one.
const NEXT_FILE: &str = ".played.next";

/// Before the numbering.
const NUMBERING: &str = "numbering=";

/// How far a log is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The first slot that is not played.
    pub next: u64,
    /// Checksum of the entry before it; `None` if there is none.
    pub checksum: Option<u64>,
    /// Whether the mount is what the log says, up to there. If not, somebody is at work, was
    /// killed, or could not do all.
    pub complete: bool,
    /// Whether symbolic links that lead out of the mount are left out.
    pub safe_links: bool,
    /// The [numbering](crate::store::numbering) that the slot is of.
    pub numbering: u64,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.next)?;
        match self.checksum {
            Some(checksum) => write!(f, "{checksum:#010x}")?,
            None => write!(f, "none")?,
        }
        write!(f, " {}", if self.complete { "complete" } else { "incomplete" })?;
        if self.safe_links {
            write!(f, " safe-links")?;
        }
        // Entries have rarely moved, and earlier versions do not know the word.
        if self.numbering != 0 { write!(f, " {NUMBERING}{}", self.numbering) } else { Ok(()) }
    }
}

impl Note {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let next = words.next()?.parse().ok()?;
        let checksum = match words.next()? {
            "none" => None,
            text => Some(u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?),
        };
        let complete = match words.next()? {
            "complete" => true,
            "incomplete" => false,
            _ => return None,
        };
        let mut words = words.peekable();
        let safe_links = words.next_if_eq(&"safe-links").is_some();
        let numbering = match words.next() {
            None => 0,
            Some(word) => word.strip_prefix(NUMBERING)?.parse().ok().filter(|&n| n != 0)?,
        };
        words.next().is_none().then_some(Self { next, checksum, complete, safe_links, numbering })
    }

    /// The note of a mount; `None` if there is none, or one that tells nothing.
    pub fn read(root: &Root) -> io::Result<Option<Self>> {
        let path = format!("{META_DIR}/{NOTE_FILE}");
        match rustix::fs::readlinkat(root, path, Vec::new()) {
            Ok(text) => Ok(text.to_str().ok().and_then(Self::parse)),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// Leaves the note in a mount, in place of the last one. Only an editor can.
    pub fn write(&self, root: &Root) -> io::Result<()> {
        let [note, next] = [NOTE_FILE, NEXT_FILE].map(|name| format!("{META_DIR}/{name}"));
        let make = || rustix::fs::symlinkat(self.to_string(), root, &*next);
        match make() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(root, &*next, AtFlags::empty())?;
                make()
            }
            made => made,
        }?;
        Ok(rustix::fs::renameat(root, &*next, root, &*note)?)
    }

    /// Whether notes can be left in a mount: whether its module makes links.
    pub fn is_possible(root: &Root) -> io::Result<bool> {
        let probe = Self::default().write_probe(root);
        match probe {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    fn write_probe(self, root: &Root) -> Result<(), Errno> {
        let next = format!("{META_DIR}/{NEXT_FILE}");
        match rustix::fs::symlinkat(self.to_string(), root, &*next) {
            Ok(()) | Err(Errno::EXIST) => rustix::fs::unlinkat(root, &*next, AtFlags::empty()),
            Err(err) => Err(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(META_DIR)).unwrap();
        let root = Root::new(File::open(dir.path()).unwrap().into());
        assert_eq!(Note::read(&root).unwrap(), None);
        assert!(Note::is_possible(&root).unwrap());
        let first = Note::default();
        let (next, checksum) = (7, Some(0xabc));
        let second = Note { next, checksum, complete: true, safe_links: true, numbering: 0 };
        let third = Note { safe_links: false, numbering: 12, ..second };
        let fourth = Note { safe_links: true, ..third };
        for (note, text) in [
            (first, "0 none incomplete"),
            (second, "7 0x00000abc complete safe-links"),
            (third, "7 0x00000abc complete numbering=12"),
            (fourth, "7 0x00000abc complete safe-links numbering=12"),
        ] {
            // What a killed player left does not matter.
            let _ = std::os::unix::fs::symlink("x", dir.path().join(META_DIR).join(NEXT_FILE));
            note.write(&root).unwrap();
            assert_eq!(note.to_string(), text);
            assert_eq!(Note::read(&root).unwrap(), Some(note));
        }
        assert_eq!(fs::read_dir(dir.path().join(META_DIR)).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_note_tells_nothing() {
        for text in [
            "",
            "x",
            "7",
            "7 0x1",
            "7 1 complete",
            "7 0x1 done",
            "-1 none complete",
            "7 none complete more",
            "7 none complete safe-links x",
            "7 none complete numbering=0",
            "7 none complete numbering=x",
            "7 none complete numbering=1 safe-links",
        ] {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }
}
