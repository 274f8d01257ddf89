// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A shell script with cloud-hypervisor command lines. cloud-hypervisor maps pools itself.

use std::ffi::OsString;
use std::fmt::Write;

use protocol::credentials::VSOCK;

use super::{EmitError, Emitted, Register, appliance, qemu};
use crate::cluster::plan::{ClusterPlan, VmPlan};
use crate::cluster::spec::{Access, Transport};
use crate::vm::ROOT_SERIAL;
use crate::vm::cloud_hypervisor::{CloudHypervisor, NO_SHARED_MEMORY, UUID_OPTION};
use crate::vm::shell_quoted;

/// The guest's vsock address. Each VMM has a socket of its own, so all VMs can have the same; lower
/// numbers have a meaning (vsock(7)).
const CID: u32 = 3;

/// The script; `found` is this host's program, which must support it.
pub(super) fn script(
    plan: &ClusterPlan,
    found: Option<&CloudHypervisor>,
    register: &Register,
) -> Result<Emitted, EmitError> {
    if let Some(found) = found.filter(|found| !found.pmem) {
        let (version, why) = (found.version.clone(), found.transports());
        return Err(EmitError::Unfit { version, why });
    }
    let mut text = qemu::head(plan, &qemu::directory(plan, register));
    // Writing to a String cannot fail.
    let _ = match found {
        Some(found) => {
            writeln!(text, "\n# cloud-hypervisor {}: {}.", found.version, found.transports())
        }
        None => writeln!(
            text,
            "\n# Of cloud-hypervisor: {NO_SHARED_MEMORY}.\n# A program that does not know \
             {UUID_OPTION}= and image_type=raw takes uuid=, and no image_type."
        ),
    };
    text.push_str(
        "# Needs KVM. `vhost-famfs exec` reaches the guests by vsock; the serial console goes to a \
         file.\nvms=\n",
    );
    let newest = CloudHypervisor::newest();
    let program = found.unwrap_or(&newest);
    for vm in &plan.vms {
        let _ = writeln!(text, "\n# VM {}: {}{}", vm.name(), vm.access, note(vm));
        let line = shell_quoted(&command_line(vm, plan, program)?);
        text.push_str(&qemu::started(plan, vm, register, &line));
    }
    text.push_str(qemu::WAIT);
    Ok(Emitted { name: format!("{}-cloud-hypervisor.sh", plan.name), text })
}

/// How the VM differs from the plan.
fn note(vm: &VmPlan) -> &'static str {
    match (vm.access, vm.transport) {
        (Access::ReadOnly, _) => {
            ". The pool cannot change; pages that the guest writes become its own copies (discard_writes)"
        }
        (_, Transport::Shmem) => ", by --pmem instead of a back-end",
        _ => "",
    }
}

fn command_line(
    vm: &VmPlan,
    plan: &ClusterPlan,
    program: &CloudHypervisor,
) -> Result<Vec<OsString>, EmitError> {
    if matches!(vm.access, Access::Slice { .. }) {
        return Err(EmitError::Slice(vm.name().to_owned()));
    }
    let config = &vm.config;
    if config.network.is_some() {
        return Err(EmitError::Network(vm.name().to_owned()));
    }
    let image = appliance(config, "cloud-hypervisor")?;
    let discard = if vm.access == Access::ReadOnly { "on" } else { "off" };
    let mut credentials = config.all_credentials();
    credentials.insert(VSOCK.into(), "1".into());
    let strings: Vec<_> = credentials
        .iter()
        .map(|(id, value)| format!("io.systemd.credential:{id}={value}"))
        .collect();
    let file = |what, path: &std::path::Path| {
        let text = path.to_str().filter(|text| !text.contains([',', '"', '\n']));
        text.map(str::to_owned).ok_or_else(|| EmitError::Text {
            what,
            value: path.display().to_string(),
            form: "an option of cloud-hypervisor",
        })
    };
    let pool = file("pool", &plan.pool.path)?;
    let root = file("image", &image.root())?;
    let vsock = file("socket", &config.paths.vsock)?;
    let console = file("console log", &config.paths.console_log)?;
    let mut argv: Vec<OsString> = vec![program.program.clone().into()];
    let mut option = |name: &str, value: OsString| argv.extend([name.into(), value]);
    option("--kernel", image.kernel().into());
    option("--initramfs", image.initrd(config.root).into());
    option("--cmdline", config.kernel_command_line().into());
    option("--cpus", format!("boot={}", config.cpus).into());
    option("--memory", format!("size={}M,shared=on", config.memory >> 20).into());
    option(
        "--platform",
        format!("{}={},oem_strings=[{}]", program.uuid_option, config.uuid, strings.join(","))
            .into(),
    );
    option("--pmem", format!("file={pool},discard_writes={discard}").into());
    let image_type = if program.image_type { ",image_type=raw" } else { "" };
    option("--disk", format!("path={root},readonly=on,serial={ROOT_SERIAL}{image_type}").into());
    option("--vsock", format!("cid={CID},socket={vsock}").into());
    option("--serial", format!("file={console}").into());
    option("--console", "off".into());
    Ok(argv)
}
