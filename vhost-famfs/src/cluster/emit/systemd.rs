// SPDX-License-Identifier: Apache-2.0 OR MIT
//! systemd units: one that prepares the pool, two for each VM and its back-end, and a target for
//! all.

use std::ffi::OsString;
use std::fmt::Write;

use super::prepare::{self, Lines};
use super::{EmitError, Emitted, Register, accelerator, backend_role, qemu_role};
use crate::cluster::plan::{ClusterPlan, VmPlan};

/// The units; they suit the system manager and user managers.
pub(super) fn units(plan: &ClusterPlan, register: &Register) -> Result<Vec<Emitted>, EmitError> {
    let name = &plan.name;
    let mut files = vec![pool(plan, register)?];
    let mut members = String::new();
    for vm in &plan.vms {
        if vm.backend.is_some() {
            files.push(backend(plan, vm, register)?);
        }
        files.push(machine(plan, vm, register)?);
        let _ = write!(members, " {}", unit(plan, vm));
    }
    let text = format!(
        "[Unit]\nDescription=Cluster {name}: VMs that share a pool\nWants={}\n\n\
         [Install]\nWantedBy=default.target\n",
        members.trim_start()
    );
    files.push(Emitted { name: format!("{name}.target"), text });
    Ok(files)
}

fn pool_unit(plan: &ClusterPlan) -> String {
    format!("{}-pool.service", plan.name)
}

fn unit(plan: &ClusterPlan, vm: &VmPlan) -> String {
    format!("{}-{}.service", plan.name, vm.name())
}

fn backend_unit(plan: &ClusterPlan, vm: &VmPlan) -> String {
    format!("{}-{}-backend.service", plan.name, vm.name())
}

/// Directories and pool; existing ones are left alone.
fn pool(plan: &ClusterPlan, register: &Register) -> Result<Emitted, EmitError> {
    let mut text = format!(
        "[Unit]\nDescription=Directories and pool of cluster {}\nStopWhenUnneeded=yes\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nUMask=0077\n",
        plan.name
    );
    let _ = writeln!(text, "ExecStart={}", words(&prepare::start(plan, register))?);
    let commands = prepare::pool(plan, Lines::One);
    if !commands.is_empty() {
        let script = format!("set -e; {}", commands.join("; ")).into();
        let shell: Vec<OsString> = vec!["/bin/sh".into(), "-c".into(), script];
        let _ = writeln!(text, "ExecStart={}", words(&shell)?);
    }
    let _ = writeln!(text, "ExecStopPost={}", words(&prepare::stop(plan))?);
    Ok(Emitted { name: pool_unit(plan), text })
}

fn backend(plan: &ClusterPlan, vm: &VmPlan, register: &Register) -> Result<Emitted, EmitError> {
    let argv = vm.backend.as_ref().map(|backend| backend.command_line()).unwrap_or_default();
    let pool = pool_unit(plan);
    let text = format!(
        "[Unit]\nDescription=Pool of cluster {} for VM {}\nDocumentation=man:vhost-famfs(1)\n\
         Requires={pool}\nAfter={pool}\n\
         # For a VM that ends without having connected.\nStopWhenUnneeded=yes\n\n\
         [Service]\nType=notify\n\
         # QEMU 11.1 aborts when a second back-end takes over a VM.\nRestart=no\nUMask=0077\n\
         NoNewPrivileges=yes\nLimitCORE=0\nEnvironment={}\nExecStart={}\n",
        plan.name,
        vm.name(),
        prepare::environment(plan, register, &backend_role(vm.name())).join(" "),
        words(&argv)?
    );
    Ok(Emitted { name: backend_unit(plan, vm), text })
}

fn machine(plan: &ClusterPlan, vm: &VmPlan, register: &Register) -> Result<Emitted, EmitError> {
    // The plan was made with this command line, so it has been checked.
    let line =
        accelerator::command_line(&vm.config, |config| config.command_line().unwrap_or_default());
    let script = format!("{}; exec {line}", accelerator::decide(Lines::One));
    let argv: Vec<OsString> = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let bounding = vm.config.confinement.bounding_set();
    let bounding = bounding.map(|set| format!("CapabilityBoundingSet={set}\n")).unwrap_or_default();
    let mut limits = vm.asked.limits.settings();
    limits.extend(vm.asked.cpus_allowed.iter().map(|allowed| format!("CPUAffinity={allowed}")));
    let limits: String = limits.iter().map(|setting| format!("{setting}\n")).collect();
    let mut needs = pool_unit(plan);
    if vm.backend.is_some() {
        let _ = write!(needs, " {}", backend_unit(plan, vm));
    }
    let text = format!(
        "# {}\n[Unit]\nDescription=VM {} of cluster {}\nRequires={needs}\nAfter={needs}\n\
         PartOf={}.target\n\n\
         [Service]\nType=exec\nUMask=0077\nNoNewPrivileges=yes\nLimitCORE=0\n{}{limits}Environment={}\n\
         # Stopping is a power cut for the guest, which the pool survives; power the guest off before.\n\
         ExecStart={}\n",
        prepare::remark(vm),
        vm.name(),
        plan.name,
        plan.name,
        bounding,
        prepare::environment(plan, register, &qemu_role(vm.name())).join(" "),
        words(&argv)?
    );
    Ok(Emitted { name: unit(plan, vm), text })
}

/// A command line in the syntax of a unit (systemd.service(5), "Command lines"): quoted words, with
/// `%` and `$` doubled.
pub(super) fn words(argv: &[OsString]) -> Result<String, EmitError> {
    let mut line = Vec::new();
    for word in argv {
        let text = word.to_str().filter(|text| !text.chars().any(char::is_control));
        let text = text.ok_or_else(|| EmitError::Text {
            what: "argument",
            value: word.to_string_lossy().into_owned(),
            form: "a systemd unit",
        })?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@[]".contains(c);
        line.push(if !text.is_empty() && text.chars().all(plain) {
            text.to_owned()
        } else {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{}\"", escaped.replace('%', "%%").replace('$', "$$"))
        });
    }
    Ok(line.join(" "))
}
