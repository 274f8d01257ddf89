// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The features of a cloud-hypervisor program, according to its own help.

use std::path::{Path, PathBuf};

use super::ask::ask;

/// Name of the program.
pub const PROGRAM: &str = "cloud-hypervisor";

/// Why pools are passed with `--pmem` and not through a back-end.
pub const NO_SHARED_MEMORY: &str = "its generic vhost-user device has no shared memory regions \
                                    (VHOST_USER_PROTOCOL_F_SHMEM), which vhost-famfs back-ends \
                                    need; it maps pools itself with --pmem";

/// The option of `--platform` for the machine's UUID, and its name before. Newer programs warn
/// about the old one.
pub(crate) const UUID_OPTION: &str = "system_uuid";
const OLD_UUID_OPTION: &str = "uuid";

/// What `--version` and `--help` report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudHypervisor {
    /// The program.
    pub program: PathBuf,
    /// Its version, as it prints it.
    pub version: String,
    /// Whether it has `--pmem` with `discard_writes`.
    pub pmem: bool,
    /// Whether it has the generic vhost-user device.
    pub generic_vhost_user: bool,
    /// Whether its help mentions shared memory regions for that device.
    pub shared_memory: bool,
    /// Its option for the machine's UUID, of `--platform`.
    pub uuid_option: &'static str,
    /// Whether its disks have an option for the format of the image.
    pub image_type: bool,
}

/// Why a program cannot be used as cloud-hypervisor.
#[derive(Debug, thiserror::Error)]
pub enum CloudHypervisorError {
    /// It does not start.
    #[error("cannot run {} {argument}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The argument.
        argument: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It printed something else.
    #[error("{} --version says {found:?}, expected \"cloud-hypervisor vX.Y\"", program.display())]
    Unknown {
        /// The program.
        program: PathBuf,
        /// The first line of its output.
        found: String,
    },
}

impl CloudHypervisor {
    /// The newest known one, found by its name where it runs.
    #[must_use]
    pub fn newest() -> Self {
        Self {
            program: PROGRAM.into(),
            version: String::new(),
            pmem: true,
            generic_vhost_user: true,
            shared_memory: false,
            uuid_option: UUID_OPTION,
            image_type: true,
        }
    }

    /// How its VMs can get pools, for the user.
    #[must_use]
    pub fn transports(&self) -> &'static str {
        match (self.pmem, self.generic_vhost_user, self.shared_memory) {
            (false, _, _) => "it has no --pmem with discard_writes, so its VMs cannot use pools",
            (_, _, true) => {
                "it maps pools itself with --pmem; its vhost-user device has shared memory \
                 regions, which vhost-famfs does not use yet"
            }
            (_, true, false) => NO_SHARED_MEMORY,
            (_, false, false) => {
                "it maps pools itself with --pmem; it has no generic vhost-user device"
            }
        }
    }

    /// Runs a program to find out.
    ///
    /// # Errors
    /// It does not start or not end, or its output is not that of cloud-hypervisor.
    pub fn of(program: &Path) -> Result<Self, CloudHypervisorError> {
        let said = |argument| {
            ask(program, argument).map_err(|source| {
                let program = program.into();
                CloudHypervisorError::Run { program, argument, source }
            })
        };
        let version = said("--version")?;
        let first = version.lines().next().unwrap_or_default();
        let version = first.strip_prefix("cloud-hypervisor v").map(str::to_owned);
        let version = version.ok_or_else(|| CloudHypervisorError::Unknown {
            program: program.into(),
            found: first.into(),
        })?;
        let help = said("--help")?;
        let device = option(&help, "--generic-vhost-user");
        let says = |name, word| option(&help, name).is_some_and(|text| text.contains(word));
        Ok(Self {
            program: program.into(),
            version,
            pmem: says("--pmem", "discard_writes"),
            generic_vhost_user: device.is_some(),
            shared_memory: device.is_some_and(|text| {
                let text = text.to_lowercase();
                text.contains("shmem") || text.contains("shared memory")
            }),
            uuid_option: match says("--platform", UUID_OPTION) {
                true => UUID_OPTION,
                false => OLD_UUID_OPTION,
            },
            image_type: says("--disk", "image_type"),
        })
    }
}

/// The part of a help text about an option, up to the next option.
fn option<'t>(help: &'t str, name: &str) -> Option<&'t str> {
    let is_option = |line: &str| line.trim_start().starts_with('-');
    let mut offset = 0;
    let mut begin = None;
    for line in help.split_inclusive('\n') {
        if begin.is_some() && is_option(line) {
            break;
        }
        if is_option(line) && line.split([' ', ',', '=', '\n']).any(|word| word == name) {
            begin = Some(offset);
        }
        offset += line.len();
    }
    begin.map(|begin| &help[begin..offset])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_options_text_ends_at_the_next_option() {
        let help = "Options:\n      --net <net>  none\n      --pmem <pmem>\n          file, \
                    discard_writes\n  -v  more\n";
        assert!(option(help, "--pmem").unwrap().ends_with("discard_writes\n"));
        assert!(option(help, "--net").unwrap().ends_with("none\n"));
        assert!(option(help, "-v").unwrap().ends_with("more\n"));
        assert_eq!(option(help, "--generic-vhost-user"), None);
    }

    #[test]
    fn what_is_offered_is_read_from_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("ch");
        let write = |script: &str| {
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        };
        write(
            "case $1 in --version) echo cloud-hypervisor v53.0.0;; \
             *) echo '  --pmem <p>  file=,discard_writes=on|off'; \
             echo '  --generic-vhost-user <g>  virtio_id=,socket='; \
             echo '  --platform <p>  uuid=,oem_strings='; echo '  --disk <d>  path=';; esac",
        );
        let found = CloudHypervisor::of(&program).unwrap();
        assert_eq!(found.version, "53.0.0");
        assert!(found.uuid_option == "uuid" && !found.image_type, "{found:?}");
        assert!(found.pmem && found.generic_vhost_user && !found.shared_memory, "{found:?}");
        write(
            "case $1 in --version) echo cloud-hypervisor v54.0.0;; \
             *) echo '  --platform <p>  uuid=,system_uuid='; \
             echo '  --disk <d>  path=,image_type=';; esac",
        );
        let found = CloudHypervisor::of(&program).unwrap();
        assert!(found.uuid_option == "system_uuid" && found.image_type, "{found:?}");
        write("echo something else");
        let error = CloudHypervisor::of(&program).unwrap_err().to_string();
        assert!(error.contains("says \"something else\""), "{error}");
    }
}
