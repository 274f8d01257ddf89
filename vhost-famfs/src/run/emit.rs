// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up --emit`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::{notice, print_for_program, say};
use vhost_famfs::args::Emit;
use vhost_famfs::cluster::emit::{self, Form, Register};
use vhost_famfs::cluster::emitted;
use vhost_famfs::cluster::plan::ClusterPlan;
use vhost_famfs::cluster::process::MARK;
use vhost_famfs::cluster::spec::Restart;
use vhost_famfs::vm::cloud_hypervisor::{self, CloudHypervisor};
use vhost_famfs::vm::{Channel, find_in_path};

/// Writes the plan in the format of another program.
pub(super) fn emit(plan: &ClusterPlan, form: Emit, output: Option<&Path>) -> Result<()> {
    let found = match form {
        Emit::CloudHypervisor => find_in_path(cloud_hypervisor::PROGRAM),
        _ => None,
    };
    let found = found.map(|program| CloudHypervisor::of(&program)).transpose()?;
    let channel = match form {
        Emit::CloudHypervisor => Channel::Vsock,
        _ => Channel::Ports,
    };
    let files = emit::emit(
        plan,
        match form {
            Emit::Qemu => Form::Qemu,
            Emit::CloudHypervisor => Form::CloudHypervisor(found.as_ref()),
            Emit::Libvirt => Form::Libvirt,
            Emit::Systemd => Form::Systemd,
        },
        &Register { state: emitted::describe(plan, channel), mark: MARK },
    )?;
    let foreign = matches!(form, Emit::CloudHypervisor | Emit::Libvirt);
    for vm in &plan.vms {
        let limits = &vm.asked.limits;
        let keys = [
            ("restart", vm.restart == Restart::OnFailure),
            ("cpus-allowed", vm.asked.cpus_allowed.is_some() && form != Emit::Systemd),
            ("cpu-weight", limits.cpu_weight.is_some() && foreign),
            ("memory-max", limits.memory_max.is_some() && foreign),
            ("numa", vm.asked.numa.is_some() && foreign),
            ("health", vm.asked.health.is_some()),
            ("depends-on", !vm.asked.depends_on.is_empty()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, is_set)| *is_set) {
            let name = vm.name();
            notice(format_args!("VM {name}: {key} is not in this output; that program decides"));
        }
    }
    if let Some(dir) = output {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    for file in files {
        match output {
            None => print_for_program(&file)?,
            Some(dir) => {
                let path = dir.join(&file.name);
                File::create_new(&path)
                    .and_then(|mut made| made.write_all(file.text.as_bytes()))
                    .with_context(|| format!("cannot write {}", path.display()))?;
                say(path.display())?;
            }
        }
    }
    Ok(())
}
