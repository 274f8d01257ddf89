// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The names of the files for libvirt, which refer to one another.

use crate::cluster::plan::{ClusterPlan, VmPlan};
use crate::vm::Accelerator;

/// The file of a VM's domain.
pub(super) fn domain(plan: &ClusterPlan, vm: &VmPlan, accelerator: Accelerator) -> String {
    // A dot, which no name has.
    let suffix = if accelerator == Accelerator::Kvm { "" } else { ".emulated" };
    format!("{}-{}{suffix}.xml", plan.name, vm.name())
}

/// The file of the script that prepares the starts.
pub(super) fn script(plan: &ClusterPlan) -> String {
    format!("{}-prepare.sh", plan.name)
}
