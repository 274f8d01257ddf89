// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds QEMU's exact command line from the configuration of a VM. Pure: accesses no file.

use std::ffi::OsString;
use std::path::Path;

use famfs::system::{generation, port};
use protocol::exec::{self, PORTS};

use super::accelerator::Accelerator;
use super::arguments::{CommandLine, join, quote};
use super::config::{ConfigError, Console, Disk, PoolDevice, ROOT_SERIAL, ROOT_SLOT, VmConfig};
use super::system::{OwnGuest, Start, System};
use super::version::QemuVersion;
use crate::device::pmem::DEVICE_ID;

const MIB: u64 = 1 << 20;
/// Another one each time it is read, which QEMU does when it starts.
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";

impl VmConfig {
    /// Program and arguments.
    ///
    /// # Errors
    /// Why the configuration cannot run.
    pub fn command_line(&self) -> Result<Vec<OsString>, ConfigError> {
        self.check()?;
        let mut argv = CommandLine(vec![self.qemu.clone().into()]);
        self.machine(&mut argv);
        // Pools come first: the guest numbers /dev/daxN and /dev/pmemN in the order in which it
        // finds them.
        for (index, pool) in self.pools.iter().enumerate() {
            pool.add(index, &mut argv);
        }
        self.memory_root(&mut argv);
        self.storage(&mut argv);
        argv.0.extend(self.network_arguments());
        self.channels(&mut argv);
        argv.0.extend(self.qemu_args.iter().cloned());
        Ok(argv.0)
    }

    /// Like [`VmConfig::command_line`], with the programs in front that limit and confine it, as it
    /// is started.
    ///
    /// # Errors
    /// Why the configuration cannot run.
    pub fn confined_command_line(&self) -> Result<Vec<OsString>, ConfigError> {
        let mut argv = self.limits.prefix(&format!("VM {} of vhost-famfs", self.name));
        argv.extend(self.confinement.prefix());
        argv.extend(self.command_line()?);
        Ok(argv)
    }

    fn machine(&self, argv: &mut CommandLine) {
        let memory = self.memory / MIB;
        let root = self.root_in_memory().map(|(_, size)| size);
        let sizes = self.pools.iter().map(PoolDevice::pmem_size).chain(root);
        let sizes: Vec<u64> = sizes.filter(|size| *size > 0).collect();
        let (pmem, slots) = (sizes.iter().sum::<u64>(), sizes.len());
        argv.flag("-nodefaults");
        argv.flag("-no-user-config");
        // Instead of rebooting, a VM ends: QEMU 11.1 aborts when a vhost-user device starts a
        // second time.
        argv.flag("-no-reboot");
        argv.option("-display", "none");
        argv.option("-name", &self.name);
        // Only the devices that our guests need: every device is code that a guest can attack.
        let keyboard = match self.qemu_version >= QemuVersion::NO_KEYBOARD {
            true => ",i8042=off",
            false => "",
        };
        // Firmware or kernel leave the HPET with a periodic timer, which wakes QEMU 250 times a
        // second as long as the VM runs. The appliance has better clocks; guests of others may use
        // this one.
        let timer = self.system.appliance().map(|_| ",hpet=off").unwrap_or_default();
        argv.option(
            "-machine",
            format!("q35,memory-backend=ram,sata=off,smbus=off,vmport=off{timer}{keyboard}"),
        );
        for (name, value) in self.confinement.options(self.qemu_version) {
            argv.option(name, value);
        }
        argv.option("-accel", self.accelerator.name());
        let bits = self.phys_bits.filter(|_| self.accelerator != Accelerator::Kvm);
        let bits = bits.map(|bits| format!(",phys-bits={bits}")).unwrap_or_default();
        argv.option("-cpu", format!("{}{bits}", self.accelerator.cpu()));
        argv.option("-smp", self.cpus.to_string());
        if slots == 0 {
            argv.option("-m", format!("{memory}M"));
        } else {
            argv.option("-m", format!("{memory}M,maxmem={}M,slots={slots}", memory + pmem / MIB));
        }
        // vhost-user devices need guest RAM that another process can map.
        let node = self.numa.map(|node| format!(",host-nodes={node},policy=bind"));
        let node = node.unwrap_or_default();
        argv.option(
            "-object",
            format!("memory-backend-memfd,id=ram,size={memory}M,share=on{node}"),
        );
        argv.option("-uuid", self.uuid.to_string());
        // All else that a guest knows itself by is the same in a clone. The device `vmgenid` would
        // do this too, but with it QEMU's qboot does not start the guest.
        argv.option("-fw_cfg", format!("name={},file={RANDOM_UUID}", generation::LAUNCHER));
        for (id, value) in self.all_credentials() {
            let value = format!("value=io.systemd.credential:{id}={value}");
            argv.option("-smbios", join(["type=11,".as_ref(), &quote(value.as_ref())]));
        }
        self.boot(argv);
    }

