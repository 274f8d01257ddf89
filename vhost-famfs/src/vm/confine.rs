// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Confines QEMU, so that a guest that breaks out of it can do less to the host.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::version::QemuVersion;

/// The user and group id that the kernel uses for nobody (`DEFAULT_OVERFLOWUID` of
/// `linux/highuid.h`).
const NOBODY: u32 = 65534;

/// The capabilities that QEMU needs to open its files and to become another user, with their names
/// in setpriv(1). The last one is for the program that enters the project's tools tree.
const FOR_THE_START: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::SETUID, "setuid"),
    (CapabilitySet::SETGID, "setgid"),
    (CapabilitySet::DAC_OVERRIDE, "dac_override"),
    (CapabilitySet::SYS_ADMIN, "sys_admin"),
];

/// How a QEMU is confined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confinement {
    /// Not confined.
    None,
    /// A system call filter, and no new privileges.
    Filter,
    /// These, and before the guest runs, QEMU becomes user nobody, without capabilities. For root.
    Nobody {
        /// The capabilities that it has until then.
        until_then: Vec<String>,
    },
}

impl Confinement {
    /// The strictest confinement that this user and this QEMU allow, and for the user the reason
    /// why it is not stricter.
    #[must_use]
    pub fn strongest() -> (Self, &'static str) {
        if !rustix::process::geteuid().is_root() {
            return (Self::Filter, "it runs as your user");
        }
        let maps = ["/proc/self/uid_map", "/proc/self/gid_map"];
        if !maps.iter().all(|map| fs::read_to_string(map).is_ok_and(|text| has(&text, NOBODY))) {
            return (Self::Filter, "it stays root: this user namespace has no user 65534");
        }
        let ours = rustix::thread::capabilities(None)
            .map_or(CapabilitySet::empty(), |sets| sets.permitted);
        Self::of_root(ours)
    }

    /// The strictest confinement for a root user with these capabilities.
    fn of_root(ours: CapabilitySet) -> (Self, &'static str) {
        if !ours.contains(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETPCAP) {
            return (Self::Filter, "it stays root: this root may not become another user");
        }
        // As in a container. Then the mark in the environment of another user's process could not
        // be read, and `down` would not find the process.
        if !ours.contains(CapabilitySet::SYS_PTRACE) {
            let why = "it stays root: this root may not examine processes of other users \
                       (CAP_SYS_PTRACE), so it would not find QEMU again";
            return (Self::Filter, why);
        }
        let until_then = FOR_THE_START
            .iter()
            .filter(|(set, _)| ours.contains(*set))
            .map(|(_, name)| (*name).to_owned());
        (
            Self::Nobody { until_then: until_then.collect() },
            "it becomes nobody before the guest runs",
        )
    }

    /// The arguments before the program's name.
    #[must_use]
    pub fn prefix(&self) -> Vec<OsString> {
        let words: Vec<String> = match self {
            Self::None => return Vec::new(),
            Self::Filter => ["setpriv", "--no-new-privs", "--"].map(Into::into).into(),
            // In two steps, because a capability that is not in the bounding set cannot become
            // inheritable. A program that root executes gets the inheritable capabilities; other
            // users get none of them.
            Self::Nobody { until_then } => {
                let inherit = until_then.iter().map(|name| format!("+{name}")).collect::<Vec<_>>();
                let inherit = format!("--inh-caps={}", inherit.join(","));
                [
                    "setpriv",
                    &inherit,
                    "--",
                    "setpriv",
                    "--no-new-privs",
                    "--bounding-set=-all",
                    "--",
                ]
                .map(Into::into)
                .into()
            }
        };
        words.into_iter().map(Into::into).collect()
    }

    /// QEMU's options for it.
    pub(super) fn options(&self, version: QemuVersion) -> Vec<(&'static str, String)> {
        // Becoming nobody needs the system calls that this would deny. They are of no use to
        // nobody, who has no capabilities and no new privileges.
        let elevate = match self {
            Self::None => return Vec::new(),
            Self::Filter => "deny",
            Self::Nobody { .. } => "allow",
        };
        let filter =
            format!("on,obsolete=deny,elevateprivileges={elevate},spawn=deny,resourcecontrol=deny");
        let mut options = vec![("-sandbox", filter)];
        if matches!(self, Self::Nobody { .. }) {
            options.push(if version >= QemuVersion::RUN_WITH_USER {
                ("-run-with", format!("user={NOBODY}:{NOBODY}"))
            } else {
                ("-runas", format!("{NOBODY}:{NOBODY}"))
            });
        }
        options
    }

    /// The capabilities that a systemd unit must leave in the bounding set.
    pub(crate) fn bounding_set(&self) -> Option<String> {
        let Self::Nobody { until_then } = self else { return None };
        let names = until_then.iter().map(|name| format!("CAP_{}", name.to_uppercase()));
        Some(names.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "not confined",
            Self::Filter => "system call filter, no new privileges",
            Self::Nobody { .. } => {
                "system call filter, no new privileges, no capabilities, user 65534"
            }
        })
    }
}

/// Whether a QEMU was built with its system call filter.
#[must_use]
pub fn has_filter(qemu: &Path) -> bool {
    let mut command = Command::new(qemu);
    command.args(["-sandbox", "on", "--version"]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether an id is in a map of user_namespaces(7), whose lines have the first id inside, the first
/// id outside, and the count.
fn has(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_maps() {
        assert!(has("         0          0 4294967295\n", NOBODY));
        assert!(!has("0 100000 65534\n", NOBODY));
        assert!(has("0 1000 1\n65534 100000 1\n", NOBODY));
        assert!(!has("", NOBODY) && !has("x y z\n", NOBODY));
    }

    #[test]
    fn root_keeps_nothing_but_what_the_start_takes() {
        let nobody = Confinement::Nobody { until_then: vec!["setuid".into(), "setgid".into()] };
        let words = nobody.prefix();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let expected =
            "setpriv --inh-caps=+setuid,+setgid -- setpriv --no-new-privs --bounding-set=-all --";
        assert_eq!(words.join(" "), expected);
        let options = nobody.options(QemuVersion::SHARED_MEMORY);
        assert_eq!(options[1], ("-run-with", "user=65534:65534".into()));
        let old = "7.2.22".parse::<QemuVersion>();
        assert!(old.is_err(), "only what QEMU prints is a version");
        let old = "QEMU emulator version 7.2.22".parse().unwrap();
        assert_eq!(nobody.options(old)[1], ("-runas", "65534:65534".into()));
        assert_eq!(nobody.bounding_set().unwrap(), "CAP_SETUID CAP_SETGID");
    }

    #[test]
    fn a_root_that_cannot_find_processes_of_nobody_makes_none() {
        let all = CapabilitySet::all();
        assert!(matches!(Confinement::of_root(all), (Confinement::Nobody { .. }, _)));
        for (missing, why) in [
            (CapabilitySet::SYS_PTRACE, "may not examine processes"),
            (CapabilitySet::SETUID, "may not become another user"),
        ] {
            let (confinement, told) = Confinement::of_root(all - missing);
            assert_eq!(confinement, Confinement::Filter);
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_qemu_without_a_filter_is_known() {
        assert!(has_filter(Path::new("/bin/true")));
        assert!(!has_filter(Path::new("/bin/false")));
        assert!(!has_filter(Path::new("/nonexistent")));
    }
}
