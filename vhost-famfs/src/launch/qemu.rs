// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the description of a VM to QEMU's exact command line. Pure: no file is touched here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use appliance::attach::NO_POOL_CREDENTIAL;
use appliance::credentials::{self, CredentialError};
use appliance::exec::PORT;
use uuid::Uuid;

use super::accelerator::Accelerator;
use super::image::{Image, Root};
use crate::units::{ALIGNMENT, Bytes};

const MIB: u64 = 1 << 20;

/// Least memory in which the appliance boots.
const MIN_MEMORY: u64 = 256 * MIB;

/// Longest path of a Unix socket (`sun_path` of unix(7), less its final NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Longest serial number of a disk (virtio 1.3, 5.2: `VIRTIO_BLK_ID_BYTES`).
const MAX_SERIAL: usize = 20;

/// Serial number of the root disk; the guest finds its root by it.
const ROOT_SERIAL: &str = "famfs-root";

/// PCI slot of a root in memory: the guest finds its root by it, as nothing in a pool can imitate an address.
const ROOT_SLOT: &str = "1e";

/// The appliance's virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// Name in messages and the guest's host name: 1 to 32 letters, digits, `-`.
    pub name: String,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// What to boot.
    pub image: Image,
    /// Which root of the image.
    pub root: Root,
    /// Directory for this VM's sockets: made at start, removed at the end.
    pub runtime_dir: PathBuf,
    /// File that receives the serial console; it stays.
    pub console_log: PathBuf,
    /// Where the serial console goes beside that file.
    pub console: Console,
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Guest RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Bits of the guest's physical addresses, where QEMU's default is too small for its pools.
    pub phys_bits: Option<u32>,
    /// The machine's UUID (SMBIOS). famfs takes it as the system's: the VM whose UUID is the one in the pool's
    /// superblock is its master.
    pub uuid: Uuid,
    /// Pools, in the order in which the guest finds them. None: the guest attaches nothing.
    pub pools: Vec<PoolDevice>,
    /// Read-only disks beside the root disk.
    pub disks: Vec<Disk>,
    /// systemd credentials for the guest, by SMBIOS.
    pub credentials: BTreeMap<String, String>,
    /// More words for the kernel command line.
    pub kernel_args: Vec<String>,
    /// More arguments for QEMU.
    pub qemu_args: Vec<OsString>,
}

/// Where a serial console goes beside its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// Nowhere; it takes no input.
    Log,
    /// To the terminal of this program, with a root shell on it.
    Terminal,
    /// To whoever connects to [`VmConfig::console_socket`]; one at a time.
    Socket {
        /// With a root shell on it.
        shell: bool,
    },
}

/// How a pool comes into the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolDevice {
    /// A window that a back-end on this socket maps (`SHMEM_MAP`). Read-write; QEMU 11.1 or newer.
    Shmem {
        /// The back-end's socket; it listens already.
        socket: PathBuf,
    },
    /// A file that QEMU maps itself.
    Pmem {
        /// The pool.
        path: PathBuf,
        /// Its size in bytes, a multiple of 2 MiB.
        size: u64,
        /// The guest cannot change the pool.
        readonly: bool,
    },
}

/// A read-only disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Image file.
    pub path: PathBuf,
    /// Serial number, 1 to 20 letters, digits, `-`; the guest has it in `/sys/block/*/serial`.
    pub serial: String,
}

/// A description that is no VM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something that ends up in paths, host names or options has other characters.
    #[error("{what} {value:?}: expected 1 to {max} letters, digits or '-'")]
    Word {
        /// What it names.
        what: &'static str,
        /// The value.
        value: String,
        /// Most characters.
        max: usize,
    },
    /// Too little memory, or an odd amount.
    #[error("VM {name}: memory of {}, expected a multiple of 2 MiB, at least 256 MiB", Bytes(*memory))]
    Memory {
        /// The VM.
        name: String,
        /// The amount.
        memory: u64,
    },
    /// No processor.
    #[error("VM {name}: no processors, expected at least 1")]
    Cpus {
        /// The VM.
        name: String,
    },
    /// A pool that cannot be mapped.
    #[error("VM {name}: pool {}: size of {}, expected a multiple of 2 MiB", path.display(), Bytes(*size))]
    PoolSize {
        /// The VM.
        name: String,
        /// The pool.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// A socket path that the kernel does not take.
    #[error(
        "VM {name}: socket path {} has {} bytes, at most {MAX_SOCKET_PATH} are possible; \
         use a shorter directory", path.display(), path.as_os_str().len()
    )]
    SocketPath {
        /// The VM.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// A credential that SMBIOS cannot carry.
    #[error("VM {name}: credential {id:?}: NUL or line feed in its name or value")]
    Credential {
        /// The VM.
        name: String,
        /// The credential.
        id: String,
    },
    /// A credential that the appliance does not understand.
    #[error("VM {name}: {error}")]
    Meaning {
        /// The VM.
        name: String,
        /// What is wrong with it.
        error: CredentialError,
    },
}

