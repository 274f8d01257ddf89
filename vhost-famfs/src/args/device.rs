// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `device`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use famfs::text::number::parse_size;

use super::ArgsError;
use crate::device::sandbox::Violation;
use crate::pool::Owners;

/// Give one VM access to a pool: a vhost-user back-end for virtio-pmem (device id 27)
///
/// Serves one connection and exits when the VM disconnects. Run one process per VM; any number of
/// processes can serve the same pool. The process must run as long as its VM. It drops its
/// privileges once it listens, and all system calls that it no longer needs when the VM connects.
///
/// Example, in two shells:
///
///   vhost-famfs device --pool /dev/shm/pool --socket-path /run/vm1.sock
///
///   qemu-system-x86_64 -machine q35,memory-backend=ram -m 1G \
///     -object memory-backend-memfd,id=ram,size=1G,share=on \
///     -chardev socket,id=pool,path=/run/vm1.sock \
///     -device vhost-user-test-device-pci,chardev=pool,virtio-id=27 ...
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(override_usage = "vhost-famfs device --pool <PATH> --socket-path <PATH> [OPTIONS]")]
#[command(group(ArgGroup::new("memory").args(["pool", "pool_fd"])))]
#[command(group(ArgGroup::new("endpoint").args(["socket_path", "fd"])))]
pub(super) struct DeviceArgs {
    /// Path of the pool.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["pool_fd", "print_capabilities"])]
    pool: Option<PathBuf>,
    /// The pool, as an open descriptor (for example a memfd) inherited from the parent process; 0
    /// is standard input.
    #[arg(long, value_name = "FDNUM")]
    pool_fd: Option<RawFd>,
    /// Accept a pool that another user owns or can change, or whose name is a link.
    #[arg(long, requires = "pool")]
    foreign_pool: bool,
    /// Listen on this socket for the VMM. A socket left over from an earlier run is replaced.
    #[arg(short, long, value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// Listen on this inherited socket. Not needed under systemd socket activation.
    #[arg(long, value_name = "FDNUM")]
    fd: Option<RawFd>,
    /// Offset in the pool of the first byte that the VM sees; a multiple of 2M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "0")]
    offset: u64,
    /// Number of bytes that the VM sees; a multiple of 2M [default: up to the end of the pool]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    length: Option<u64>,
    /// Not possible with this device; the error names one that can.
    #[arg(long, hide = true)]
    readonly: bool,
    /// Print the capabilities of this back-end as JSON and exit.
    #[arg(long)]
    pub(super) print_capabilities: bool,
    /// How to confine the process before a VM can reach it.
    #[arg(long, value_enum, default_value_t = SandboxArg::Kill)]
    sandbox: SandboxArg,
    /// Format of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Log every memory table and every batch of requests.
    #[arg(short, long, overrides_with = "verbose")]
    verbose: bool,
}

/// What happens when a back-end makes a system call that it does not need.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SandboxArg {
    /// Drop privileges; the kernel kills the process at a system call that is not allowed.
    Kill,
    /// Drop privileges; the kernel logs such a call (audit) and allows it.
    Log,
    /// Keep all privileges and system calls, for debugging.
    None,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// A path, or the number of an inherited descriptor.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// A path.
    Path(PathBuf),
    /// A descriptor number.
    Fd(RawFd),
    /// The socket that systemd passes (`LISTEN_FDS`).
    Activation,
}

/// How to serve one VM.
#[derive(Debug)]
pub struct DeviceConfig {
    /// The pool.
    pub pool: Source,
    /// Which owners of the pool to accept.
    pub owners: Owners,
    /// The socket.
    pub socket: Source,
    /// Offset of the window in the pool, in bytes.
    pub offset: u64,
    /// Length of the window in bytes; `None` for up to the end of the pool.
    pub length: Option<u64>,
    /// The user asked for a read-only window.
    pub readonly: bool,
    /// The sandbox; `None` for none.
    pub sandbox: Option<Violation>,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Log more events.
    pub verbose: bool,
}

fn source(path: Option<PathBuf>, fd: Option<RawFd>) -> Option<Source> {
    path.map(Source::Path).or(fd.map(Source::Fd))
}

/// Whether systemd, or a program that follows its protocol, passes a socket.
fn is_activated() -> bool {
    std::env::var_os("LISTEN_FDS").is_some()
}

impl TryFrom<DeviceArgs> for DeviceConfig {
    type Error = ArgsError;

    fn try_from(args: DeviceArgs) -> Result<Self, ArgsError> {
        if let (Some(one), Some(other)) = (args.pool_fd, args.fd)
            && one == other
        {
            return Err(ArgsError::SameFd(one));
        }
        let socket = source(args.socket_path, args.fd);
        let activated = is_activated().then_some(Source::Activation);
        Ok(Self {
            pool: source(args.pool, args.pool_fd).ok_or(ArgsError::NoPool)?,
            owners: Owners::foreign(args.foreign_pool),
            socket: socket.or(activated).ok_or(ArgsError::NoSocket)?,
            offset: args.offset,
            length: args.length,
            readonly: args.readonly,
            sandbox: match args.sandbox {
                SandboxArg::Kill => Some(Violation::Kill),
                SandboxArg::Log => Some(Violation::Log),
                SandboxArg::None => None,
            },
            log_format: args.log_format,
            verbose: args.verbose,
        })
    }
}
