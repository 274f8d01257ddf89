// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keys of cached results: a digest of everything that goes into one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Collects the inputs of one result.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds a text together with its length, so that two texts cannot be confused with one.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds the name and contents of a file, or of all files in a directory tree.
    pub fn path(mut self, path: &Path) -> Result<Self> {
        if path.is_dir() {
            let mut entries = fs::read_dir(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .with_context(|| format!("cannot list {}", path.display()))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                self = self.path(&entry.path())?;
            }
            return Ok(self);
        }
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self = self.text(&path.to_string_lossy());
        self.0.update((content.len() as u64).to_le_bytes());
        self.0.update(content);
        Ok(self)
    }

    /// The key: 16 hexadecimal digits.
    pub fn finish(self) -> String {
        self.0.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn texts_are_kept_apart() {
        let split = Key::default().text("ab").text("c").finish();
        assert_ne!(split, Key::default().text("a").text("bc").finish());
        assert_eq!(split, Key::default().text("ab").text("c").finish());
        assert_eq!(split.len(), 16);
    }

    #[test]
    fn file_content_changes_the_key() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        let one = Key::default().path(dir.path()).unwrap().finish();
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(one, Key::default().path(dir.path()).unwrap().finish());
    }
}
