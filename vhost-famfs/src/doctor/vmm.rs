// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs that run virtual machines.

use std::env;
use std::path::{Path, PathBuf};

use super::{Finding, Status};
use crate::cluster::host::QEMU_VARIABLE;
use crate::vm::cloud_hypervisor::{self, CloudHypervisor};
use crate::vm::{Accelerator, Confinement, Qemu, QemuVersion, find_in_path, has_filter};

const SETUP: &str = "install the package qemu-system-x86, or run: cargo xtask setup";

/// The QEMU that `up` would use.
pub(super) fn qemu(given: Option<&Path>) -> (Vec<Finding>, Option<PathBuf>) {
    let named = env::var_os(QEMU_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    match Qemu::select(given.or(named.as_deref())) {
        Ok(Qemu { program, version, origin }) => {
            let found = format!("{} {version}, {origin}", program.display());
            let finding = Finding::ok("qemu", format!("{found}{}", lacks(version)));
            (vec![finding, sandbox(&program)], Some(program))
        }
        Err(error) => {
            let finding = Finding::with(
                "qemu",
                Status::Failed,
                famfs::text::error_report::one_line(&error),
                SETUP,
            );
            (vec![finding], None)
        }
    }
}

/// What an older QEMU cannot do. Clusters run with it nonetheless.
fn lacks(version: QemuVersion) -> String {
    let mut without = Vec::new();
    if version < QemuVersion::SHARED_MEMORY {
        without.push(format!(
            "no back-ends and no slices, which need {}: VMs map the whole pool (transport pmem)",
            QemuVersion::SHARED_MEMORY
        ));
    }
    if version < QemuVersion::READ_ONLY_MEMORY {
        without.push(format!(
            "no root in memory, which needs {}: VMs have it on a disk",
            QemuVersion::READ_ONLY_MEMORY
        ));
    }
    if without.is_empty() { String::new() } else { format!("; {}", without.join("; ")) }
}

/// What a guest that breaks out into QEMU could reach.
fn sandbox(qemu: &Path) -> Finding {
    const CHECK: &str = "qemu sandbox";
    if !has_filter(qemu) {
        let found =
            "built without its system call filter (-sandbox): `up` does not start VMs with it";
        let fix = "install a QEMU with seccomp, or run it without a filter: `up --unconfined`";
        return Finding::with(CHECK, Status::Failed, found, fix);
    }
    let (confinement, reason) = Confinement::strongest();
    let found = format!("{confinement} ({reason})");
    if confinement == Confinement::Filter && rustix::process::geteuid().is_root() {
        let fix = "start clusters as an ordinary user";
        return Finding::with(CHECK, Status::Warning, found, fix);
    }
    Finding::ok(CHECK, found)
}

/// Whether the processor runs guests directly.
pub(super) fn kvm(qemu: Option<&Path>) -> Finding {
    const CHECK: &str = "kvm";
    let Some(qemu) = qemu else {
        return Finding::with(CHECK, Status::Absent, "not checked: no QEMU found", SETUP);
    };
    let (accelerator, reason) = Accelerator::detect(qemu);
    match accelerator {
        Accelerator::Kvm => Finding::ok(CHECK, reason),
        Accelerator::Tcg | Accelerator::TcgThreads => Finding::with(
            CHECK,
            Status::Warning,
            format!("{reason}: guests are emulated (TCG), which is slow"),
            if reason.contains("/dev/kvm") {
                "modprobe kvm_intel or kvm_amd; join the group that owns /dev/kvm"
            } else {
                "enable virtualization in the firmware, or nesting in the outer hypervisor"
            },
        ),
    }
}

/// Whether the other VMM can use pools.
pub(super) fn cloud_hypervisor() -> Finding {
    const CHECK: &str = "cloud-hypervisor";
    const INSTALL: &str = "only needed for up --emit cloud-hypervisor: install it";
    let Some(program) = find_in_path(cloud_hypervisor::PROGRAM) else {
        return Finding::with(CHECK, Status::Absent, "not in PATH", INSTALL);
    };
    match CloudHypervisor::of(&program) {
        Ok(found) => {
            let text = format!("{} {}: {}", program.display(), found.version, found.transports());
            if found.pmem {
                Finding::ok(CHECK, text)
            } else {
                Finding::with(
                    CHECK,
                    Status::Warning,
                    text,
                    "install a version with --pmem discard_writes",
                )
            }
        }
        Err(error) => Finding::with(CHECK, Status::Warning, error.to_string(), INSTALL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_qemu_is_told_by_what_it_lacks() {
        let lacks = |text: &str| lacks(text.parse().unwrap());
        assert_eq!(lacks("QEMU emulator version 11.1.3"), "");
        let debian13 = lacks("QEMU emulator version 10.0.2");
        assert!(debian13.contains("slices, which need 11.1") && !debian13.contains("root"));
        assert!(lacks("QEMU emulator version 7.2.22").contains("root in memory, which needs 8.2"));
    }
}