    /// Where the kernel comes from.
    fn boot(&self, argv: &mut CommandLine) {
        let (kernel, initrd) = match &self.system {
            System::Appliance(image) => (image.kernel(), Some(image.initrd(self.root))),
            System::Own(own) => match &own.start {
                Start::Kernel { kernel, initrd, .. } => (kernel.clone(), initrd.clone()),
                Start::Firmware(Some(firmware)) => return argv.option("-bios", firmware),
                Start::Firmware(None) => return,
            },
        };
        // qboot and the PVH entry point skip the firmware and the kernel's own decompression.
        argv.option("-bios", "qboot.rom");
        argv.option("-kernel", kernel);
        if let Some(initrd) = initrd {
            argv.option("-initrd", initrd);
        }
        argv.option("-append", self.kernel_command_line());
    }

    fn memory_root(&self, argv: &mut CommandLine) {
        let Some((path, size)) = self.root_in_memory() else { return };
        // Mapped privately and never written: all VMs use the same pages of the host's page cache.
        // The guest cannot write to it, because its memory is ROM.
        let head = format!("memory-backend-file,id=root,share=off,readonly=on,rom=on,size={size},");
        let path = quote(path.as_os_str());
        argv.option("-object", join([head.as_ref(), "align=2M,mem-path=".as_ref(), &path]));
        argv.option("-device", format!("virtio-pmem-pci,memdev=root,addr={ROOT_SLOT}"));
    }

    fn storage(&self, argv: &mut CommandLine) {
        let root = match &self.system {
            System::Appliance(image) => image.disk(self.root),
            System::Own(own) => {
                own.add_disk(argv);
                None
            }
        };
        let root = root.map(|path| Disk { path, serial: ROOT_SERIAL.into() });
        // The disk of a user's own guest is disk0, too.
        let first = usize::from(self.system.own().is_some());
        for (index, disk) in root.iter().chain(&self.disks).enumerate() {
            let index = first + index;
            let node = format!("driver=file,node-name=disk{index},read-only=on,filename=");
            argv.option("-blockdev", join([node.as_ref(), &quote(disk.path.as_os_str())]));
            argv.option(
                "-device",
                format!("virtio-blk-pci,drive=disk{index},serial={}", disk.serial),
            );
        }
    }

    /// QEMU's arguments for the network.
    pub(crate) fn network_arguments(&self) -> Vec<OsString> {
        let mut argv = CommandLine(Vec::new());
        if let Some(forwards) = &self.network {
            let forwards: String =
                forwards.iter().map(|forward| format!(",{}", forward.option())).collect();
            argv.option("-netdev", format!("user,id=network,ipv6=off{forwards}"));
            // No machine of ours boots from it.
            argv.option("-device", "virtio-net-pci,netdev=network,romfile=");
        }
        argv.0
    }

