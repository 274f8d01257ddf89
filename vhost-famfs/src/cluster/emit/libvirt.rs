// SPDX-License-Identifier: Apache-2.0 OR MIT
//! libvirt domains (formatdomain). The pool is passed through libvirt's `qemu:commandline`, because
//! libvirt has no element for the generic vhost-user device.

use std::ffi::OsString;
use std::fmt::Write;

use protocol::exec::port;

use super::prepare::{self, Lines};
use super::{EmitError, Emitted, accelerator};
use crate::cluster::plan::{ClusterPlan, VmPlan};
use crate::vm::{PoolDevice, ROOT_SERIAL, shell_quoted};

/// One domain per VM.
pub(super) fn domains(plan: &ClusterPlan) -> Result<Vec<Emitted>, EmitError> {
    plan.vms.iter().map(|vm| domain(plan, vm)).collect()
}

fn domain(plan: &ClusterPlan, vm: &VmPlan) -> Result<Emitted, EmitError> {
    let config = &vm.config;
    let name = format!("{}-{}", plan.name, vm.name());
    let path = |what, path: &std::path::Path| {
        let text = path.to_str().ok_or_else(|| unfit(what, &path.to_string_lossy()))?;
        escaped(what, text)
    };
    let mut text = format!(
        "<domain type=\"kvm\" xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n{}",
        comment(plan, vm)?
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
  <cpu mode=\"host-passthrough\"/>
  <on_reboot>destroy</on_reboot>
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
        cpus = config.cpus,
        kernel = path("kernel", &config.image.kernel())?,
        initrd = path("initrd", &config.image.initrd(config.root))?,
        cmdline = escaped("kernel command line", &config.kernel_command_line())?,
        emulator = path("emulator", &config.qemu)?,
        root = path("image", &config.image.root())?,
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
    Ok(Emitted { name: format!("{name}.xml"), text })
}

/// What others must do before the domain starts.
fn comment(plan: &ClusterPlan, vm: &VmPlan) -> Result<String, EmitError> {
    let mut lines = vec![prepare::remark(vm), "Before you start it:".to_owned()];
    lines.push(format!("  {}", prepare::make_directories(plan)));
    lines.extend(prepare::pool(plan, Lines::One).into_iter().map(|command| format!("  {command}")));
    if let Some(backend) = &vm.backend {
        lines.push(format!("  {} &", shell_quoted(&backend.command_line())));
        lines.push("The back-end ends with the domain; start a new one for each start.".into());
    }
    lines.extend([
        "Needs KVM. On a host without KVM, change:".to_owned(),
        "  type=\"kvm\" of the domain to type=\"qemu\"".to_owned(),
        "  mode=\"host-passthrough\" of the cpu to mode=\"maximum\", and for speed add to it:"
            .to_owned(),
        "    <feature policy=\"disable\" name=\"erms\"/> and the same for fsrm".to_owned(),
        format!("  and append to the cmdline:{}", accelerator::kernel_words()),
    ]);
    let mut text = String::from("  <!--\n");
    for line in lines {
        // Two hyphens would end the comment; a shell reads a quoted pair the same way.
        let line = without_controls("comment", &line)?.replace("--", "-''-");
        let _ = writeln!(text, "    {line}");
    }
    text.push_str("  -->\n");
    Ok(text)
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
    }
    argv.extend(vm.config.qemu_args.iter().cloned());
    argv
}

/// A text that XML can represent.
fn without_controls<'t>(what: &'static str, text: &'t str) -> Result<&'t str, EmitError> {
    if text.chars().any(char::is_control) { Err(unfit(what, text)) } else { Ok(text) }
}

/// A text for an element or a quoted attribute.
fn escaped(what: &'static str, text: &str) -> Result<String, EmitError> {
    let text = without_controls(what, text)?;
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
