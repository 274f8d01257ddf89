// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The appliance's configuration: systemd credentials (systemd.io, "System and Service
//! Credentials").
//!
//! The host passes them in the firmware tables (SMBIOS type 11, `io.systemd.credential:NAME=VALUE`)
//! or on the kernel command line (`systemd.set_credential=NAME:VALUE`). Before it starts a VM, the
//! host checks them with [`check`]; the guest checks them again, because other programs start VMs
//! too.

use super::network::{self, Network};

/// Any value: do not attach a pool.
pub const NO_POOL: &str = "famfs.no-pool";
/// Any value: a root shell on the serial console; leaving it powers off the VM.
pub const CONSOLE: &str = "famfs.console";
/// Where the pool is mounted.
pub const MOUNT_POINT: &str = "famfs.mount-point";
/// `devdax` or `raw`: the view that the pool must have.
pub const VIEW: &str = "famfs.view";
/// `master` or `client`: the role that this VM must have for the pool.
pub const ROLE: &str = "famfs.role";
/// [`READ_WRITE`] or [`READ_ONLY`]: how the pool is mounted.
pub const ACCESS: &str = "famfs.access";
/// Programs may write to files.
pub const READ_WRITE: &str = "read-write";
/// Programs may only read files; the log is followed nevertheless.
pub const READ_ONLY: &str = "read-only";
/// Any value: programs in the pool cannot be run.
pub const NOEXEC: &str = "famfs.noexec";
/// A command to run once the pool is mounted. Its exit status is sent to the host, then the machine
/// powers off.
pub const RUN: &str = "famfs.run";
/// The addresses of the guest's network interface ([`Network`](super::network::Network)).
pub const NETWORK: &str = "famfs.network";
/// Any value: the agent also serves the host over vsock, at
/// [`VSOCK_PORT`](super::exec::VSOCK_PORT).
pub const VSOCK: &str = "famfs.vsock";
/// The guest's name.
pub const HOSTNAME: &str = "system.hostname";

/// Keys for SSH, defined by systemd for images with a server (systemd.io, "System Credentials").
/// The appliance has no server.
pub const SSH_KEYS: &str = "ssh.authorized_keys.root";

/// Where systemd tells the host that it is ready (systemd.io, "System Credentials").
pub const NOTIFY_SOCKET: &str = "vmm.notify_socket";

/// Where the pool is mounted if [`MOUNT_POINT`] is not set.
pub const DEFAULT_MOUNT_POINT: &str = "/mnt/famfs";

/// Prefix of our own credentials; others are for systemd or for programs in the pool.
const OURS: &str = "famfs.";

/// Writable directories, in which a mount point can be created.
const WRITABLE: [&str; 3] = ["/run/", "/tmp/", "/var/"];

/// Maximum length of a command ([`RUN`]): SMBIOS strings and kernel command lines are short.
const MAX_COMMAND: usize = 1024;

/// Why a credential is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Its name is unknown.
    #[error("unknown credential {name:?}; known are {}", known().join(", "))]
    Name {
        /// Its name is unknown.
        name: String,
    },
    /// Its value is not allowed.
    #[error("credential {name}={value:?}: expected {expected}")]
    Value {
        /// Its name is unknown.
        name: String,
        /// Its value is not allowed.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
}

/// A credential, its allowed values in words, and the check.
type Rule = (&'static str, &'static str, fn(&str) -> bool);

const RULES: [Rule; 11] = [
    (NO_POOL, "any value", |_| true),
    (CONSOLE, "any value", |_| true),
    (MOUNT_POINT, "/mnt/famfs or a directory below /run, /tmp or /var", is_mount_point),
    (VIEW, "devdax or raw", |value| ["devdax", "raw"].contains(&value)),
    (ROLE, "master or client", |value| ["master", "client"].contains(&value)),
    (ACCESS, "read-write or read-only", |value| [READ_WRITE, READ_ONLY].contains(&value)),
    (NOEXEC, "any value", |_| true),
    (RUN, "a command of at most 1024 bytes", |value| {
        !value.trim().is_empty() && value.len() <= MAX_COMMAND
    }),
    (VSOCK, "any value", |_| true),
    (NETWORK, network::EXPECTED, |value| value.parse::<Network>().is_ok()),
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
/// The name begins like ours but is unknown, or the value is not allowed.
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
            (NETWORK, "10.0.2.15/24,10.0.2.2"),
            (VSOCK, "1"),
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
            (NETWORK, "user"),
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
