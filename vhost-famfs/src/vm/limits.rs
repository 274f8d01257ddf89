// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Limits of a process, which a control group keeps. systemd makes the group: on a host where it
//! runs, all control groups are its own, and it delegates them to users.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::select::find_in_path;

/// The program that starts another one in a new control group (systemd-run(1)).
const PROGRAM: &str = "systemd-run";

/// Weight of the processors' time of a process without limits (cgroup-v2, "Weights").
pub const DEFAULT_WEIGHT: u32 = 100;

/// Largest weight.
pub const MAX_WEIGHT: u32 = 10_000;

/// What a process may use of the host; by default all that there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Its share of the processors' time while others want it too, from 1 to [`MAX_WEIGHT`];
    /// others have [`DEFAULT_WEIGHT`].
    pub cpu_weight: Option<u32>,
    /// The most memory in bytes that is charged to it. Memory that several processes share is
    /// charged to the one that touched it first.
    pub memory_max: Option<u64>,
}

/// Why limits cannot be kept here.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// There is no systemd.
    #[error(
        "systemd does not run on this host, and only it makes control groups for VMs; omit the key, \
         or set the limit of a control group that this shell is in"
    )]
    NoSystemd,
    /// The program is not installed.
    #[error("{PROGRAM} was not found in PATH; install the package systemd")]
    NoProgram,
    /// The controller is missing.
    #[error(
        "the control groups of {} have the controllers \"{found}\", but not \"{wanted}\"; {way_out}",
        path.display()
    )]
    Controller {
        /// The parent of the groups.
        path: PathBuf,
        /// What there is.
        found: String,
        /// What is needed.
        wanted: &'static str,
        /// What to do.
        way_out: &'static str,
    },
}

impl Limits {
    /// Makes sure that the limits can be kept here, for processes of this user.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn check(&self) -> Result<(), LimitsError> {
        let found = find_in_path(PROGRAM);
        self.check_below(Path::new("/"), rustix::process::geteuid().as_raw(), found.as_deref())
    }

    /// The same with other places of what the host has.
    fn check_below(
        &self,
        host: &Path,
        uid: u32,
        program: Option<&Path>,
    ) -> Result<(), LimitsError> {
        let wanted = self.controllers();
        if wanted.is_empty() {
            return Ok(());
        }
        // As sd_booted(3) does it.
        if !host.join("run/systemd/system").is_dir() {
            return Err(LimitsError::NoSystemd);
        }
        program.ok_or(LimitsError::NoProgram)?;
        let mut path = host.join("sys/fs/cgroup");
        if uid != 0 {
            path.extend(["user.slice", &format!("user-{uid}.slice")]);
            path.push(format!("user@{uid}.service"));
        }
        let found = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let way_out = match (uid, found.trim()) {
            (0, "") => "boot with systemd.unified_cgroup_hierarchy=1",
            (0, _) => "boot a kernel that has it, without cgroup_disable=",
            (_, "") => "log in with a user manager (systemctl --user), or be root",
            _ => "let the host delegate it (Delegate= of user@.service), or be root",
        };
        for wanted in wanted {
            if !found.split_whitespace().any(|found| found == wanted) {
                let found = found.trim().to_owned();
                return Err(LimitsError::Controller { path, found, wanted, way_out });
            }
        }
        Ok(())
    }

    /// The controllers that keep them.
    fn controllers(&self) -> Vec<&'static str> {
        let cpu = self.cpu_weight.map(|_| "cpu");
        cpu.into_iter().chain(self.memory_max.map(|_| "memory")).collect()
    }

    /// The limits as settings of a unit (systemd.resource-control(5)).
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let weight = self.cpu_weight.map(|weight| format!("CPUWeight={weight}"));
        let memory = self.memory_max.map(|bytes| format!("MemoryMax={bytes}"));
        weight.into_iter().chain(memory).collect()
    }

    /// The words in front of a command that start it with these limits: none if there are none. The
    /// process of these words becomes that of the command.
    #[must_use]
    pub fn prefix(&self, description: &str) -> Vec<OsString> {
        let settings = self.settings();
        if settings.is_empty() {
            return Vec::new();
        }
        let manager = if rustix::process::geteuid().is_root() { "--system" } else { "--user" };
        let mut words: Vec<OsString> =
            [PROGRAM, manager, "--scope", "--quiet", "--collect"].map(Into::into).into();
        words.push(format!("--description={description}").into());
        words.extend(settings.into_iter().map(|setting| format!("--property={setting}").into()));
        words.push("--".into());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Limits = Limits { cpu_weight: Some(50), memory_max: Some(1 << 30) };

    #[test]
    fn limits_are_settings_of_a_scope() {
        assert_eq!(Limits::default().prefix("x"), [""; 0]);
        let words = BOTH.prefix("VM a");
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[0], "systemd-run");
        assert_eq!(
            words[2..],
            [
                "--scope",
                "--quiet",
                "--collect",
                "--description=VM a",
                "--property=CPUWeight=50",
                "--property=MemoryMax=1073741824",
                "--",
            ]
        );
    }

    #[test]
    fn what_keeps_the_limits_must_be_there() {
        let host = tempfile::tempdir().unwrap();
        let program = Some(Path::new("/usr/bin/systemd-run"));
        let check = |limits: Limits, uid, program| {
            limits.check_below(host.path(), uid, program).map_err(|error| error.to_string())
        };
        check(Limits::default(), 0, None).unwrap();
        assert!(check(BOTH, 0, program).unwrap_err().contains("systemd does not run"));
        fs::create_dir_all(host.path().join("run/systemd/system")).unwrap();
        assert!(check(BOTH, 0, None).unwrap_err().contains("not found in PATH"));
        let groups = host.path().join("sys/fs/cgroup");
        fs::create_dir_all(groups.join("user.slice/user-1000.slice/user@1000.service")).unwrap();
        let offer = |dir: &str, controllers: &str| {
            fs::write(groups.join(dir).join("cgroup.controllers"), controllers).unwrap();
        };
        let without = check(BOTH, 0, program).unwrap_err();
        assert!(without.contains("have the controllers \"\", but not \"cpu\"; boot"), "{without}");
        offer("", "cpuset cpu io memory pids\n");
        check(BOTH, 0, program).unwrap();
        offer("user.slice/user-1000.slice/user@1000.service", "memory pids\n");
        let partly = check(BOTH, 1000, program).unwrap_err();
        assert!(partly.contains("\"memory pids\", but not \"cpu\"; let the host"), "{partly}");
        check(Limits { cpu_weight: None, ..BOTH }, 1000, program).unwrap();
    }
}
