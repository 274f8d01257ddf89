// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Selects the VMM: the host's if it is recent enough, else that of the project's tools tree.

use std::env;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use super::version::{QemuVersion, VersionError};

/// The program that runs virtual machines.
const QEMU: &str = "qemu-system-x86_64";

/// Where a program was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user named it.
    Given,
    /// In the host's search path.
    Host,
    /// In the tools tree that `cargo xtask setup` creates in the cache.
    Tools,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "as given",
            Self::Host => "of the host",
            Self::Tools => "of `cargo xtask setup`",
        })
    }
}

/// A QEMU whose version is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: QemuVersion,
    /// Where it was found.
    pub origin: Origin,
}

/// There is no QEMU.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The QEMU that the user named is not usable.
    #[error(transparent)]
    Given(#[from] VersionError),
    /// No usable QEMU was found.
    #[error(
        "no QEMU:{tried}\ninstall {QEMU} {} or newer, or run `cargo xtask setup`, which installs one",
        QemuVersion::SHARED_MEMORY
    )]
    None {
        /// What was tried, one per line.
        tried: String,
    },
}

impl Qemu {
    /// Uses the QEMU that the user named, or looks for one.
    ///
    /// The host's QEMU is preferred; the tools tree's comes first only if the host's is too old for
    /// back-ends.
    ///
    /// # Errors
    /// No QEMU was found; lists everything that was tried.
    pub fn select(given: Option<&Path>) -> Result<Self, SelectError> {
        if let Some(program) = given {
            let version = QemuVersion::of(program)?;
            return Ok(Self { program: program.into(), version, origin: Origin::Given });
        }
        Self::look(&env::var_os("PATH").unwrap_or_default(), cache().as_deref())
    }

    fn look(path: &OsStr, cache: Option<&Path>) -> Result<Self, SelectError> {
        let mut tried = String::new();
        let host = in_path(path, QEMU).map(|program| (program, Origin::Host));
        let tools = cache.and_then(in_tools).map(|program| (program, Origin::Tools));
        if host.is_none() {
            let _ = write!(tried, "\n  not in PATH");
        }
        let mut old = None;
        for (program, origin) in host.into_iter().chain(tools) {
            match QemuVersion::of(&program) {
                Ok(version) => {
                    let found = Self { program, version, origin };
                    if version >= QemuVersion::SHARED_MEMORY {
                        return Ok(found);
                    }
                    old = old.or(Some(found));
                }
                Err(error) => {
                    let _ = write!(tried, "\n  {error}");
                }
            }
        }
        old.ok_or(SelectError::None { tried })
    }
}

/// The first executable with that name in this program's search path.
#[must_use]
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    in_path(&env::var_os("PATH")?, name)
}

/// The first executable with that name in a search path.
fn in_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    env::split_paths(path).map(|dir| dir.join(name)).find(|program| {
        program
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// The project's directory in the user's cache.
fn cache() -> Option<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(base.join("vhost-famfs"))
}

/// The program that enters the newest tools tree in a cache directory and runs its QEMU.
fn in_tools(cache: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(cache).ok()?;
    let programs = entries.filter_map(|entry| {
        let dir = entry.ok()?.path();
        let name = dir.file_name()?.to_str()?;
        let program = dir.join(QEMU);
        let is_tree = name.starts_with("tools-") && name.ends_with(".bin") && program.is_file();
        let made = dir.with_extension("").metadata().ok()?.modified().ok()?;
        is_tree.then_some((made, program))
    });
    programs.max().map(|(_, program)| program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that claims to be this QEMU.
    fn qemu(dir: &Path, version: &str) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        let program = dir.join(QEMU);
        fs::write(&program, format!("#!/bin/sh\necho QEMU emulator version {version}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    fn look(path: &Path, cache: &Path) -> Result<(PathBuf, Origin), SelectError> {
        Qemu::look(path.as_os_str(), Some(cache)).map(|qemu| (qemu.program, qemu.origin))
    }

    #[test]
    fn the_hosts_is_taken_if_it_is_recent_enough() {
        let dir = tempfile::tempdir().unwrap();
        let (host, cache) = (dir.path().join("bin"), dir.path().join("cache"));
        fs::create_dir_all(cache.join("tools-0123")).unwrap();
        let tools = qemu(&cache.join("tools-0123.bin"), "11.1.3");
        // Without a tree there is no QEMU: the script would have nothing to enter.
        qemu(&cache.join("tools-gone.bin"), "12.0");
        assert_eq!(look(&host, &cache).unwrap(), (tools.clone(), Origin::Tools));
        let old = qemu(&host, "7.2.9");
        assert_eq!(look(&host, &cache).unwrap(), (tools, Origin::Tools));
        assert_eq!(look(&host, dir.path()).unwrap(), (old, Origin::Host), "better than none");
        let recent = qemu(&host, "11.1.0");
        assert_eq!(look(&host, &cache).unwrap(), (recent, Origin::Host));
    }

    #[test]
    fn what_was_tried_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = look(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("not in PATH"), "{error}");
        assert!(error.contains("11.1 or newer") && error.contains("cargo xtask setup"), "{error}");
        let other = dir.path().join(QEMU);
        std::os::unix::fs::symlink("/bin/echo", &other).unwrap();
        let error = look(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} --version says", other.display())), "{error}");
        let error = Qemu::select(Some(&other)).unwrap_err().to_string();
        assert!(error.contains("expected \"QEMU emulator version X.Y\""), "{error}");
    }
}
