// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What back-ends and VMs need of the host beside a VMM: programs, a place for sockets, the sandbox.

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

/// VMs that end with the program that started them.
fn setpriv() -> Finding {
    const CHECK: &str = "setpriv";
    match find_in_path("setpriv") {
        Some(program) => Finding::ok(CHECK, program.display().to_string()),
        None => {
            let found =
                "not in the search path: VMs cannot be tied to the program that starts them";
            Finding::with(CHECK, Status::Failed, found, "install the package util-linux")
        }
    }
}

/// Sockets for the VMM: made by the back-end, and the VMM must be able to connect to them.
fn runtime() -> Finding {
    const CHECK: &str = "sockets";
    let dir = match runtime_dir() {
        Ok(dir) => dir,
        Err(error) => {
            let mend = "export XDG_RUNTIME_DIR=/run/user/$(id -u)";
            return Finding::with(CHECK, Status::Failed, error.to_string(), mend);
        }
    };
    // It is made when the first cluster is; until then its parent counts.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(CHECK, format!("in {}", dir.display())),
        Err(errno) => Finding::with(
            CHECK,
            Status::Failed,
            format!("cannot make {}: {}: {errno}", dir.display(), there.display()),
            "set XDG_RUNTIME_DIR to a directory of your own, mode 0700",
        ),
    }
}

/// The system call filter of back-ends.
fn sandbox(actions: &Path) -> Finding {
    const CHECK: &str = "seccomp";
    let text = fs::read_to_string(actions).unwrap_or_default();
    if text.split_ascii_whitespace().any(|action| action == "kill_process") {
        return Finding::ok(CHECK, "the kernel can kill a back-end at a forbidden system call");
    }
    let found = "the kernel has no system call filter: back-ends do not start";
    let mend = "boot a kernel with CONFIG_SECCOMP_FILTER, or start them with --sandbox none";
    Finding::with(CHECK, Status::Failed, found, mend)
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
