// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths of files and directories inside a famfs, checked and in one normal form.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::format::MAX_PATH;
use crate::format::extension::{MAX_COMPONENT, MAX_LONG_PATH, STORE_DIR};
use crate::format::short::ShortBytes;
use crate::text::terminal::escape_name as escape;

/// Directory of the superblock and log files in a mount; no log entry may reach into it.
pub const META_DIR: &str = ".meta";

/// A path below the root of a famfs: not empty, relative, without `.`, `..` or doubled slashes, at
/// most 4,095 bytes with names of at most 255, not below `.meta`. A conventional entry can hold it
/// if it has at most 79 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(ShortBytes);

/// Why a path cannot be used inside a famfs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path names no file.
    #[error("path \"{0}\" names the root of the file system")]
    Empty(String),
    /// The path starts with a slash.
    #[error("path \"{0}\" is absolute, expected one relative to the mount point")]
    Absolute(String),
    /// The path leads above the mount point.
    #[error("path \"{0}\" leaves the file system through \"..\"")]
    Escape(String),
    /// The path needs more bytes than it may have.
    #[error("path \"{path}\" has {len} bytes, expected at most {most}")]
    TooLong {
        /// The path.
        path: String,
        /// Its length in bytes.
        len: usize,
        /// Most bytes that it may have.
        most: usize,
    },
    /// A name in the path needs more bytes than it may have.
    #[error(
        "path \"{path}\" has a name of {len} bytes in it, expected names of at most {MAX_COMPONENT}"
    )]
    LongName {
        /// The path.
        path: String,
        /// Length of the name in bytes.
        len: usize,
    },
    /// The path contains a NUL, or fills its field without one.
    #[error("path \"{0}\" is not terminated by one NUL")]
    Nul(String),
    /// The path is below the directory of the meta files.
    #[error("path \"{0}\" is below {META_DIR}, which is reserved")]
    Reserved(String),
    /// The path is in the store, which is not part of the tree.
    #[error("path \"{0}\" is reserved: {STORE_DIR} holds the data of other files")]
    Store(String),
}

impl RelPath {
    /// Checks a path and normalizes it.
    pub fn new(path: &[u8]) -> Result<Self, PathError> {
        let shown = || escape(path);
        let normal = normal(path)?;
        if normal.split(|&b| b == b'/').next() == Some(META_DIR.as_bytes()) {
            return Err(PathError::Reserved(shown()));
        }
        if normal.len() > MAX_LONG_PATH {
            let (len, most) = (normal.len(), MAX_LONG_PATH);
            return Err(PathError::TooLong { path: shown(), len, most });
        }
        if let Some(name) = normal.split(|&b| b == b'/').find(|name| name.len() > MAX_COMPONENT) {
            return Err(PathError::LongName { path: shown(), len: name.len() });
        }
        Ok(Self(normal[..].into()))
    }

    /// The directory of the store.
    pub fn store() -> Self {
        Self(STORE_DIR.as_bytes().into())
    }

    /// The file of the store with a number, which is its slot unless that number was taken.
    pub fn in_store(number: u64) -> Self {
        Self(format!("{STORE_DIR}/{number}").as_bytes().into())
    }

    /// Reads a path field of a log entry.
    pub fn from_field(field: &[u8; MAX_PATH + 1]) -> Result<Self, PathError> {
        match field.iter().position(|&b| b == 0) {
            Some(len) => Self::new(&field[..len]),
            None => Err(PathError::Nul(escape(field))),
        }
    }

    /// The path as a conventional entry stores it.
    ///
    /// # Errors
    /// The entry has no room for it.
    pub fn to_field(&self) -> Result<[u8; MAX_PATH + 1], PathError> {
        let len = self.0.len();
        let mut field = [0; MAX_PATH + 1];
        match field[..MAX_PATH].get_mut(..len) {
            Some(bytes) => bytes.copy_from_slice(&self.0),
            None => {
                return Err(PathError::TooLong { path: self.to_string(), len, most: MAX_PATH });
            }
        }
        Ok(field)
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the system's file functions; relative to the mount point.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// The last name of the path.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or(&self.0)
    }

