// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prints a plan for the user: `up --dry-run`.

use std::fmt;

use famfs::archive::import::reasons;
use famfs::text::units::Bytes;

use super::{ClusterPlan, PoolPlan, VmPlan};
use crate::cluster::spec::Restart;
use crate::vm::Forward;

impl fmt::Display for ClusterPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster:      {}", self.name)?;
        writeln!(f, "state in:     {}", self.dir.display())?;
        writeln!(f, "accelerator:  {}", self.accelerator)?;
        writeln!(f, "QEMU:         {}", self.confinement)?;
        writeln!(f, "pool:         {}", self.pool)?;
        let master = self.vms.iter().find(|vm| vm.master).map(VmPlan::name);
        let master = master.unwrap_or("none of these VMs; the host writes (`famfs --pool`)");
        if self.pool.famfs_end.is_some() {
            writeln!(f, "master:       {master}")?;
        }
        for (import, left_out) in self.pool.imports() {
            let to = import.to.as_ref().map(ToString::to_string).unwrap_or_default();
            writeln!(f, "import:       {} -> /{to}", import.from.display())?;
            if !left_out.is_empty() {
                writeln!(f, "  {} not copied: {}", left_out.len(), reasons(left_out))?;
            }
            for item in left_out {
                writeln!(f, "    {item}")?;
            }
        }
        let restarts = self.vms.iter().filter(|vm| vm.restart == Restart::OnFailure);
        let restarts: Vec<_> = restarts.map(VmPlan::name).collect();
        if !restarts.is_empty() {
            writeln!(f, "restarted:    on failure: {}", restarts.join(", "))?;
        }
        for vm in &self.vms {
            if let Some(allowed) = &vm.asked.cpus_allowed {
                writeln!(f, "processors:   {allowed} for {}", vm.name())?;
            }
            if let Some(node) = vm.asked.numa {
                writeln!(f, "numa node:    {node} for {}", vm.name())?;
            }
            for setting in vm.asked.limits.settings() {
                writeln!(f, "limit:        {setting} for {}", vm.name())?;
            }
        }
        for vm in self.vms.iter().filter(|vm| !vm.asked.depends_on.is_empty()) {
            writeln!(f, "started:      {} after {}", vm.name(), vm.asked.depends_on.join(", "))?;
        }
        for vm in &self.vms {
            if let Some(forwards) = &vm.config.network {
                write!(f, "network:      {} in user mode", vm.name())?;
                for Forward { protocol, host, guest } in forwards {
                    write!(f, ", {host} -> {guest}/{}", protocol.name())?;
                }
                writeln!(f)?;
            }
        }
        for vm in &self.vms {
            if let Some(command) = &vm.asked.health {
                writeln!(f, "healthy:      {} when {command:?} succeeds", vm.name())?;
            }
        }
        write!(
            f,
            "\n{:<16} {:<6} {:<9} {:<5} {:<6} {:>8} {:>4}  TRANSPORT BECAUSE",
            "VM", "ACCESS", "TRANSPORT", "MOUNT", "ROOT", "MEMORY", "CPUS"
        )?;
        for vm in &self.vms {
            let memory = format!("{} MiB", vm.config.memory >> 20);
            write!(
                f,
                "\n{:<16} {:<6} {:<9} {:<5} {:<6} {memory:>8} {:>4}  {}",
                vm.name(),
                vm.access.name(),
                vm.transport.name(),
                if vm.mount { "yes" } else { "no" },
                root_of(vm),
                vm.config.cpus,
                vm.reason
            )?;
        }
        Ok(())
    }
}

/// Where the root of a VM is: an own guest decides that itself, unless it has a device.
fn root_of(vm: &VmPlan) -> &'static str {
    match (vm.config.system.own(), &vm.root_device) {
        (Some(_), None) => "own",
        _ => vm.config.root.name(),
    }
}

impl fmt::Display for PoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, view) = (self.kind.name(), self.view.name());
        write!(f, "{} ({kind}, {}, {view} view", self.path.display(), Bytes(self.size))?;
        f.write_str(if self.create.is_some() { ", made" } else { ", exists" })?;
        if self.mkfs.is_some() {
            f.write_str(", new famfs")?;
        }
        f.write_str(if self.ours { ", removed by down)" } else { ", kept by down)" })
    }
}