impl VmConfig {
    /// A VM with 2 processors and 1 GiB of RAM, a random UUID, and nothing attached.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        qemu: impl Into<PathBuf>,
        image: Image,
        runtime_dir: impl Into<PathBuf>,
        console_log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            qemu: qemu.into(),
            image,
            root: Root::default(),
            runtime_dir: runtime_dir.into(),
            console_log: console_log.into(),
            console: Console::Log,
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: 1024 * MIB,
            phys_bits: None,
            uuid: Uuid::new_v4(),
            pools: Vec::new(),
            disks: Vec::new(),
            credentials: BTreeMap::new(),
            kernel_args: Vec::new(),
            qemu_args: Vec::new(),
        }
    }

    /// The socket of the guest's command agent.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.runtime_dir.join("agent.sock")
    }

    /// QEMU's control socket.
    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.runtime_dir.join("qmp.sock")
    }

    /// The socket of the serial console, if it has one.
    #[must_use]
    pub fn console_socket(&self) -> Option<PathBuf> {
        let has_socket = matches!(self.console, Console::Socket { .. });
        has_socket.then(|| self.runtime_dir.join("console.sock"))
    }

    /// The serial number by which the guest finds its root disk.
    pub(super) fn root_serial(&self) -> &'static str {
        ROOT_SERIAL
    }

    /// Program and arguments.
    ///
    /// # Errors
    /// What cannot be run so.
    pub fn command_line(&self) -> Result<Vec<OsString>, ConfigError> {
        self.check()?;
        let mut argv = CommandLine(vec![self.qemu.clone().into()]);
        self.machine(&mut argv);
        // Pools come first: the guest numbers /dev/daxN and /dev/pmemN in the order of discovery.
        for (index, pool) in self.pools.iter().enumerate() {
            pool.add(index, &mut argv);
        }
        self.memory_root(&mut argv);
        self.storage(&mut argv);
        self.channels(&mut argv);
        argv.0.extend(self.qemu_args.iter().cloned());
        Ok(argv.0)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let name = &self.name;
        word("VM name", name, 32)?;
        if self.cpus == 0 {
            return Err(ConfigError::Cpus { name: name.clone() });
        }
        if self.memory < MIN_MEMORY || !self.memory.is_multiple_of(ALIGNMENT) {
            return Err(ConfigError::Memory { name: name.clone(), memory: self.memory });
        }
        for (id, value) in &self.credentials {
            credentials::check(id, value)
                .map_err(|error| ConfigError::Meaning { name: name.clone(), error })?;
        }
        for disk in &self.disks {
            word("disk serial", &disk.serial, MAX_SERIAL)?;
        }
        let mut sockets = vec![self.agent_socket(), self.qmp_socket()];
        sockets.extend(self.console_socket());
        for pool in &self.pools {
            match pool {
                PoolDevice::Shmem { socket } => sockets.push(socket.clone()),
                PoolDevice::Pmem { path, size, .. } => {
                    if *size == 0 || !size.is_multiple_of(ALIGNMENT) {
                        let (name, path) = (name.clone(), path.clone());
                        return Err(ConfigError::PoolSize { name, path, size: *size });
                    }
                }
            }
        }
        if let Some(path) =
            sockets.into_iter().find(|path| path.as_os_str().len() > MAX_SOCKET_PATH)
        {
            return Err(ConfigError::SocketPath { name: name.clone(), path });
        }
        let unfit = |text: &str| text.contains(['\0', '\n']);
        if let Some((id, _)) = self.credentials.iter().find(|(id, value)| unfit(id) || unfit(value))
        {
            return Err(ConfigError::Credential { name: name.clone(), id: id.clone() });
        }
        Ok(())
    }

    fn machine(&self, argv: &mut CommandLine) {
        let memory = self.memory / MIB;
        let root = self.root_in_memory().map(|(_, size)| size);
        let sizes = self.pools.iter().map(PoolDevice::pmem_size).chain(root);
        let sizes: Vec<u64> = sizes.filter(|size| *size > 0).collect();
        let (pmem, slots) = (sizes.iter().sum::<u64>(), sizes.len());
        argv.flag("-nodefaults");
        argv.flag("-no-user-config");
        // A VM ends where others reboot: QEMU 11.1 aborts when a vhost-user device starts a second time.
        argv.flag("-no-reboot");
        argv.option("-display", "none");
        argv.option("-name", &self.name);
        argv.option("-machine", "q35,memory-backend=ram");
        argv.option("-accel", self.accelerator.name());
        let bits = self.phys_bits.map(|bits| format!(",phys-bits={bits}")).unwrap_or_default();
        argv.option("-cpu", format!("{}{bits}", self.accelerator.cpu()));
        argv.option("-smp", self.cpus.to_string());
        if slots == 0 {
            argv.option("-m", format!("{memory}M"));
        } else {
            argv.option("-m", format!("{memory}M,maxmem={}M,slots={slots}", memory + pmem / MIB));
        }
        // vhost-user devices need guest RAM that another process can map.
        argv.option("-object", format!("memory-backend-memfd,id=ram,size={memory}M,share=on"));
        argv.option("-uuid", self.uuid.to_string());
        for (id, value) in self.all_credentials() {
            let value = format!("value=io.systemd.credential:{id}={value}");
            argv.option("-smbios", join(["type=11,".as_ref(), &quote(value.as_ref())]));
        }
        // qboot and the PVH entry skip the firmware and the kernel's own decompression.
        argv.option("-bios", "qboot.rom");
        argv.option("-kernel", self.image.kernel());
        argv.option("-initrd", self.image.initrd(self.root));
        argv.option("-append", self.kernel_command_line());
    }

    /// The credentials that the guest gets: the given ones, and those that the configuration implies.
    pub(super) fn all_credentials(&self) -> BTreeMap<String, String> {
        let mut credentials = self.credentials.clone();
        credentials.entry("system.hostname".into()).or_insert_with(|| self.name.clone());
        if self.pools.is_empty() {
            credentials.insert(NO_POOL_CREDENTIAL.into(), "1".into());
        }
        if matches!(self.console, Console::Terminal | Console::Socket { shell: true }) {
            credentials.insert(appliance::attach::CONSOLE_CREDENTIAL.into(), "shell".into());
        }
        credentials
    }

    /// The value of `-append`.
    pub(super) fn kernel_command_line(&self) -> String {
        let mut words = vec!["console=ttyS0".to_owned()];
        words.extend(self.root_words());
        words.extend([
            // A panic ends the VM at once instead of waiting for someone to read it: it is in the console log.
            "panic=-1".to_owned(),
            // Warnings and worse on the console, which is slow to print; the rest is for dmesg.
            "loglevel=5".into(),
            // systemd's messages are not rate-limited out of the kernel log.
            "printk.devkmsg=on".into(),
            "systemd.tty.term.console=dumb".into(),
            // No security module has a policy here.
            "lsm=".into(),
            "audit=0".into(),
            "8250.nr_uarts=1".into(),
            // Where memory above 4 GiB can come, the kernel sets 64 MiB aside to copy for devices that cannot reach
            // it. Virtio devices can: here it is the least, 512 slots of 2 KiB.
            "swiotlb=512".into(),
        ]);
        if self.accelerator != Accelerator::Kvm {
            // Translated code has no speculation to guard against, and its clock is QEMU's.
            words.extend(
                [
                    "mitigations=off",
                    "nokaslr",
                    "tsc=reliable",
                    "no_timer_check",
                    "cryptomgr.notests",
                ]
                .map(str::to_owned),
            );
        }
        words.extend(self.kernel_args.iter().cloned());
        words.join(" ")
    }

    /// What tells the guest where its root is.
    fn root_words(&self) -> Vec<String> {
        let disk = format!("root=/dev/disk/by-id/virtio-{ROOT_SERIAL}");
        match self.root {
            Root::Disk => vec![disk],
            Root::Memory => vec![format!("root=/dev/disk/by-path/pci-0000:00:{ROOT_SLOT}.0")],
            Root::Initrd => Vec::new(),
            Root::Verity => {
                vec![disk, format!("roothash={}", self.image.root_hash().unwrap_or_default())]
            }
        }
    }

    /// The root that becomes part of the guest's address space, with its size in bytes.
    #[must_use]
    pub fn root_in_memory(&self) -> Option<(PathBuf, u64)> {
        self.image.memory_root().filter(|_| self.root == Root::Memory)
    }

    fn memory_root(&self, argv: &mut CommandLine) {
        let Some((path, size)) = self.root_in_memory() else { return };
        // Mapped privately and never written: every VM has the pages of the host's page cache. The guest cannot even
        // try, its memory is ROM.
        let head = format!("memory-backend-file,id=root,share=off,readonly=on,rom=on,size={size},");
        let path = quote(path.as_os_str());
        argv.option("-object", join([head.as_ref(), "align=2M,mem-path=".as_ref(), &path]));
        argv.option("-device", format!("virtio-pmem-pci,memdev=root,addr={ROOT_SLOT}"));
    }

    fn storage(&self, argv: &mut CommandLine) {
        let root = self.image.disk(self.root);
        let root = root.map(|path| Disk { path, serial: ROOT_SERIAL.into() });
        for (index, disk) in root.iter().chain(&self.disks).enumerate() {
            let node = format!("driver=file,node-name=disk{index},read-only=on,filename=");
            argv.option("-blockdev", join([node.as_ref(), &quote(disk.path.as_os_str())]));
            argv.option(
                "-device",
                format!("virtio-blk-pci,drive=disk{index},serial={}", disk.serial),
            );
        }
    }

    fn channels(&self, argv: &mut CommandLine) {
        let log = quote(self.console_log.as_os_str());
        let socket = self.console_socket().unwrap_or_default();
        let console = match self.console {
            Console::Log => join(["file,id=console,path=".as_ref(), &log]),
            // Ctrl-C goes to the guest; Ctrl-A x ends QEMU.
            Console::Terminal => {
                join(["stdio,id=console,mux=on,signal=off,logfile=".as_ref(), &log])
            }
            Console::Socket { .. } => join([
                "socket,id=console,server=on,wait=off,path=".as_ref(),
                &quote(socket.as_os_str()),
                ",logfile=".as_ref(),
                &log,
            ]),
        };
        argv.option("-chardev", console);
        argv.option("-serial", "chardev:console");
        let agent = quote(self.agent_socket().as_os_str());
        argv.option(
            "-chardev",
            join(["socket,id=agent,server=on,wait=off,path=".as_ref(), &agent]),
        );
        let qmp = quote(self.qmp_socket().as_os_str());
        argv.option("-qmp", join(["unix:".as_ref(), &qmp, ",server=on,wait=off".as_ref()]));
        argv.option("-device", "virtio-serial-pci,max_ports=2");
        argv.option("-device", format!("virtserialport,nr=1,chardev=agent,name={PORT}"));
    }
}