    /// The first component.
    pub fn first(&self) -> &[u8] {
        self.0.split(|&b| b == b'/').next().unwrap_or_default()
    }

    /// Whether the path is `dir` or below it.
    pub fn is_within(&self, dir: &Self) -> bool {
        match self.0.strip_prefix(&*dir.0) {
            Some(rest) => rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }
}

/// Normalizes a relative path: without `.`, `..` and doubled slashes, and not empty.
pub fn normal(path: &[u8]) -> Result<Cow<'_, [u8]>, PathError> {
    let shown = || escape(path);
    let as_it_is = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    if path.split(|&b| b == b'/').all(as_it_is) {
        return Ok(Cow::Borrowed(path));
    }
    if path.first() == Some(&b'/') {
        return Err(PathError::Absolute(shown()));
    }
    if path.contains(&0) {
        return Err(PathError::Nul(shown()));
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if normal.is_empty() => return Err(PathError::Escape(shown())),
            b".." => normal.truncate(normal.iter().rposition(|&b| b == b'/').unwrap_or(0)),
            name => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(name);
            }
        }
    }
    if normal.is_empty() { Err(PathError::Empty(shown())) } else { Ok(Cow::Owned(normal)) }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normalises_what_the_reference_writes() {
        for (typed, normal) in
            [("d/../d/./x", "d/x"), ("d//y", "d/y"), ("./a/", "a"), ("ä b/c", "ä b/c")]
        {
            assert_eq!(RelPath::new(typed.as_bytes()).unwrap().to_string(), normal);
        }
    }

    #[test]
    fn refuses_what_is_no_path_inside() {
        let error = |path: &str| RelPath::new(path.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error("/etc/passwd"),
            "path \"/etc/passwd\" is absolute, expected one relative to the mount point"
        );
        assert_eq!(error("a/../../b"), "path \"a/../../b\" leaves the file system through \"..\"");
        assert_eq!(error("a/.."), "path \"a/..\" names the root of the file system");
        assert_eq!(error("a\0b"), "path \"a\\u0000b\" is not terminated by one NUL");
        assert_eq!(
            error("x/../.meta/.log"),
            "path \"x/../.meta/.log\" is below .meta, which is reserved"
        );
        let long = "x/".repeat(2048);
        assert!(RelPath::new(&long.as_bytes()[..4095]).is_ok());
        assert!(error(&format!("{long}y")).ends_with("has 4097 bytes, expected at most 4095"));
        let name = "x".repeat(256);
        assert!(error(&name).ends_with("a name of 256 bytes in it, expected names of at most 255"));
        assert!(RelPath::new(&name.as_bytes()[..255]).is_ok());
        let field = RelPath::new(&[b'x'; 80]).unwrap().to_field().unwrap_err().to_string();
        assert!(field.ends_with("has 80 bytes, expected at most 79"), "{field}");
        assert_eq!(RelPath::from_field(&[b'x'; 80]).unwrap_err(), PathError::Nul("x".repeat(80)));
    }

    #[test]
    fn knows_parents_and_subtrees() {
        let path = |path: &str| RelPath::new(path.as_bytes()).unwrap();
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert!(path("a/b").is_within(&path("a")) && path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
    }

    proptest! {
        /// For any input, the result stays inside and is its own normal form.
        #[test]
        fn never_escapes(path in "[ab./\\x00é]{0,90}") {
            if let Ok(checked) = RelPath::new(path.as_bytes()) {
                let bytes = checked.as_bytes();
                prop_assert!(!bytes.is_empty() && bytes.len() <= MAX_LONG_PATH);
                for part in bytes.split(|&b| b == b'/') {
                    prop_assert!(!matches!(part, b"" | b"." | b".."));
                }
                match checked.to_field() {
                    Ok(field) => {
                        prop_assert_eq!(RelPath::from_field(&field), Ok(checked.clone()));
                    }
                    Err(_) => prop_assert!(bytes.len() > MAX_PATH),
                }
            }
        }
    }
}
