// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lock files: names and versions of the packages of an image, one per line.
//!
//! apt prefers these versions; image/pack/lock refuses to pack any others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::args::Profile;
use crate::paths;

/// The first lines of each.
const HEAD: &str = "# SPDX-License-Identifier: Apache-2.0 OR MIT\n\
     # Packages of the appliance: name, version. Written by: cargo xtask image --update\n";

/// The lock file of a package set: that of the debug or lts profile, or that of all other profiles.
pub fn path(profile: Option<Profile>) -> PathBuf {
    let name = profile.map_or_else(|| "default".to_owned(), Profile::name);
    paths::root().join("image/lock").join(name)
}

/// Preferences for apt (apt_preferences(5)) that give the locked versions precedence over all
/// others. Empty if there is no lock file yet.
pub fn preferences(lock: &Path) -> Result<String> {
    if !lock.exists() {
        return Ok(String::new());
    }
    let text =
        fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let pins =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    Ok(pins
        .map(|(name, version)| {
            format!("Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n")
        })
        .collect())
}

/// Writes a lock file from mkosi's manifest.
pub fn write(lock: &Path, manifest: &Path) -> Result<()> {
    let text = fs::read_to_string(manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    let lines = from_manifest(&text).with_context(|| format!("{}", manifest.display()))?;
    if let Some(dir) = lock.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(lock, format!("{HEAD}{lines}"))
        .with_context(|| format!("cannot write {}", lock.display()))?;
    eprintln!("{}: {} packages", lock.display(), lines.lines().count());
    Ok(())
}

/// The packages that are only in the lock file (`<`), or only in mkosi's manifest (`>`).
pub fn differences(lock: &Path, manifest: &Path) -> Result<Vec<String>> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (locked, found) = (read(lock)?, from_manifest(&read(manifest)?)?);
    let only = |these: &str, those: &str, mark: char| -> Vec<String> {
        these
            .lines()
            .filter(|line| !line.starts_with('#') && those.lines().all(|other| other != *line))
            .map(|line| format!("{mark} {line}"))
            .collect()
    };
    Ok([only(&locked, &found, '<'), only(&found, &locked, '>')].concat())
}

fn from_manifest(text: &str) -> Result<String> {
    let manifest: Value = serde_json::from_str(text).context("not JSON")?;
    let packages = manifest["packages"].as_array().context("no list of packages")?;
    let mut lines: Vec<String> = packages
        .iter()
        .map(|package| {
            let text =
                |key: &str| package[key].as_str().with_context(|| format!("no {key}: {package}"));
            Ok(format!("{} {}\n", text("name")?, text("version")?))
        })
        .collect::<Result<_>>()?;
    lines.sort();
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::{from_manifest, preferences};

    #[test]
    fn a_manifest_becomes_sorted_lines() {
        let manifest =
            r#"{"packages": [{"name": "b", "version": "1:2-3"}, {"name": "a", "version": "1"}]}"#;
        assert_eq!(from_manifest(manifest).unwrap(), "a 1\nb 1:2-3\n");
        assert!(from_manifest("{}").is_err());
        assert!(from_manifest(r#"{"packages": [{"name": "b"}]}"#).is_err());
    }

    #[test]
    fn differences_name_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, manifest) = (dir.path().join("lock"), dir.path().join("manifest.json"));
        std::fs::write(&lock, "# comment\na 1\nb 2\n").unwrap();
        let packages =
            r#"{"packages": [{"name": "a", "version": "1"}, {"name": "b", "version": "3"}]}"#;
        std::fs::write(&manifest, packages).unwrap();
        assert_eq!(super::differences(&lock, &manifest).unwrap(), ["< b 2", "> b 3"]);
    }

    #[test]
    fn locked_versions_are_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        assert_eq!(preferences(&lock).unwrap(), "", "no lock file, no preferences");
        std::fs::write(&lock, "# comment\na 1:2-3\n").unwrap();
        let expected = "Package: a\nPin: version 1:2-3\nPin-Priority: 1001\n\n";
        assert_eq!(preferences(&lock).unwrap(), expected);
    }
}
