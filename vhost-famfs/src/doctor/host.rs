// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What back-ends and VMs need from the host besides a VMM: programs, a directory for sockets, the
//! sandbox.

use std::fs;
use std::path::Path;

use rustix::fs::Access;

use super::{Finding, Status};
use crate::cluster::host::runtime_dir;
use crate::vm::find_in_path;

/// All checks.
pub(super) fn examine() -> Vec<Finding> {
    vec![setpriv(), runtime(), sandbox(Path::new("/proc/sys/kernel/seccomp/actions_avail"))]
}

/// `setpriv` starts VMs that end together with the program that started them.
fn setpriv() -> Finding {
    const CHECK: &str = "setpriv";
    match find_in_path("setpriv") {
        Some(program) => Finding::ok(CHECK, program.display().to_string()),
        None => {
            let found =
                "not in PATH: VMs cannot be made to end together with the program that starts them";
            Finding::with(CHECK, Status::Failed, found, "install the package util-linux")
        }
    }
}

/// The directory for sockets: back-ends create sockets there, and the VMM connects to them.
fn runtime() -> Finding {
    const CHECK: &str = "sockets";
    let dir = match runtime_dir() {
        Ok(dir) => dir,
        Err(error) => {
            let fix = "log in, or: export XDG_RUNTIME_DIR=$(mktemp -d /dev/shm/run-XXXXXX)";
            return Finding::with(CHECK, Status::Failed, error.to_string(), fix);
        }
    };
    // The first cluster creates it; until then, the check applies to its parent.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(CHECK, format!("in {}", dir.display())),
        Err(errno) => Finding::with(
            CHECK,
            Status::Failed,
            format!("cannot create {}: {}: {errno}", dir.display(), there.display()),
            "set XDG_RUNTIME_DIR to a directory of your own with mode 0700",
        ),
    }
}

/// The system call filter of back-ends.
fn sandbox(actions: &Path) -> Finding {
    const CHECK: &str = "seccomp";
    let text = fs::read_to_string(actions).unwrap_or_default();
    if text.split_ascii_whitespace().any(|action| action == "kill_process") {
        return Finding::ok(
            CHECK,
            "the kernel can kill a back-end that makes a forbidden system \
                                   call",
        );
    }
    let found = "the kernel has no system call filter: back-ends will not start";
    let fix = "boot a kernel with CONFIG_SECCOMP_FILTER, or start back-ends with --sandbox none";
    Finding::with(CHECK, Status::Failed, found, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_a_filter_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(sandbox(file.path()).status, Status::Failed);
        fs::write(file.path(), "kill_process kill_thread log allow\n").unwrap();
        assert_eq!(sandbox(file.path()).status, Status::Ok);
    }
}
