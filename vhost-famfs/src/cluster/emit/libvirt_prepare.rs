// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The script beside libvirt's domains: checks the host, prepares the pool, and starts the
//! back-ends, each of which serves one start of its domain.

use std::fmt::Write;
use std::path::Path;

use super::prepare::{self, Lines};
use super::{Emitted, accelerator, libvirt_names};
use crate::cluster::plan::{ClusterPlan, VmPlan};
use crate::vm::{Accelerator, BackendConfig, shell_quoted};

/// The oldest libvirt that knows everything in the domains: a processor with all features that can
/// be emulated.
const OLDEST: &str = "7.1.0";

/// A shell function that tells a process from later ones with the same number. It fails if there is
/// no such process; one that only waits for its parent to notice its end is none.
const PROCESS: &str = "\
# process PID: the number of a process, and when it started (proc_pid_stat(5), field 22).
process() {
    stat=$(cat \"/proc/${1:-none}/stat\" 2> /dev/null) || return 1
    # The second field, a name in parentheses, may have spaces.
    set -- \"$1\" ${stat##*)}
    [ \"$2\" != Z ] && echo \"$1 ${21}\"
}";

/// The script. It prints the files of the domains that suit the host.
pub(super) fn script(plan: &ClusterPlan) -> Emitted {
    let names: Vec<&str> = plan.vms.iter().map(VmPlan::name).collect();
    let script = libvirt_names::script(plan);
    let mut text = format!(
        "#!/bin/sh
# {script} [VM...]: prepares the start of domains of cluster {cluster}, of all without a VM. Run it
# before each start: a back-end ends with its domain. It prints the files of the domains for this
# host, of which those are for emulation if it has no KVM.
set -eu
umask 077

{PROCESS}

[ $# -gt 0 ] || set -- {all}
for vm; do
    case $vm in
    {any}) ;;
    *) echo \"{script}: no VM $vm in cluster {cluster}, which has {all}\" >&2; exit 2 ;;
    esac
done

version=$(virsh --version 2> /dev/null) || {{
    echo \"{script}: no virsh: install libvirt {OLDEST} or newer with its driver for QEMU\" \
        \"(Debian: libvirt-clients, libvirt-daemon, libvirt-daemon-driver-qemu)\" >&2
    exit 1
}}
[ \"$(printf '%s\\n' {OLDEST} \"$version\" | sort -V | head -n 1)\" = {OLDEST} ] || {{
    echo \"{script}: libvirt $version is too old: expected {OLDEST} or newer;\" \
        \"vhost-famfs up, and --emit qemu or systemd, need no libvirt\" >&2
    exit 1
}}

{directories}
",
        cluster = plan.name,
        all = names.join(" "),
        any = names.join(" | "),
        directories = prepare::make_directories(plan),
    );
    for line in prepare::pool(plan, Lines::Many) {
        // Standard output is for the names of the files.
        let _ = writeln!(text, "{{\n{line}\n}} >&2");
    }
    let _ = write!(
        text,
        "
kvm=no
if {}; then kvm=yes; fi
for vm; do
    case $vm-$kvm in
",
        accelerator::HAS_KVM
    );
    for vm in &plan.vms {
        for (kvm, accelerator) in [("yes", Accelerator::Kvm), ("no", accelerator::EMULATOR)] {
            let file = libvirt_names::domain(plan, vm, accelerator);
            let _ = writeln!(text, "    {}-{kvm}) file={file} ;;", vm.name());
        }
    }
    text.push_str("    esac\n    case $vm in\n");
    for vm in &plan.vms {
        if let Some(backend) = &vm.backend {
            let _ = writeln!(text, "    {}){} ;;", vm.name(), start(backend));
        }
    }
    text.push_str("    esac\n    echo \"$(dirname \"$0\")/$file\"\ndone\n");
    Emitted { name: script, text }
}

/// Starts a back-end, unless the one that this script started waits for its VM, and waits until it
/// listens. A back-end removes its socket when the VM connects; one that was killed leaves it.
fn start(backend: &BackendConfig) -> String {
    let quoted = |path: &Path| shell_quoted(&[path.into()]);
    let (log, socket) = (quoted(&backend.log), quoted(&backend.socket));
    let number = quoted(&backend.socket.with_extension("pid"));
    let line = shell_quoted(&backend.command_line());
    format!(
        "
        backend=$(cat {number} 2> /dev/null) || backend=
        if [ ! -S {socket} ] || [ \"${{backend:-none}}\" != \"$(process \"${{backend%% *}}\")\" ]; then
            rm -f {socket} {number}
            nohup {line} > /dev/null 2> {log} < /dev/null &
            until [ -S {socket} ] && process $! > {number}; do
                process $! > /dev/null || {{ cat {log} >&2; exit 1; }}
                sleep 0.1
            done
        fi"
    )
}
