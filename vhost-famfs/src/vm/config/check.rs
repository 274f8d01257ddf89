// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks whether a configuration describes a VM that can run.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use famfs::text::units::Bytes;
use protocol::credentials::{self, CredentialError};

use super::{Console, PoolDevice, VmConfig};
use crate::device::listen::MAX_PATH;
use crate::pool::ALIGNMENT;
use crate::vm::system::Start;

/// Minimum memory for the appliance to boot, in bytes.
const MIN_MEMORY: u64 = 256 << 20;

/// Maximum length of a disk's serial number (virtio 1.3, 5.2: `VIRTIO_BLK_ID_BYTES`).
const MAX_SERIAL: usize = 20;

/// Why a configuration is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that becomes part of paths, host names or options contains other characters.
    #[error("{what} {value:?}: expected 1 to {max} letters, digits or '-'")]
    Word {
        /// What it names.
        what: &'static str,
        /// The value.
        value: String,
        /// Maximum length.
        max: usize,
    },
    /// Too little memory, or not a multiple of 2 MiB.
    #[error("VM {name}: memory of {}, expected a multiple of 2 MiB, at least 256 MiB", Bytes(*memory))]
    Memory {
        /// The VM.
        name: String,
        /// The amount.
        memory: u64,
    },
    /// It has no processor.
    #[error("VM {name}: 0 processors, expected at least 1")]
    Cpus {
        /// The VM.
        name: String,
    },
    /// A pool that cannot be mapped.
    #[error("VM {name}: pool {}: size of {}, expected a multiple of 2 MiB", path.display(), Bytes(*size))]
    PoolSize {
        /// The VM.
        name: String,
        /// The pool.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// A socket path that is too long for the kernel.
    #[error(
        "VM {name}: socket path {} has {} bytes, but only {MAX_PATH} are allowed; use a shorter \
         directory", path.display(), path.as_os_str().len()
    )]
    SocketPath {
        /// The VM.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// An argument that cannot be passed to any program.
    #[error("VM {name}: argument {argument:?}: it has a NUL byte")]
    Argument {
        /// The VM.
        name: String,
        /// The argument.
        argument: String,
    },
    /// A credential that SMBIOS cannot represent.
    #[error("VM {name}: credential {id:?} has a NUL or line feed in its name or value")]
    Credential {
        /// The VM.
        name: String,
        /// The credential.
        id: String,
    },
    /// A credential that the appliance does not know.
    #[error("VM {name}: {error}")]
    Meaning {
        /// The VM.
        name: String,
        /// What is wrong with it.
        error: CredentialError,
    },
}

impl VmConfig {
    /// Checks whether it can run.
    pub(in crate::vm) fn check(&self) -> Result<(), ConfigError> {
        let name = &self.name;
        word("VM name", name, 32)?;
        if self.cpus == 0 {
            return Err(ConfigError::Cpus { name: name.clone() });
        }
        if self.memory < MIN_MEMORY || !self.memory.is_multiple_of(ALIGNMENT) {
            return Err(ConfigError::Memory { name: name.clone(), memory: self.memory });
        }
        for (id, value) in &self.credentials {
            credentials::check(id, value)
                .map_err(|error| ConfigError::Meaning { name: name.clone(), error })?;
        }
        for disk in &self.disks {
            word("disk serial", &disk.serial, MAX_SERIAL)?;
        }
        let mut sockets = vec![self.paths.agent.as_path(), &self.paths.qmp];
        sockets.extend(self.paths.commands.iter().map(PathBuf::as_path));
        if matches!(self.console, Console::Socket { .. }) {
            sockets.push(&self.paths.console);
        }
        for pool in &self.pools {
            match pool {
                PoolDevice::Shmem { socket } => sockets.push(socket),
                PoolDevice::Pmem { path, size, .. } => {
                    if *size == 0 || !size.is_multiple_of(ALIGNMENT) {
                        let (name, path) = (name.clone(), path.clone());
                        return Err(ConfigError::PoolSize { name, path, size: *size });
                    }
                }
            }
        }
        if let Some(path) = sockets.into_iter().find(|path| path.as_os_str().len() > MAX_PATH) {
            return Err(ConfigError::SocketPath { name: name.clone(), path: path.to_owned() });
        }
        let arguments = self.kernel_args.iter().map(|word| OsStr::new(word.as_str()));
        let append = match self.system.own().map(|own| &own.start) {
            Some(Start::Kernel { append, .. }) => Some(OsStr::new(append.as_str())),
            _ => None,
        };
        let more = self.qemu_args.iter().map(OsString::as_os_str);
        let mut arguments = arguments.chain(append).chain(more);
        if let Some(found) = arguments.find(|word| word.as_bytes().contains(&0)) {
            let argument = found.to_string_lossy().into_owned();
            return Err(ConfigError::Argument { name: name.clone(), argument });
        }
        let unfit = |text: &str| text.contains(['\0', '\n']);
        if let Some((id, _)) = self.credentials.iter().find(|(id, value)| unfit(id) || unfit(value))
        {
            return Err(ConfigError::Credential { name: name.clone(), id: id.clone() });
        }
        Ok(())
    }
}

fn word(what: &'static str, value: &str, max: usize) -> Result<(), ConfigError> {
    let fits = (1..=max).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(()) } else { Err(ConfigError::Word { what, value: value.into(), max }) }
}

#[cfg(test)]
mod tests {
    use super::super::Disk;
    use super::*;

    #[test]
    fn what_cannot_be_run_is_refused() {
        type Change = fn(&mut VmConfig);
        let table: [(Change, &str); 12] = [
            (
                |c| {
                    c.credentials.insert("famfs.rol".into(), "client".into());
                },
                "VM vm1: unknown credential \"famfs.rol\"; known are famfs.no-pool",
            ),
            (|c| c.name = "a,b".into(), "VM name \"a,b\": expected 1 to 32 letters"),
            (|c| c.name = String::new(), "VM name \"\""),
            (|c| c.cpus = 0, "VM vm1: 0 processors"),
            (|c| c.memory = 100 << 20, "VM vm1: memory of 100 MiB, expected"),
            (|c| c.memory += 1, "VM vm1: memory of 1073741825 bytes"),
            (|c| c.paths.agent = "/x".repeat(60).into(), "only 107 are allowed"),
            (
                |c| {
                    let path = "/pool".into();
                    c.pools = vec![PoolDevice::Pmem { path, size: 4096, readonly: true }];
                },
                "VM vm1: pool /pool: size of 4 KiB, expected a multiple of 2 MiB",
            ),
            (
                |c| c.disks = vec![Disk { path: "/d".into(), serial: "x".repeat(21) }],
                "expected 1 to 20 letters",
            ),
            (|c| c.qemu_args.push("a\0b".into()), "argument \"a\\0b\": it has a NUL byte"),
            (|c| c.kernel_args.push("a\0b".into()), "argument \"a\\0b\": it has a NUL byte"),
            (
                |c| _ = c.credentials.insert("a".into(), "b\nc".into()),
                "VM vm1: credential \"a\" has a NUL or line feed",
            ),
        ];
        for (change, expected) in table {
            let mut config = VmConfig::for_tests();
            change(&mut config);
            let error = config.command_line().unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
