// SPDX-License-Identifier: Apache-2.0 OR MIT
//! libvirt domains (formatdomain), two for each VM: for hosts with KVM and without. The pool is
//! passed through libvirt's `qemu:commandline`, because libvirt has no element for the generic
//! vhost-user device. What a start needs beforehand is a script.

use std::ffi::OsString;
use std::fmt::Write;

use protocol::exec::port;

use super::prepare;
use super::{EmitError, Emitted, accelerator, appliance, libvirt_names, libvirt_prepare};
use crate::cluster::plan::{ClusterPlan, VmPlan};
use crate::vm::{Accelerator, PoolDevice, ROOT_SERIAL, VmConfig};

/// PCI slot of a VM's first pool. libvirt does not know of it, and fills slots from below.
const POOL_SLOT: usize = 0x10;

/// PCI slot of a VM's network interface, behind all slots of pools.
const NETWORK_SLOT: usize = 0x1d;

/// The domains of each VM, and the script that prepares their starts.
pub(super) fn domains(plan: &ClusterPlan) -> Result<Vec<Emitted>, EmitError> {
    let mut files = Vec::new();
    for vm in &plan.vms {
        for accelerator in [Accelerator::Kvm, accelerator::EMULATOR] {
            files.push(domain(plan, vm, accelerator)?);
        }
    }
    files.push(libvirt_prepare::script(plan));
    Ok(files)
}

fn domain(plan: &ClusterPlan, vm: &VmPlan, accelerator: Accelerator) -> Result<Emitted, EmitError> {
    let config = VmConfig { accelerator, ..vm.config.clone() };
    let image = appliance(&config, "libvirt")?;
    let is_kvm = accelerator == Accelerator::Kvm;
    let name = format!("{}-{}", plan.name, vm.name());
    let path = |what, path: &std::path::Path| {
        let text = path.to_str().ok_or_else(|| unfit(what, &path.to_string_lossy()))?;
        escaped(what, text)
    };
    let mut text = format!(
        "<domain type=\"{}\" xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n",
        if is_kvm { "kvm" } else { "qemu" },
    );
    let memory = config.memory >> 10;
    let mut credentials = String::new();
    for (id, value) in config.all_credentials() {
        let entry = escaped("credential", &format!("io.systemd.credential:{id}={value}"))?;
        // Writing to a String cannot fail.
        let _ = write!(credentials, "\n      <entry>{entry}</entry>");
    }
    let _ = write!(
        text,
        "  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <genid/>
  <description>{description}</description>
  <memory unit=\"KiB\">{memory}</memory>
  <memoryBacking>
    <source type=\"memfd\"/>
    <access mode=\"shared\"/>
  </memoryBacking>
  <vcpu>{cpus}</vcpu>
  <sysinfo type=\"smbios\">
    <system>
      <entry name=\"uuid\">{uuid}</entry>
    </system>
    <oemStrings>{credentials}
    </oemStrings>
  </sysinfo>
  <os>
    <type arch=\"x86_64\" machine=\"q35\">hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline>
    <smbios mode=\"sysinfo\"/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset=\"utc\">
    <timer name=\"hpet\" present=\"no\"/>
  </clock>
{processor}  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type=\"file\" device=\"disk\">
      <driver name=\"qemu\" type=\"raw\"/>
      <source file=\"{root}\"/>
      <target dev=\"vda\" bus=\"virtio\"/>
      <serial>{serial}</serial>
      <readonly/>
    </disk>
    <serial type=\"file\">
      <source path=\"{console}\"/>
    </serial>
    <channel type=\"unix\">
      <source mode=\"bind\" path=\"{agent}\"/>
      <target type=\"virtio\" name=\"{port}\"/>
    </channel>
    <controller type=\"usb\" model=\"none\"/>
    <memballoon model=\"none\"/>
  </devices>
  <qemu:commandline>
",
        uuid = config.uuid,
        description = escaped("description", &description(plan, vm, accelerator))?,
        // One thread has to emulate all processors (Accelerator::TcgThreads), which libvirt does
        // not ask QEMU for; more than one would gain nothing then.
        cpus = if is_kvm { config.cpus } else { 1 },
        processor = processor(&config),
        kernel = path("kernel", &image.kernel())?,
        initrd = path("initrd", &image.initrd(config.root))?,
        cmdline = escaped("kernel command line", &config.kernel_command_line())?,
        emulator = path("emulator", &config.qemu)?,
        root = path("image", &image.root())?,
        serial = ROOT_SERIAL,
        console = path("console log", &config.paths.console_log)?,
        agent = path("socket", &config.paths.agent)?,
        port = port(0),
    );
    for word in arguments(vm) {
        let word = word.to_str().ok_or_else(|| unfit("argument", &word.to_string_lossy()))?;
        let _ = writeln!(text, "    <qemu:arg value=\"{}\"/>", escaped("argument", word)?);
    }
    text.push_str("  </qemu:commandline>\n</domain>\n");
    Ok(Emitted { name: libvirt_names::domain(plan, vm, accelerator), text })
}

