// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line, and its conversion into a `Config`.

mod cluster;
pub mod complete;
mod cp;
mod device;
mod doctor;
mod emitted;
mod keep_logs;
mod life;
mod pool;
mod since;
mod ublk;
mod up;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use clap::{Parser, Subcommand};

use cluster::{ConsoleArgs, DownArgs, ExecArgs, LogsArgs, PsArgs};
pub use cluster::{ConsoleConfig, DownConfig, ExecConfig, LogsConfig, PsConfig};
use cp::CpArgs;
pub use cp::{CpConfig, HostEnd, Route};
use device::DeviceArgs;
pub use device::{DeviceConfig, LogFormat, Source};
use doctor::DoctorArgs;
pub use doctor::DoctorConfig;
use emitted::EmittedCommand;
pub use emitted::EmittedConfig;
use keep_logs::KeepLogsArgs;
pub use keep_logs::KeepLogsConfig;
use life::{KeepRunningArgs, RestartArgs, StartArgs, StopArgs};
pub use life::{KeepRunningConfig, StartConfig, StopConfig};
use pool::PoolCommand;
pub use pool::PoolConfig;
use ublk::UblkCommand;
pub use ublk::UblkConfig;
use up::UpArgs;
pub use up::{Described, Emit, UpConfig};

/// Under this name, the program is `vhost-famfs device`: the vhost-user conventions ask for one
/// program per back-end.
pub const DEVICE_PROGRAM: &str = "vhost-user-famfs";

/// Share one memory pool between virtual machines.
///
/// A pool is a file in memory (tmpfs, hugetlbfs, memfd) or on disk that several VMs map at the same
/// time. `up` starts a cluster of VMs that share a pool; `ps`, `exec`, `cp`, `console` and `logs`
/// let you look into it; `stop`, `start` and `restart` are for single VMs; `down` stops it. To use
/// a pool with VMs that other programs start, make it with `pool create`, then run `device` for
/// each VM: the VM sees a virtio-pmem device.
///
/// Exit codes: 0 success (for `device`: the VM disconnected, or SIGTERM); 1 failure, with a message
/// on standard error; 2 wrong command line; 130 interrupted. `exec` returns the exit code of its
/// command, see there. `ps` returns 3 if a part of a cluster has ended.
///
/// Completions for bash: source <(VHOST_FAMFS_COMPLETE=bash vhost-famfs)
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, find, inspect, grow, resize or remove pools.
    #[command(subcommand)]
    Pool(PoolCommand),
    Device(DeviceArgs),
    Up(UpArgs),
    Doctor(DoctorArgs),
    Down(DownArgs),
    Stop(StopArgs),
    Start(StartArgs),
    Restart(RestartArgs),
    Ps(PsArgs),
    Exec(ExecArgs),
    Cp(CpArgs),
    Console(ConsoleArgs),
    Logs(LogsArgs),
    #[command(hide = true)]
    KeepLogs(KeepLogsArgs),
    #[command(hide = true)]
    KeepRunning(KeepRunningArgs),
    #[command(subcommand, hide = true)]
    Emitted(EmittedCommand),
    /// Export an image or a pool to the host as a block device.
    #[command(subcommand)]
    Ublk(UblkCommand),
}

impl Cli {
    /// Parses a command line whose first word is the program's name.
    ///
    /// # Errors
    /// What clap refuses, or the text of `--help`.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(as_device(words))
    }
}

/// Inserts the command that the program's name stands for.
fn as_device(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.into_iter().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name());
    if name.is_some_and(|name| name == DEVICE_PROGRAM) {
        words.insert(1, "device".into());
    }
    words
}

/// What to do, independent of the command line.
#[derive(Debug)]
pub enum Config {
    /// Manage pools.
    Pool(PoolConfig),
    /// Print the back-end's capabilities.
    Capabilities,
    /// Serve one VM.
    Device(DeviceConfig),
    /// Start a cluster.
    Up(UpConfig),
    /// Check the host.
    Doctor(DoctorConfig),
    /// Stop a cluster.
    Down(DownConfig),
    /// Stop VMs.
    Stop(StopConfig),
    /// Start VMs again.
    Start(StartConfig),
    /// Show clusters.
    Ps(PsConfig),
    /// Run a command in a VM.
    Exec(ExecConfig),
    /// Copy files from or to a VM.
    Cp(CpConfig),
    /// Attach to a serial console.
    Console(ConsoleConfig),
    /// Show logs.
    Logs(LogsConfig),
    /// Limit the size of logs.
    KeepLogs(KeepLogsConfig),
    /// Start a VM again when it fails.
    KeepRunning(KeepRunningConfig),
    /// Do what the output of `up --emit` needs.
    Emitted(EmittedConfig),
    /// Manage block devices.
    Ublk(UblkConfig),
}

