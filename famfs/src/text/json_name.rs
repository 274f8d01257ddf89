// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of files in JSON reports, so that a program gets back every byte.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A name under a key of a report, as text. If its bytes are not UTF-8, the text is ambiguous, so
/// `KEY_bytes` has them in hexadecimal. To be flattened into the report.
#[derive(Clone, Debug)]
pub struct Name {
    key: &'static str,
    bytes: Vec<u8>,
}

impl Name {
    /// A name by its bytes.
    pub fn new(key: &'static str, bytes: &[u8]) -> Self {
        Self { key, bytes: bytes.to_vec() }
    }

    /// A path of this system.
    pub fn of_path(key: &'static str, path: &Path) -> Self {
        Self::new(key, path.as_os_str().as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.key, &String::from_utf8_lossy(&self.bytes))?;
        if std::str::from_utf8(&self.bytes).is_err() {
            map.serialize_entry(&format!("{}_bytes", self.key), &hex(&self.bytes))?;
        }
        map.end()
    }
}

/// A list of names under a key of a report; if any is not UTF-8, `KEY_bytes` has one item for each.
/// To be flattened into the report.
#[derive(Clone, Debug)]
pub struct Names {
    key: &'static str,
    names: Vec<Vec<u8>>,
}

impl Names {
    /// A list by the names' bytes.
    pub fn new<'n>(key: &'static str, names: impl IntoIterator<Item = &'n [u8]>) -> Self {
        Self { key, names: names.into_iter().map(<[u8]>::to_vec).collect() }
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = self.names.iter().map(|name| String::from_utf8_lossy(name)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.key, &texts)?;
        if self.names.iter().any(|name| std::str::from_utf8(name).is_err()) {
            let hex: Vec<String> = self.names.iter().map(|name| hex(name)).collect();
            map.serialize_entry(&format!("{}_bytes", self.key), &hex)?;
        }
        map.end()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize)]
    struct Report {
        version: u32,
        #[serde(flatten)]
        path: Name,
    }

    #[test]
    fn bytes_stand_beside_what_is_no_text() {
        let report = |bytes| {
            let path = Name::new("path", bytes);
            serde_json::to_value(Report { version: 1, path }).unwrap()
        };
        let text = serde_json::json!({"version": 1, "path": "a\u{1b}é\n"});
        assert_eq!(report("a\u{1b}é\n".as_bytes()), text);
        let bytes = serde_json::json!({"version": 1, "path": "a\u{fffd}", "path_bytes": "61ff"});
        assert_eq!(report(b"a\xff"), bytes);
        let names = |names: &[&'static [u8]]| {
            serde_json::to_value(Names::new("paths", names.iter().copied())).unwrap()
        };
        assert_eq!(names(&[b"a"]), serde_json::json!({"paths": ["a"]}));
        let both = serde_json::json!({"paths": ["a", "\u{fffd}"], "paths_bytes": ["61", "ff"]});
        assert_eq!(names(&[b"a", b"\xff"]), both);
    }
}