/// The element for the processor.
fn processor(config: &VmConfig) -> String {
    if config.accelerator == Accelerator::Kvm {
        return "  <cpu mode=\"host-passthrough\"/>\n".to_owned();
    }
    let mut text = "  <cpu mode=\"maximum\">\n".to_owned();
    if let Some(bits) = config.phys_bits {
        let _ = writeln!(text, "    <maxphysaddr mode=\"emulate\" bits=\"{bits}\"/>");
    }
    let without = config.accelerator.cpu().split(',').filter_map(|word| word.strip_prefix('-'));
    for feature in without {
        let _ = writeln!(text, "    <feature policy=\"disable\" name=\"{feature}\"/>");
    }
    text + "  </cpu>\n"
}

/// What the domain is, and what must come before its start. Not a comment: that could not have the
/// names, in which two hyphens may follow each other.
fn description(plan: &ClusterPlan, vm: &VmPlan, accelerator: Accelerator) -> String {
    let host = match accelerator {
        Accelerator::Kvm => "For hosts with KVM.",
        _ => "For hosts without KVM: QEMU emulates one processor, in one thread.",
    };
    let script = libvirt_names::script(plan);
    let (what, name) = (prepare::remark(vm), vm.name());
    format!("{what}. {host} Before each start of the domain: sh {script} {name}")
}

/// What libvirt has no element for: the pool, and the user's own arguments.
fn arguments(vm: &VmPlan) -> Vec<OsString> {
    let mut argv = Vec::new();
    let pmem: Vec<u64> = vm
        .config
        .pools
        .iter()
        .filter_map(|pool| match pool {
            PoolDevice::Pmem { size, .. } => Some(size >> 20),
            PoolDevice::Shmem { .. } => None,
        })
        .collect();
    if !pmem.is_empty() {
        // QEMU merges it with the -m that libvirt writes.
        let maximum = (vm.config.memory >> 20) + pmem.iter().sum::<u64>();
        argv.extend(["-m".into(), format!("slots={},maxmem={maximum}M", pmem.len()).into()]);
    }
    for (index, pool) in vm.config.pools.iter().enumerate() {
        argv.extend(pool.arguments(index));
        // The last word is the device.
        if let Some(device) = argv.last_mut() {
            device.push(format!(",addr={:#x}", POOL_SLOT + index));
        }
    }
    let mut network = vm.config.network_arguments();
    if let Some(device) = network.last_mut() {
        device.push(format!(",addr={NETWORK_SLOT:#x}"));
    }
    argv.extend(network);
    argv.extend(vm.config.qemu_args.iter().cloned());
    argv
}

/// A text for an element or a quoted attribute. XML cannot represent control characters.
fn escaped(what: &'static str, text: &str) -> Result<String, EmitError> {
    if text.chars().any(char::is_control) {
        return Err(unfit(what, text));
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    Ok(escaped)
}

fn unfit(what: &'static str, value: &str) -> EmitError {
    EmitError::Text { what, value: value.to_owned(), form: "a libvirt domain" }
}
