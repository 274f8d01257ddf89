// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a plan in the format of another program: what `up` would run, to keep and edit.
//!
//! Each form is one or more files. They contain what
//! [`VmConfig::command_line`](crate::vm::VmConfig::command_line) and the plan contain, plus only
//! what the form itself needs. Nothing in them depends on whether this host has KVM, because
//! another host may start the VMs.

mod accelerator;
mod cloud_hypervisor;
mod libvirt;
mod libvirt_names;
mod libvirt_prepare;
mod prepare;
mod qemu;
mod systemd;

use std::fmt;

use super::plan::ClusterPlan;
use crate::vm::cloud_hypervisor::CloudHypervisor;
use crate::vm::{Accelerator, Image, Root, VmConfig};

/// A file made from a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Its name.
    pub name: String,
    /// Its contents.
    pub text: String,
}

/// Environment variable with the role of a process in an emitted cluster: [`qemu_role`] or
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

/// How other commands find a cluster that is started from emitted files.
#[derive(Debug, Clone)]
pub struct Register {
    /// The state of the cluster, for `vhost-famfs emitted start`.
    pub state: String,
    /// Environment variable with the mark of its processes.
    pub mark: &'static str,
}

/// The format.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// A shell script with QEMU's command lines.
    Qemu,
    /// A shell script with cloud-hypervisor's command lines; the host's program and its features,
    /// if it is installed.
    CloudHypervisor(Option<&'a CloudHypervisor>),
    /// Domains of libvirt, and a script that prepares their starts.
    Libvirt,
    /// Units of systemd.
    Systemd,
}

/// A plan that a program cannot carry out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// A part of the pool, for a VMM that maps files from their start.
    #[error("VM {0}: cloud-hypervisor maps whole pools only; use access rw or ro, or QEMU")]
    Slice(String),
    /// It makes no network by itself.
    #[error(
        "VM {0}: cloud-hypervisor has no network in user mode; omit network, and add --net with a \
         tap device to the output"
    )]
    Network(String),
    /// A guest of the user's own, for a program that is only told of appliances.
    #[error(
        "VM {name}: its image is a disk of your own, which cannot be written for {form}; use the \
         form qemu or systemd"
    )]
    OwnGuest {
        /// The VM.
        name: String,
        /// The form.
        form: &'static str,
    },
    /// A root device, which only `up` makes.
    #[error(
        "VM {0}: root = \"ublk\" is not for --emit, because only `up` makes and removes such a \
         device; omit root"
    )]
    RootDevice(String),
    /// The installed program does not support it.
    #[error("cloud-hypervisor {version}: {why}")]
    Unfit {
        /// Its version.
        version: String,
        /// Why not.
        why: &'static str,
    },
    /// A path or value that the format cannot represent.
    #[error(
        "{what} {value:?} cannot be written into {form}: it is not text, or has control characters"
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

/// Makes the files of a format.
///
/// # Errors
/// What the program does not support.
pub fn emit(
    plan: &ClusterPlan,
    form: Form<'_>,
    register: &Register,
) -> Result<Vec<Emitted>, EmitError> {
    if let Some(vm) = plan.vms.iter().find(|vm| vm.root_device.is_some()) {
        return Err(EmitError::RootDevice(vm.name().to_owned()));
    }
    match form {
        Form::Qemu => Ok(vec![qemu::script(plan, register)]),
        Form::CloudHypervisor(found) => {
            cloud_hypervisor::script(&simple(plan), found, register).map(|file| vec![file])
        }
        Form::Libvirt => libvirt::domains(&simple(plan)),
        Form::Systemd => systemd::units(plan, register),
    }
}

/// The appliance image of a VM, for a form that has no other guests.
fn appliance<'a>(config: &'a VmConfig, form: &'static str) -> Result<&'a Image, EmitError> {
    let own = || EmitError::OwnGuest { name: config.name.clone(), form };
    config.system.appliance().ok_or_else(own)
}

/// The plan for programs that cannot give a guest read-only memory, or choose its address
/// themselves, and that use KVM by default.
fn simple(plan: &ClusterPlan) -> ClusterPlan {
    let mut plan = plan.clone();
    for vm in &mut plan.vms {
        vm.config.root = Root::Disk;
        vm.config.accelerator = Accelerator::Kvm;
    }
    plan
}

/// A single file unchanged; if there are several, each has its name above it. In XML, that is a
/// processing instruction: a comment cannot have two hyphens, which a name can.
impl fmt::Display for Emitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.ends_with(".xml") {
            writeln!(f, "<?file {}?>", self.name)?;
        } else if !self.text.starts_with("#!") {
            writeln!(f, "# {}", self.name)?;
        }
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
