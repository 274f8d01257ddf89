// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The appliance's configuration: systemd credentials (systemd.io, "System and Service
//! Credentials").
//!
//! The host gives them in the firmware's tables (SMBIOS type 11,
//! `io.systemd.credential:NAME=VALUE`) or on the kernel command line
//! (`systemd.set_credential=NAME:VALUE`). The host refuses what [`check`] refuses before it starts
//! a VM; the guest checks again, because others start VMs too.

/// Any value: nothing is attached.
pub const NO_POOL: &str = "famfs.no-pool";
/// Any value: a root shell on the serial console; leaving it powers off.
pub const CONSOLE: &str = "famfs.console";
/// Where the pool is mounted.
pub const MOUNT_POINT: &str = "famfs.mount-point";
/// `devdax` or `raw`: which view the pool must have.
pub const VIEW: &str = "famfs.view";
/// `master` or `client`: what this VM must be to the pool.
pub const ROLE: &str = "famfs.role";
/// [`READ_WRITE`] or [`READ_ONLY`]: how the pool is mounted.
pub const ACCESS: &str = "famfs.access";
/// Programs may write files.
pub const READ_WRITE: &str = "read-write";
/// They may not; the log is followed all the same.
pub const READ_ONLY: &str = "read-only";
/// A command to run when the pool is mounted; its exit status goes to the host and the machine
/// powers off.
pub const RUN: &str = "famfs.run";
/// The guest's name.
pub const HOSTNAME: &str = "system.hostname";

/// Keys for SSH: systemd's, for images with a server (systemd.io, "System Credentials"). The
/// appliance has none.
pub const SSH_KEYS: &str = "ssh.authorized_keys.root";

/// Where the pool is mounted without [`MOUNT_POINT`].
pub const DEFAULT_MOUNT_POINT: &str = "/mnt/famfs";

/// Those that begin so are ours: others are for systemd or for programs in the pool.
const OURS: &str = "famfs.";

/// Directories that can be written to, so that a mount point can be made there.
const WRITABLE: [&str; 3] = ["/run/", "/tmp/", "/var/"];

/// Longest command ([`RUN`]): SMBIOS strings and kernel command lines are short.
const MAX_COMMAND: usize = 1024;

/// A credential that the appliance does not know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The name.
    #[error("unknown credential {name:?}; known are {}", known().join(", "))]
    Name {
        /// The name.
        name: String,
    },
    /// The value.
    #[error("credential {name}={value:?}: expected {expected}")]
    Value {
        /// The name.
        name: String,
        /// The value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// What a credential may be, in words, and the check of it.
type Rule = (&'static str, &'static str, fn(&str) -> bool);

const RULES: [Rule; 8] = [
    (NO_POOL, "any value", |_| true),
    (CONSOLE, "any value", |_| true),
    (MOUNT_POINT, "/mnt/famfs or a directory below /run, /tmp or /var", is_mount_point),
    (VIEW, "devdax or raw", |value| ["devdax", "raw"].contains(&value)),
    (ROLE, "master or client", |value| ["master", "client"].contains(&value)),
    (ACCESS, "read-write or read-only", |value| [READ_WRITE, READ_ONLY].contains(&value)),
    (RUN, "a command of at most 1024 bytes", |value| {
        !value.trim().is_empty() && value.len() <= MAX_COMMAND
    }),
    (HOSTNAME, "1 to 64 letters, digits, '-' or '.'", |value| {
        (1..=64).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    }),
];

/// The names of all credentials that the appliance reads.
#[must_use]
pub fn known() -> Vec<&'static str> {
    RULES.iter().map(|(name, ..)| *name).collect()
}

/// Checks one credential.
///
/// # Errors
/// A name that begins like ours and is none of ours, or a value that its rule does not allow.
pub fn check(name: &str, value: &str) -> Result<(), CredentialError> {
    match RULES.iter().find(|(known, ..)| *known == name) {
        Some((_, _, allowed)) if allowed(value) => Ok(()),
        Some((_, expected, _)) => {
            Err(CredentialError::Value { name: name.into(), value: value.into(), expected })
        }
        None if name.starts_with(OURS) => Err(CredentialError::Name { name: name.into() }),
        None => Ok(()),
    }
}

fn is_mount_point(value: &str) -> bool {
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    let clean = !value.split('/').skip(1).any(|part| ["", ".", ".."].contains(&part));
    value == DEFAULT_MOUNT_POINT
        || plain && clean && WRITABLE.iter().any(|dir| value.starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_checked() {
        let long = "x".repeat(2000);
        let good = [
            (NO_POOL, ""),
            (MOUNT_POINT, "/mnt/famfs"),
            (MOUNT_POINT, "/run/pools/a"),
            (VIEW, "raw"),
            (ROLE, "client"),
            (ACCESS, "read-only"),
            (RUN, "sha256sum /mnt/famfs/a"),
            (HOSTNAME, "vm-1.example"),
            (SSH_KEYS, "is systemd's business"),
        ];
        for (name, value) in good {
            assert_eq!(check(name, value), Ok(()), "{name}={value}");
        }
        let bad = [
            ("famfs.rol", "client"),
            (MOUNT_POINT, "/etc"),
            (MOUNT_POINT, "/run/../etc"),
            (MOUNT_POINT, "/run//a"),
            (MOUNT_POINT, "/run/a b"),
            (VIEW, "devdax "),
            (ROLE, ""),
            (ACCESS, "rw"),
            (RUN, " "),
            (RUN, &long),
            (HOSTNAME, "a b"),
        ];
        for (name, value) in bad {
            assert!(check(name, value).is_err(), "{name}={value}");
        }
        let error = check("famfs.rol", "client").unwrap_err().to_string();
        assert!(error.contains("unknown credential \"famfs.rol\"") && error.contains("famfs.role"));
        let error = check(ROLE, "boss").unwrap_err().to_string();
        assert_eq!(error, "credential famfs.role=\"boss\": expected master or client");
    }
}