    fn channels(&self, argv: &mut CommandLine) {
        let log = self.console_target();
        let log = quote(log.as_os_str());
        let console = match self.console {
            Console::Log => join(["file,id=console,path=".as_ref(), &log]),
            // Ctrl-C goes to the guest; Ctrl-A x ends QEMU.
            Console::Terminal => {
                join(["stdio,id=console,mux=on,signal=off,logfile=".as_ref(), &log])
            }
            Console::Socket { .. } => join([
                "socket,id=console,server=on,wait=off,path=".as_ref(),
                &quote(self.paths.console.as_os_str()),
                ",logfile=".as_ref(),
                &log,
            ]),
        };
        argv.option("-chardev", console);
        argv.option("-serial", "chardev:console");
        let qmp = quote(self.paths.qmp.as_os_str());
        argv.option("-qmp", join(["unix:".as_ref(), &qmp, ",server=on,wait=off".as_ref()]));
        // Port 0 of the device is for consoles.
        let max_ports = PORTS + 2;
        argv.option("-device", format!("virtio-serial-pci,max_ports={max_ports}"));
        let agents = [&self.paths.agent].into_iter().chain(&self.paths.commands);
        for (number, socket) in agents.enumerate() {
            serial_port(argv, number + 1, &format!("agent{number}"), &exec::port(number), socket);
        }
        serial_port(argv, PORTS + 1, "wake", port::NAME, &self.paths.wake);
    }
}

impl OwnGuest {
    /// QEMU opens an image read-only, and writes to a temporary file of its own, which has no name
    /// any more when the guest runs. It writes to a root device itself, past the host's cache:
    /// that of the image below is enough, and all VMs share it.
    fn add_disk(&self, argv: &mut CommandLine) {
        let (format, protocol) = (self.format.name(), self.format.protocol());
        let mode = if self.writable { "cache.direct=on" } else { "snapshot=on" };
        let head = format!(
            "if=none,id=disk0,{mode},discard=unmap,driver={format},file.driver={protocol},\
             file.filename="
        );
        argv.option("-drive", join([head.as_ref(), &quote(self.disk.as_os_str())]));
        // A kernel of the host, which QEMU boots by a ROM of its own, has index 0. If the host has
        // no room for what the guest writes, the guest gets the error, and is not paused for good.
        argv.option(
            "-device",
            format!("virtio-blk-pci,drive=disk0,serial={ROOT_SERIAL},bootindex=1,werror=report"),
        );
    }
}

/// A virtio-serial port, which is a socket on the host.
fn serial_port(argv: &mut CommandLine, number: usize, id: &str, name: &str, socket: &Path) {
    let head = format!("socket,id={id},server=on,wait=off,path=");
    argv.option("-chardev", join([head.as_ref(), &quote(socket.as_os_str())]));
    argv.option("-device", format!("virtserialport,nr={number},chardev={id},name={name}"));
}

impl PoolDevice {
    /// QEMU's arguments for it, as the device with that index.
    pub(crate) fn arguments(&self, index: usize) -> Vec<OsString> {
        let mut argv = CommandLine(Vec::new());
        self.add(index, &mut argv);
        argv.0
    }

    /// How many bytes of guest-physical address space must be reserved in addition to the RAM.
    fn pmem_size(&self) -> u64 {
        match self {
            Self::Shmem { .. } => 0,
            Self::Pmem { size, .. } => *size,
        }
    }

    fn add(&self, index: usize, argv: &mut CommandLine) {
        match self {
            Self::Shmem { socket } => {
                // The generic vhost-user device with the device id of virtio-pmem.
                let head = format!("socket,id=pool{index},path=");
                argv.option("-chardev", join([head.as_ref(), &quote(socket.as_os_str())]));
                argv.option(
                    "-device",
                    format!("vhost-user-test-device-pci,chardev=pool{index},virtio-id={DEVICE_ID}"),
                );
            }
            Self::Pmem { path, size, readonly } => {
                let head = format!("memory-backend-file,id=pool{index},share=on,");
                let access = if *readonly { "readonly=on," } else { "" };
                // Aligned so that the host can map the pool with huge pages.
                let size = format!("size={}M,align=2M,mem-path=", size / MIB);
                let path = quote(path.as_os_str());
                argv.option(
                    "-object",
                    join([head.as_ref(), access.as_ref(), size.as_ref(), &path]),
                );
                argv.option("-device", format!("virtio-pmem-pci,memdev=pool{index}"));
            }
        }
    }
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
