// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A plan as text for other programs: what `up` would run, to keep and to change.
//!
//! Each form is one or more files. They hold what [`VmConfig::command_line`](crate::vm::VmConfig::command_line) and
//! the plan hold, and nothing of their own but what the form needs. Nothing in them depends on whether this
//! host has KVM: another one may start the VMs.

mod accelerator;
mod cloud_hypervisor;
mod libvirt;
mod prepare;
mod qemu;
mod systemd;

use std::fmt;

use super::plan::Plan;
use crate::vm::cloud_hypervisor::CloudHypervisor;
use crate::vm::{Accelerator, Root};

/// A file that was made of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// What to call it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Environment variable with the role of a process in a cluster that was emitted: [`qemu_role`] or
/// [`backend_role`].
pub const ROLE: &str = "VHOST_FAMFS_CLUSTER_ROLE";

/// The role of the process that runs a VM.
#[must_use]
pub fn qemu_role(vm: &str) -> String {
    format!("{vm}/qemu")
}

/// The role of the back-end of a VM.
#[must_use]
pub fn backend_role(vm: &str) -> String {
    format!("{vm}/backend")
}

/// By what other commands find a cluster that is started from what is emitted.
#[derive(Debug, Clone)]
pub struct Register {
    /// What is known of it, for `vhost-famfs emitted start`.
    pub state: String,
    /// Environment variable with the mark of its processes.
    pub mark: &'static str,
}

/// Whom it is for.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// A shell script with QEMU's command lines.
    Qemu,
    /// A shell script with cloud-hypervisor's command lines; what the host's program offers, if there is one.
    CloudHypervisor(Option<&'a CloudHypervisor>),
    /// Domains of libvirt.
    Libvirt,
    /// Units of systemd.
    Systemd,
}

/// A plan that a program cannot carry out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// A part of the pool for a VMM that maps files from their start.
    #[error("VM {0}: cloud-hypervisor maps whole pools only; take access rw or ro, or QEMU")]
    Slice(String),
    /// The installed program cannot do it.
    #[error("cloud-hypervisor {version}: {why}")]
    Unfit {
        /// Its version.
        version: String,
        /// Why not.
        why: &'static str,
    },
    /// A path or value that the form cannot hold.
    #[error(
        "{what} {value:?} cannot be written into {form}: it is no text or has control characters"
    )]
    Text {
        /// What it is.
        what: &'static str,
        /// The value.
        value: String,
        /// The form.
        form: &'static str,
    },
}

/// Makes the files of a form.
///
/// # Errors
/// What the program cannot do.
pub fn emit(plan: &Plan, form: Form<'_>, register: &Register) -> Result<Vec<Emitted>, EmitError> {
    match form {
        Form::Qemu => Ok(vec![qemu::script(plan, register)]),
        Form::CloudHypervisor(found) => {
            cloud_hypervisor::script(&simple(plan), found).map(|file| vec![file])
        }
        Form::Libvirt => libvirt::domains(&simple(plan)),
        Form::Systemd => systemd::units(plan, register),
    }
}

/// For programs that have no read-only memory for a guest, or choose its address themselves, and run
/// guests by KVM unless told otherwise.
fn simple(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for vm in &mut plan.vms {
        vm.config.root = Root::Disk;
        vm.config.accelerator = Accelerator::Kvm;
    }
    plan
}

/// One file as it is; of several each with its name above, as a comment of its form.
impl fmt::Display for Emitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.ends_with(".xml") {
            writeln!(f, "<!-- {} -->", self.name)?;
        } else if !self.text.starts_with("#!") {
            writeln!(f, "# {}", self.name)?;
        }
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
