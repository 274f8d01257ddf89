// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A shell script with the command lines of the back-ends and of QEMU.

use std::fmt::Write;

use super::prepare::{self, Lines};
use super::{Emitted, accelerator};
use crate::launch::plan::{Plan, VmPlan};
use crate::launch::shell_quoted;

/// The script. It ends when the last VM has, and at Ctrl-C everything does.
pub(super) fn script(plan: &Plan) -> Emitted {
    let mut text = head(plan);
    let decide = accelerator::decide(Lines::Many);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\n# KVM runs the guests if this host has it, else QEMU emulates them.\n{decide}"
    );
    for vm in &plan.vms {
        let _ = write!(text, "\n# {}\n{}", prepare::remark(vm), start(vm));
    }
    text.push_str("\nwait\n");
    Emitted { name: format!("{}.sh", plan.name), text }
}

/// What comes before the VMs.
pub(super) fn head(plan: &Plan) -> String {
    let mut text = format!(
        "#!/bin/sh\n# Cluster {}.\nset -eu\numask 077\n\nmkdir -p {}\n",
        plan.name,
        shell_quoted(&prepare::directories(plan).into_iter().map(Into::into).collect::<Vec<_>>())
    );
    for line in prepare::pool(plan, Lines::Many) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn start(vm: &VmPlan) -> String {
    let mut text = String::new();
    if let Some(backend) = &vm.backend {
        let line = shell_quoted(&backend.command_line());
        let log = shell_quoted(&[backend.log.clone().into()]);
        let socket = shell_quoted(&[backend.socket.clone().into()]);
        let _ = write!(
            text,
            "{line} 2> {log} &\nbackend=$!\nuntil [ -S {socket} ]; do\n    \
             kill -0 $backend 2> /dev/null || {{ cat {log} >&2; exit 1; }}\n    sleep 0.1\ndone\n"
        );
    }
    // The plan was made with this command line; it is checked there.
    let line = accelerator::command_line(&vm.config, |config| {
        config.confined_command_line().unwrap_or_default()
    });
    let _ = writeln!(text, "{line} < /dev/null &");
    text
}
