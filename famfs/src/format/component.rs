// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One component of a path, checked: what an extension entry calls a file.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::format::extension::{MAX_COMPONENT, STORE_DIR};
use crate::format::is_zero;
use crate::format::path::META_DIR;
use crate::format::short::ShortBytes;
use crate::text::terminal::escape_name as escape;

/// A name in a directory: 1 to 255 bytes, any but NUL and `/`, and not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component(ShortBytes);

/// Why bytes are no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentError {
    /// There is no byte before the NUL.
    #[error("the name is empty")]
    Empty,
    /// The field has no NUL.
    #[error("name \"{0}\" is not terminated by a NUL")]
    Nul(String),
    /// Bytes behind the NUL are not zero.
    #[error("name \"{0}\" has bytes behind its NUL")]
    Behind(String),
    /// A directory has such names of its own.
    #[error("name \"{0}\" is not allowed: expected a name without \"/\", not \".\" or \"..\"")]
    Illegal(String),
    /// Too many bytes.
    #[error("name \"{name}\" has {len} bytes, expected at most {MAX_COMPONENT}")]
    TooLong {
        /// The name.
        name: String,
        /// Its length in bytes.
        len: usize,
    },
}

impl Component {
    /// Checks a name.
    pub fn new(name: &[u8]) -> Result<Self, ComponentError> {
        match name {
            b"" => Err(ComponentError::Empty),
            b"." | b".." => Err(ComponentError::Illegal(escape(name))),
            _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => {
                Err(ComponentError::Illegal(escape(name)))
            }
            _ if name.len() > MAX_COMPONENT => {
                Err(ComponentError::TooLong { name: escape(name), len: name.len() })
            }
            _ => Ok(Self(name.into())),
        }
    }

    /// Reads the name field of an extension entry.
    pub fn from_field(field: &[u8; MAX_COMPONENT + 1]) -> Result<Self, ComponentError> {
        let Ok(name) = CStr::from_bytes_until_nul(field) else {
            return Err(ComponentError::Nul(escape(field)));
        };
        let name = name.to_bytes();
        if !is_zero(&field[name.len()..]) {
            return Err(ComponentError::Behind(escape(name)));
        }
        Self::new(name)
    }

    /// The name as an extension entry holds it.
    pub fn to_field(&self) -> [u8; MAX_COMPONENT + 1] {
        let mut field = [0; MAX_COMPONENT + 1];
        field[..self.0.len()].copy_from_slice(&self.0);
        field
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name for the system's file functions.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// Whether the root directory has no room for this name, because the tools use it.
    pub fn is_reserved(&self) -> bool {
        [META_DIR, STORE_DIR].iter().any(|name| *self.0 == *name.as_bytes())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_but_two() {
        for byte in 0..=u8::MAX {
            let name = [b'a', byte, b'b'];
            let legal = !matches!(byte, 0 | b'/');
            assert_eq!(Component::new(&name).is_ok(), legal, "{byte}");
            if legal {
                let component = Component::new(&name).unwrap();
                assert_eq!(Component::from_field(&component.to_field()), Ok(component));
            }
        }
    }

    #[test]
    fn refuses_what_is_no_name() {
        let mut behind = [0; 256];
        behind[..3].copy_from_slice(b"a\0b");
        for (field, message) in
            [([0; 256], "the name is empty"), (behind, "name \"a\" has bytes behind its NUL")]
        {
            assert_eq!(Component::from_field(&field).unwrap_err().to_string(), message);
        }
        assert!(matches!(Component::from_field(&[b'x'; 256]), Err(ComponentError::Nul(_))));
        for name in [&b"."[..], b"..", b"a/b"] {
            assert!(matches!(Component::new(name), Err(ComponentError::Illegal(_))));
        }
        assert!(Component::new(&[b'x'; 255]).is_ok());
        let error = Component::new(&[b'x'; 256]).unwrap_err().to_string();
        assert!(error.ends_with("has 256 bytes, expected at most 255"), "{error}");
    }
}
