// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Process 1 of the initrd: loads the modules needed to reach the root, mounts the root, and
//! becomes systemd. Meanwhile a second process of this program runs the services for the host and
//! the pool ([`services`]).
//!
//! There is no shell and no device manager: the initrd contains this program, the modules, and the
//! order in which to load them. Without `root=` on the kernel command line, the initrd is the whole
//! system, and this program keeps running: see [`diskless`]. If anything fails, it prints an error
//! to the console and powers off the machine: a VM that cannot boot must not keep running.

mod diskless;
mod large;
mod modules;
mod network;
mod power_button;
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

/// The program that takes over.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// For file systems without device nodes.
pub const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
/// For file systems that contain no programs either.
pub const DATA_ONLY: MountFlags = NO_DEVICES.union(MountFlags::NOEXEC);

/// Kernel file systems, mounted in the initrd and moved to the root.
const KERNEL_MOUNTS: [(&str, &str, MountFlags); 3] = [
    ("/dev", "devtmpfs", MountFlags::NOSUID),
    ("/proc", "proc", DATA_ONLY),
    ("/sys", "sysfs", DATA_ONLY),
];

/// systemd would mount it too, but then the kernel would run modprobe for a module that Debian does
/// not have. The initrd has no modprobe.
const BPF: &str = "/sys/fs/bpf";

/// Mounted over the read-only root. It is done here because a system call costs nothing, but a
/// mount unit costs a process. systemd mounts all others itself (/dev/shm, control groups).
const ROOT_MOUNTS: [(&str, &str, MountFlags); 3] = [
    ("/sys/kernel/tracing", "tracefs", DATA_ONLY),
    ("/tmp", "tmpfs", NO_DEVICES),
    ("/var", "tmpfs", NO_DEVICES),
];

fn main() -> ExitCode {
    // As process 1, it gets words of the kernel command line as arguments.
    if process::id() != 1 {
        return run_beside_systemd();
    }
    let Err(error) = boot();
    eprintln!("appliance-init: {error:#}; powering off");
    // If even this fails, returning from here makes the kernel panic, which also ends the VM.
    let _ = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

/// What this program does if it is not process 1.
fn run_beside_systemd() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments != [services::BESIDE] {
        eprintln!(
            "appliance-init must be started by the kernel, as process 1 of the appliance's \
                   initrd"
        );
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
        fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))?;
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
    fs::create_dir_all(NEW_ROOT).with_context(|| format!("cannot create {NEW_ROOT}"))?;
    root.mount(&device, NEW_ROOT)?;
    // Without this, everything works, but more slowly.
    if let Err(error) = large::map(NEW_ROOT) {
        eprintln!("appliance-init: {error:#}; continuing with small pages");
    }
    // If this kernel has none, systemd will notice it too.
    let _ = mount("bpf", BPF, "bpf", DATA_ONLY, c"mode=0700");
    switch_root()?;
    services::take_credentials(&command_line)?;
    services::start_beside_systemd()?;
    let error = Command::new(SYSTEMD).exec();
    Err(error).with_context(|| format!("cannot run {SYSTEMD}"))
}

/// Makes the mounted root `/`, and frees the memory of the initrd.
fn switch_root() -> Result<()> {
    for (path, ..) in KERNEL_MOUNTS {
        let target = format!("{NEW_ROOT}{path}");
        mount_move(path, &target).with_context(|| format!("cannot move {path} to {target}"))?;
    }
    // The only large files in the initrd; this program's own pages are freed at exec.
    fs::remove_dir_all(modules::INITRD_DIR)
        .with_context(|| format!("cannot remove {}", modules::INITRD_DIR))?;
    fs::remove_file("/init").context("cannot remove /init")?;
    rustix::process::chdir(NEW_ROOT).with_context(|| format!("cannot enter {NEW_ROOT}"))?;
    mount_move(".", "/").context("cannot move the root to /")?;
    rustix::process::chroot(".").context("cannot change the root directory")?;
    for (path, kind, flags) in ROOT_MOUNTS {
        mount_kind(kind, path, flags)?;
    }
    mount_run()?;
    symlink("/run", "/var/run").context("cannot create /var/run")
}

/// Mounts a file system that has no device.
pub fn mount_kind(kind: &str, path: &str, flags: MountFlags) -> Result<()> {
    mount(kind, path, kind, flags, None).with_context(|| format!("cannot mount {kind} on {path}"))
}

/// Mounts /run with the options that systemd uses.
pub fn mount_run() -> Result<()> {
    let options = c"mode=0755,size=20%,nr_inodes=800k";
    fs::create_dir_all("/run").context("cannot create /run")?;
    mount("tmpfs", "/run", "tmpfs", NO_DEVICES, options).context("cannot mount tmpfs on /run")
}