/// An error in a command line that clap cannot detect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// The command line names no pool.
    #[error(
        "no pool: use --pool PATH, or --pool-fd for a descriptor that the parent process opened"
    )]
    NoPool,
    /// The command line names no socket.
    #[error(
        "no socket: use --socket-path PATH, or --fd for one that the parent process opened, or \
         start the program from a systemd socket unit"
    )]
    NoSocket,
    /// The command line names no cluster.
    #[error(
        "no cluster: name a cluster file, or use --vms N with the directories to share (--share \
         DIR)"
    )]
    NoCluster,
    /// One descriptor cannot be both the pool and the socket.
    #[error("descriptor {0} cannot be both the pool (--pool-fd) and the socket (--fd)")]
    SameFd(RawFd),
    /// The command line does not say where writes go.
    #[error(
        "no place for changes: use --overlay FILE to keep them, --ephemeral to discard them, or \
         --read-only to refuse writes"
    )]
    NoChanges,
    /// No end of a copy is in a VM.
    #[error("neither the sources nor the target is in a VM; write VM:PATH for the one that is")]
    NoVm,
    /// A copy between two VMs.
    #[error("cp copies between the host and one VM; copy to the host first, and from there")]
    TwoVms,
    /// Sources of the host and of a VM.
    #[error("the target is on the host, so all sources must be in the VM")]
    Mixed,
    /// A stream is one file.
    #[error("`-` is one file, so there must be one source")]
    OneStream,
    /// A word that names a VM but no path in it.
    #[error(
        "{word}: expected VM:PATH in UTF-8; write ./{word} for a path of the host",
        word = cp::shown(.0)
    )]
    VmPath(OsString),
    /// A path that cannot be made absolute.
    #[error("cannot make {path} an absolute path: {reason}", path = .0.display(), reason = .1)]
    Path(std::path::PathBuf, String),
}

impl TryFrom<Cli> for Config {
    type Error = ArgsError;

    fn try_from(cli: Cli) -> Result<Self, ArgsError> {
        Ok(match cli.command {
            Command::Pool(command) => Self::Pool(command.into()),
            Command::Device(args) if args.print_capabilities => Self::Capabilities,
            Command::Device(args) => Self::Device(args.try_into()?),
            Command::Up(args) => Self::Up(args.try_into()?),
            Command::Doctor(args) => Self::Doctor(args.into()),
            Command::Down(args) => Self::Down(args.into()),
            Command::Stop(args) => Self::Stop(args.into()),
            Command::Start(args) => Self::Start(args.into()),
            Command::Restart(args) => Self::Start(args.into()),
            Command::Ps(args) => Self::Ps(args.into()),
            Command::Exec(args) => Self::Exec(args.into()),
            Command::Cp(args) => Self::Cp(args.try_into()?),
            Command::Console(args) => Self::Console(args.into()),
            Command::Logs(args) => Self::Logs(args.into()),
            Command::KeepLogs(args) => Self::KeepLogs(args.into()),
            Command::KeepRunning(args) => Self::KeepRunning(args.into()),
            Command::Emitted(command) => Self::Emitted(command.into()),
            Command::Ublk(command) => Self::Ublk(command.try_into()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Config, String> {
        let words = as_device(line.split_whitespace().map(OsString::from));
        let cli = Cli::try_parse_from(words).map_err(|err| err.to_string())?;
        Config::try_from(cli).map_err(|err| err.to_string())
    }

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn device_needs_one_pool_and_one_socket() {
        assert!(parse("vhost-famfs device --pool p --socket-path s").is_ok());
        assert!(parse("vhost-famfs device --pool-fd 3 --fd 4").is_ok());
        assert!(parse("vhost-famfs device --pool p").is_err());
        assert!(parse("vhost-famfs device --socket-path s").is_err());
        assert!(parse("vhost-famfs device --pool p --pool-fd 3 --fd 4").is_err());
        assert!(parse("vhost-famfs device --pool p --socket-path s --fd 4").is_err());
    }

    #[test]
    fn capabilities_need_nothing_else() {
        for line in
            ["vhost-famfs device --print-capabilities", "/x/vhost-user-famfs --print-capabilities"]
        {
            assert!(matches!(parse(line), Ok(Config::Capabilities)), "{line}");
        }
    }
}
