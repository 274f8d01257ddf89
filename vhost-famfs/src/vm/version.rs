// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The version of a QEMU program.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ask::ask;

/// Version of a QEMU program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QemuVersion {
    major: u32,
    minor: u32,
}

/// Why a program is not a usable QEMU.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The program does not start, or not end.
    #[error("cannot run {} --version", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It printed something else.
    #[error("{} --version says {found:?}, expected \"QEMU emulator version X.Y\"", program.display())]
    Unknown {
        /// The program.
        program: PathBuf,
        /// The first line of its output.
        found: String,
    },
    /// Too old.
    #[error(
        "{} is QEMU {found}, but {purpose} needs {needed} or newer; \
         install a newer one, or run: cargo xtask setup", program.display()
    )]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: QemuVersion,
        /// The oldest version that is sufficient.
        needed: QemuVersion,
        /// What it is needed for.
        purpose: &'static str,
    },
}

impl QemuVersion {
    /// The first version with `VHOST_USER_BACKEND_SHMEM_MAP` and `vhost-user-test-device-pci`.
    pub const SHARED_MEMORY: Self = Self { major: 11, minor: 1 };

    /// The first version whose `memory-backend-file` has `rom=on`: guest memory that nothing can
    /// write to.
    pub const READ_ONLY_MEMORY: Self = Self { major: 8, minor: 2 };

    /// The first version with `-run-with user=`; older ones use `-runas`.
    pub(super) const RUN_WITH_USER: Self = Self { major: 9, minor: 1 };

    /// The first version whose machine works without a keyboard controller.
    pub(super) const NO_KEYBOARD: Self = Self { major: 7, minor: 0 };

    /// Asks a program for its version.
    ///
    /// # Errors
    /// It does not start or not end, or its output is not QEMU's.
    pub fn of(program: &Path) -> Result<Self, VersionError> {
        let text = ask(program, "--version")
            .map_err(|source| VersionError::Run { program: program.into(), source })?;
        text.parse().map_err(|()| VersionError::Unknown {
            program: program.into(),
            found: text.lines().next().unwrap_or_default().into(),
        })
    }

    /// Requires a version for a purpose.
    ///
    /// # Errors
    /// As [`Self::of`], or the program is older than `needed`.
    pub fn require(
        program: &Path,
        needed: Self,
        purpose: &'static str,
    ) -> Result<Self, VersionError> {
        let found = Self::of(program)?;
        if found < needed {
            return Err(VersionError::TooOld { program: program.into(), found, needed, purpose });
        }
        Ok(found)
    }
}

impl FromStr for QemuVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("QEMU emulator version ").ok_or(())?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let table = [
            ("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)\nCopyright", Ok((11, 1))),
            ("QEMU emulator version 7.2.17", Ok((7, 2))),
            ("QEMU emulator version 12.0", Ok((12, 0))),
            ("QEMU emulator version eleven", Err(())),
            ("qemu-img version 11.1.3", Err(())),
            ("", Err(())),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(major, minor)| QemuVersion { major, minor });
            assert_eq!(text.parse::<QemuVersion>(), expected, "{text:?}");
        }
        assert!(
            "QEMU emulator version 9.2.0".parse::<QemuVersion>().unwrap()
                < QemuVersion::SHARED_MEMORY
        );
    }

    #[test]
    fn a_program_that_is_no_qemu_is_named() {
        let error = QemuVersion::of(Path::new("/bin/echo")).unwrap_err().to_string();
        assert!(error.starts_with("/bin/echo --version says"), "{error}");
    }
}
