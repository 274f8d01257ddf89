// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs virtual machines.

use std::env;
use std::path::{Path, PathBuf};

use super::{Finding, Status};
use crate::cluster::host::QEMU_VARIABLE;
use crate::vm::cloud_hypervisor::{self, CloudHypervisor};
use crate::vm::{Accelerator, Confinement, Qemu, QemuVersion, find_in_path, has_filter};

const SETUP: &str = "install QEMU 11.1 or newer, or run: cargo xtask setup";

/// The QEMU that `up` would take.
pub(super) fn qemu(given: Option<&Path>) -> (Vec<Finding>, Option<PathBuf>) {
    let named = env::var_os(QEMU_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    match Qemu::select(given.or(named.as_deref())) {
        Ok(Qemu { program, version, origin }) => {
            let found = format!("{} {version}, {origin}", program.display());
            let finding = if version >= QemuVersion::SHARED_MEMORY {
                Finding::ok("qemu", found)
            } else {
                let found =
                    format!("{found}: too old for back-ends, VMs map whole pools themselves");
                Finding::with("qemu", Status::Warning, found, SETUP)
            };
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

/// What a guest that breaks QEMU would find.
fn sandbox(qemu: &Path) -> Finding {
    const CHECK: &str = "qemu sandbox";
    if !has_filter(qemu) {
        let found =
            "built without its system call filter (-sandbox): `up` does not start VMs with it";
        let mend = "install a QEMU with seccomp, or accept that with `up --unconfined`";
        return Finding::with(CHECK, Status::Failed, found, mend);
    }
    let (confinement, reason) = Confinement::strongest();
    let found = format!("{confinement} ({reason})");
    if confinement == Confinement::Filter && rustix::process::geteuid().is_root() {
        let mend = "start clusters as an ordinary user";
        return Finding::with(CHECK, Status::Warning, found, mend);
    }
    Finding::ok(CHECK, found)
}

/// Whether guests run on the processor itself.
pub(super) fn kvm(qemu: Option<&Path>) -> Finding {
    const CHECK: &str = "kvm";
    let Some(qemu) = qemu else {
        return Finding::with(CHECK, Status::Absent, "not tried without QEMU", SETUP);
    };
    let (accelerator, reason) = Accelerator::detect(qemu);
    match accelerator {
        Accelerator::Kvm => Finding::ok(CHECK, reason),
        Accelerator::Tcg | Accelerator::TcgThreads => Finding::with(
            CHECK,
            Status::Warning,
            format!("{reason}: guests are emulated (TCG), which is slow"),
            if reason.contains("/dev/kvm") {
                "modprobe kvm_intel or kvm_amd; be a member of the group that owns /dev/kvm"
            } else {
                "switch virtualization on in the firmware, or nesting in the outer hypervisor"
            },
        ),
    }
}

/// Whether pools can go to the other VMM.
pub(super) fn cloud_hypervisor() -> Finding {
    const CHECK: &str = "cloud-hypervisor";
    const INSTALL: &str = "only needed for up --emit cloud-hypervisor: install it";
    let Some(program) = find_in_path(cloud_hypervisor::PROGRAM) else {
        return Finding::with(CHECK, Status::Absent, "not in the search path", INSTALL);
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
                    "install one with --pmem discard_writes",
                )
            }
        }
        Err(error) => Finding::with(CHECK, Status::Warning, error.to_string(), INSTALL),
    }
}