impl PoolDevice {
    /// Its arguments for QEMU, as the device of that number.
    pub(super) fn arguments(&self, index: usize) -> Vec<OsString> {
        let mut argv = CommandLine(Vec::new());
        self.add(index, &mut argv);
        argv.0
    }

    /// Bytes of guest-physical address space that must be set aside beside the RAM.
    fn pmem_size(&self) -> u64 {
        match self {
            Self::Shmem { .. } => 0,
            Self::Pmem { size, .. } => *size,
        }
    }

    fn add(&self, index: usize, argv: &mut CommandLine) {
        match self {
            Self::Shmem { socket } => {
                // The generic vhost-user device with the number of virtio-pmem (virtio 1.3, 5.19).
                let head = format!("socket,id=pool{index},path=");
                argv.option("-chardev", join([head.as_ref(), &quote(socket.as_os_str())]));
                argv.option(
                    "-device",
                    format!("vhost-user-test-device-pci,chardev=pool{index},virtio-id=27"),
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

/// Collects arguments.
struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }
}

/// A value inside a QEMU option list: a comma is written twice.
fn quote(value: &OsStr) -> OsString {
    let mut quoted = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        quoted.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(quoted)
}

fn join<const N: usize>(parts: [&OsStr; N]) -> OsString {
    let mut joined = OsString::new();
    parts.into_iter().for_each(|part| joined.push(part));
    joined
}

fn word(what: &'static str, value: &str, max: usize) -> Result<(), ConfigError> {
    let fits = (1..=max).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(()) } else { Err(ConfigError::Word { what, value: value.into(), max }) }
}

/// A command line as text that a shell reads back.
#[must_use]
pub fn shell_quoted(argv: &[OsString]) -> String {
    let words = argv.iter().map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
