// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Process 1 of the initrd: loads the modules that reach the root, mounts it, and becomes systemd;
//! a second process of it runs what serves the host and the pool meanwhile ([`services`]).
//!
//! No shell, no device manager: the initrd holds this program, the modules, and their load order.
//! Without `root=` on the kernel command line the initrd is all there is, and this program stays:
//! see [`diskless`]. Whatever fails is said on the console, and the machine powers off: a VM that
//! cannot boot must not linger.

mod diskless;
mod large;
mod modules;
mod root;
mod services;
mod sys;
mod verity;

use std::convert::Infallible;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitCode};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::{RebootCommand, reboot};

/// Where the root is mounted before it becomes `/`.
const NEW_ROOT: &str = "/new-root";

/// What takes over.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// For file systems without device nodes.
pub const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
/// For file systems that hold no programs either.
pub const DATA_ONLY: MountFlags = NO_DEVICES.union(MountFlags::NOEXEC);

/// Kernel file systems, mounted in the initrd and moved to the root.
const KERNEL_MOUNTS: [(&str, &str, MountFlags); 3] = [
    ("/dev", "devtmpfs", MountFlags::NOSUID),
    ("/proc", "proc", DATA_ONLY),
    ("/sys", "sysfs", DATA_ONLY),
];

/// systemd would mount it, but then the kernel runs modprobe for a module that Debian does not
/// have. In the initrd there is no modprobe.
const BPF: &str = "/sys/fs/bpf";

/// Mounted over the read-only root: here because a system call costs nothing, a mount unit a
/// process. What else there is (/dev/shm, control groups), systemd mounts itself.
const ROOT_MOUNTS: [(&str, &str, MountFlags); 3] = [
    ("/sys/kernel/tracing", "tracefs", DATA_ONLY),
    ("/tmp", "tmpfs", NO_DEVICES),
    ("/var", "tmpfs", NO_DEVICES),
];

fn main() -> ExitCode {
    // As process 1 it has words of the kernel command line for arguments.
    if process::id() != 1 {
        return run_beside_systemd();
    }
    let Err(error) = boot();
    eprintln!("appliance-init: {error:#}; powering off");
    // If even this fails, returning makes the kernel panic, which ends the VM as well.
    let _ = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

/// What this program does when it is not process 1.
fn run_beside_systemd() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments != [services::BESIDE] {
        eprintln!("appliance-init is started by the kernel as process 1 of the appliance's initrd");
        return ExitCode::from(2);
    }
    match services::run_beside_systemd() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("appliance-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Infallible> {
    for (path, kind, flags) in KERNEL_MOUNTS {
        fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
        mount_kind(kind, path, flags)?;
    }
    let command_line = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    let Some(root) = root::from_command_line(&command_line)? else {
        return diskless::run(&command_line);
    };
    let hash = verity::root_hash(&command_line)?;
    modules::load(modules::INITRD, &[if hash.is_some() { "verity" } else { root.kind() }])?;
    let mut device = root::find(root)?;
    if let Some(hash) = hash {
        device = verity::open(&device, hash)?;
    }
    fs::create_dir_all(NEW_ROOT).with_context(|| format!("cannot make {NEW_ROOT}"))?;
    root.mount(&device, NEW_ROOT)?;
    // Without it everything works, only slower.
    if let Err(error) = large::map(NEW_ROOT) {
        eprintln!("appliance-init: {error:#}; going on with small pages");
    }
    // Where this kernel has none, systemd will find out again.
    let _ = mount("bpf", BPF, "bpf", DATA_ONLY, c"mode=0700");
    switch_root()?;
    services::take_credentials(&command_line)?;
    services::start_beside_systemd()?;
    let error = Command::new(SYSTEMD).exec();
    Err(error).with_context(|| format!("cannot run {SYSTEMD}"))
}

/// Makes the mounted root `/`, and gives back the memory of the initrd.
fn switch_root() -> Result<()> {
    for (path, ..) in KERNEL_MOUNTS {
        let target = format!("{NEW_ROOT}{path}");
        mount_move(path, &target).with_context(|| format!("cannot move {path} to {target}"))?;
    }
    // The only large things in the initrd; this program's own pages go with its image, at exec.
    fs::remove_dir_all(modules::INITRD_DIR)
        .with_context(|| format!("cannot remove {}", modules::INITRD_DIR))?;
    fs::remove_file("/init").context("cannot remove /init")?;
    rustix::process::chdir(NEW_ROOT).with_context(|| format!("cannot enter {NEW_ROOT}"))?;
    mount_move(".", "/").context("cannot move the root to /")?;
    rustix::process::chroot(".").context("cannot make the root the root")?;
    for (path, kind, flags) in ROOT_MOUNTS {
        mount_kind(kind, path, flags)?;
    }
    mount_run()?;
    symlink("/run", "/var/run").context("cannot make /var/run")
}

/// Mounts a file system that has no device.
pub fn mount_kind(kind: &str, path: &str, flags: MountFlags) -> Result<()> {
    mount(kind, path, kind, flags, None).with_context(|| format!("cannot mount {kind} on {path}"))
}

/// Mounts /run, as systemd does where it is not.
pub fn mount_run() -> Result<()> {
    let options = c"mode=0755,size=20%,nr_inodes=800k";
    fs::create_dir_all("/run").context("cannot make /run")?;
    mount("tmpfs", "/run", "tmpfs", NO_DEVICES, options).context("cannot mount tmpfs on /run")
}
