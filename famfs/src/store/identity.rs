// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who uses a file system: a running system, and how a program notices that its own has become
//! another one.
//!
//! A virtual machine that is resumed from a snapshot goes on as if nothing had happened, while the
//! one that was saved, or another clone of it, may live as well. What its programs hold in the
//! memory, the master's lease and a place among the members, is not theirs then. So they ask
//! [`Identity::has_changed`] before they write there.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::store::role;
use crate::system::{generation, process};

/// A running system, or the host of a pool file, which has no system UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningSystem {
    /// Its system UUID.
    pub system: Uuid,
    /// Its machine UUID, if known.
    pub machine: Option<Uuid>,
    /// Which run of it: its kernel's boot id, combined with the [generation](generation) of a
    /// virtual machine that has one.
    pub boot: Uuid,
}

impl RunningSystem {
    /// Whether it is the host of a pool file: its programs use the pool without a mount.
    pub fn is_host(&self) -> bool {
        self.system.is_nil()
    }
}

impl std::fmt::Display for RunningSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is_host() {
            true => write!(f, "a command with --pool")?,
            false => write!(f, "system {}", self.system)?,
        }
        if let Some(machine) = self.machine {
            write!(f, " on machine {machine}")?;
        }
        write!(f, ", boot {}", self.boot)
    }
}

/// Why it is not known who this system is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// This kernel does not report its boot id.
    #[error("cannot read {}, which tells this system from others", process::BOOT_ID)]
    BootId(#[source] io::Error),
    /// The generation is there, and cannot be read.
    #[error(
        "cannot read the generation of this VM in {}, which tells it from its clones; it takes root \
         with CAP_SYS_ADMIN", .0.display()
    )]
    Generation(PathBuf, #[source] io::Error),
}

/// A running system as it was when it was asked who it is.
#[derive(Clone, Debug)]
pub struct Identity {
    system: RunningSystem,
    /// Where to see that it has become another one, and what was there.
    origin: Option<(PathBuf, Option<Uuid>)>,
}

impl Identity {
    /// This system, with the UUID `system`.
    ///
    /// # Errors
    /// It is not known which run of it this is.
    pub fn this(system: Uuid) -> Result<Self, IdentityError> {
        Self::here(system, generation::FILES.into())
    }

    fn here(system: Uuid, files: PathBuf) -> Result<Self, IdentityError> {
        let boot = process::boot_id().map_err(IdentityError::BootId)?;
        let machine = role::machine_uuid();
        // Whoever uses a pool file on the host need not be root, so could not read it. The file's
        // locks keep the host's programs apart.
        if system.is_nil() {
            return Ok(Self::of_another(RunningSystem { system, machine, boot }));
        }
        let generation = read(&files)?;
        let boot = running(boot, generation);
        Ok(Self {
            system: RunningSystem { system, machine, boot },
            origin: Some((files, generation)),
        })
    }

    /// Another system, for which this one writes. It stays the same.
    #[must_use]
    pub fn of_another(system: RunningSystem) -> Self {
        Self { system, origin: None }
    }

    /// Who it was.
    #[must_use]
    pub fn system(&self) -> RunningSystem {
        self.system
    }

    /// Whether this system is another one now: it was resumed from a snapshot.
    ///
    /// # Errors
    /// It is not known.
    pub fn has_changed(&self) -> Result<bool, IdentityError> {
        match &self.origin {
            Some((files, generation)) => Ok(read(files)? != *generation),
            None => Ok(false),
        }
    }
}

fn read(files: &Path) -> Result<Option<Uuid>, IdentityError> {
    generation::read(files).map_err(|error| IdentityError::Generation(files.to_owned(), error))
}

/// The id of a run: exclusive or. Two clones have one boot id, two boots of a machine that was
/// not resumed in between one generation, and neither pair can get the same id. With both different
/// they are independent random numbers, and so is the result.
fn running(boot: Uuid, generation: Option<Uuid>) -> Uuid {
    Uuid::from_u128(boot.as_u128() ^ generation.unwrap_or_default().as_u128())
}

/// A system with a generation that tests change.
#[cfg(test)]
pub(crate) mod stand_in {
    use std::fs;

    use super::*;

    pub(crate) struct Machine(tempfile::TempDir);

    impl Machine {
        pub(crate) fn new() -> Self {
            let machine = Self::without_generation();
            machine.resume(1);
            machine
        }

        pub(crate) fn without_generation() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// From now on it is a clone.
        pub(crate) fn resume(&self, generation: u128) {
            self.write(&Uuid::from_u128(generation).to_string());
        }

        pub(crate) fn write(&self, text: &str) {
            let dir = self.0.path().join(generation::LAUNCHER);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("raw"), text).unwrap();
        }

        pub(crate) fn identity(&self) -> Identity {
            self.ask(Uuid::from_u128(1)).unwrap()
        }

        pub(crate) fn ask(&self, system: Uuid) -> Result<Identity, IdentityError> {
            Identity::here(system, self.0.path().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stand_in::Machine;
    use super::*;

    #[test]
    fn a_resumed_machine_is_another_one() {
        let machine = Machine::new();
        let before = machine.identity();
        assert!(!before.has_changed().unwrap());
        assert_eq!(machine.identity().system(), before.system());
        machine.resume(2);
        assert!(before.has_changed().unwrap());
        let after = machine.identity();
        let (one, other) = (before.system(), after.system());
        assert_eq!((one.system, one.machine), (other.system, other.machine));
        assert_ne!(one.boot, other.boot);
        assert!(!after.has_changed().unwrap());
        assert!(!Identity::of_another(one).has_changed().unwrap());
    }

    #[test]
    fn without_a_generation_the_boot_id_counts() {
        let machine = Machine::without_generation();
        let plain = machine.identity();
        assert_eq!(plain.system().boot, process::boot_id().unwrap());
        assert!(!plain.has_changed().unwrap());
        // The kernel's module was loaded meanwhile.
        machine.resume(1);
        assert!(plain.has_changed().unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_no_answer() {
        let machine = Machine::new();
        let before = machine.identity();
        machine.write("");
        for error in
            [before.has_changed().unwrap_err(), machine.ask(Uuid::from_u128(1)).unwrap_err()]
        {
            assert!(matches!(error, IdentityError::Generation(..)), "{error}");
        }
    }

    #[test]
    fn boots_and_generations_do_not_cancel_out() {
        let id = |boot, generation: Option<u128>| {
            running(Uuid::from_u128(boot), generation.map(Uuid::from_u128))
        };
        assert_ne!(id(1, Some(8)), id(1, Some(9)));
        assert_ne!(id(1, Some(8)), id(2, Some(8)));
        assert_eq!(id(5, None), Uuid::from_u128(5));
    }
}
