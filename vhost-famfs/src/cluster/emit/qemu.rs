// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A shell script with the command lines of back-ends and QEMU.

use std::fmt::Write;

use super::prepare::{self, Lines};
use super::{Emitted, Register, accelerator, backend_role, qemu_role};
use crate::cluster::plan::{ClusterPlan, VmPlan};
use crate::vm::shell_quoted;

/// Waits for all VMs; fails if one did.
pub(super) const WAIT: &str =
    "\nstatus=0\nfor vm in $vms; do\n    wait \"$vm\" || status=$?\ndone\nexit $status\n";

/// The script. It ends when the last VM has ended; at Ctrl-C, everything ends.
pub(super) fn script(plan: &ClusterPlan, register: &Register) -> Emitted {
    let mut text = head(plan, &directory(plan, register));
    let decide = accelerator::decide(Lines::Many);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\n# KVM runs the guests if this host has it, else QEMU emulates them.\n{decide}\nvms="
    );
    for vm in &plan.vms {
        let _ = write!(text, "\n# {}\n{}", prepare::remark(vm), start(plan, vm, register));
    }
    text.push_str(WAIT);
    Emitted { name: format!("{}.sh", plan.name), text }
}

/// Creates the directories, and removes them when the script ends.
pub(super) fn directory(plan: &ClusterPlan, register: &Register) -> String {
    let start = shell_quoted(&prepare::start(plan, register));
    let stop = shell_quoted(&prepare::stop(plan));
    format!(
        "# So that `vhost-famfs ps`, exec, console, logs and down find the cluster.\n{start}\n\
         stop() {{\n    {stop}\n}}\ntrap stop EXIT\ntrap 'exit 129' HUP\ntrap 'exit 130' INT\n\
         trap 'exit 143' TERM\n"
    )
}

/// The part before the VMs.
pub(super) fn head(plan: &ClusterPlan, directories: &str) -> String {
    let mut text =
        format!("#!/bin/sh\n# Cluster {}.\nset -eu\numask 077\n\n{directories}\n", plan.name);
    for line in prepare::pool(plan, Lines::Many) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn start(plan: &ClusterPlan, vm: &VmPlan, register: &Register) -> String {
    let mut text = String::new();
    if let Some(backend) = &vm.backend {
        let line = shell_quoted(&backend.command_line());
        let log = shell_quoted(&[backend.log.clone().into()]);
        let socket = shell_quoted(&[backend.socket.clone().into()]);
        let role = backend_role(vm.name());
        let marked = prepare::environment(plan, register, &role).join(" ") + " \\\n";
        let _ = write!(
            text,
            "{marked}{line} 2> {log} &\nbackend=$!\nuntil [ -S {socket} ]; do\n    \
             kill -0 $backend 2> /dev/null || {{ cat {log} >&2; exit 1; }}\n    sleep 0.1\ndone\n"
        );
    }
    // The plan was made with this command line, so it has been checked.
    let line = accelerator::command_line(&vm.config, |config| {
        config.confined_command_line().unwrap_or_default()
    });
    text + &started(plan, vm, register, &line)
}

/// A VMM's command line, with the marks by which other commands find its process.
pub(super) fn started(plan: &ClusterPlan, vm: &VmPlan, register: &Register, line: &str) -> String {
    let marks = prepare::environment(plan, register, &qemu_role(vm.name())).join(" ");
    format!("{marks} \\\n{line} < /dev/null &\nvms=\"$vms $!\"\n")
}
