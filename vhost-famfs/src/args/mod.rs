// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line, and its translation into what the rest of the program takes.

mod cluster;
pub mod complete;
mod device;
mod doctor;
mod emitted;
mod keep_logs;
mod pool;
mod ublk;
mod up;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use clap::{Parser, Subcommand};

use cluster::{ConsoleArgs, DownArgs, ExecArgs, LogsArgs, PsArgs};
pub use cluster::{ConsoleConfig, DownConfig, ExecConfig, LogsConfig, PsConfig};
use device::DeviceArgs;
pub use device::{DeviceConfig, LogFormat, Source};
use doctor::DoctorArgs;
pub use doctor::DoctorConfig;
use emitted::EmittedCommand;
pub use emitted::EmittedConfig;
use keep_logs::KeepLogsArgs;
pub use keep_logs::KeepLogsConfig;
use pool::PoolCommand;
pub use pool::PoolConfig;
use ublk::UblkCommand;
pub use ublk::UblkConfig;
use up::UpArgs;
pub use up::{Described, Emit, UpConfig};

/// Name under which the program is `vhost-famfs device`, as the vhost-user conventions want a
/// program of its own for each back-end.
pub const DEVICE_PROGRAM: &str = "vhost-user-famfs";

/// Gives virtual machines a shared memory pool.
///
/// A pool is a file in memory (tmpfs, hugetlbfs, memfd) or on storage that several VMs map at the
/// same time. `up` starts a cluster of VMs that share one, `ps`, `exec`, `console` and `logs` look
/// into it, `down` ends it. For VMs that other programs start, `pool create` makes a pool and
/// `device` shows it to one VM as a virtio-pmem device.
///
/// Exit codes: 0 success (for `device`: the VM went away, or SIGTERM); 1 failure, with a message on
/// standard error; 2 wrong command line; 130 interrupted. `exec` has the codes of its command, see
/// there. `ps` has 3 if something of a cluster has ended.
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
    /// Make, find, look at, resize or remove pools.
    #[command(subcommand)]
    Pool(PoolCommand),
    Device(DeviceArgs),
    Up(UpArgs),
    Doctor(DoctorArgs),
    Down(DownArgs),
    Ps(PsArgs),
    Exec(ExecArgs),
    Console(ConsoleArgs),
    Logs(LogsArgs),
    #[command(hide = true)]
    KeepLogs(KeepLogsArgs),
    #[command(subcommand, hide = true)]
    Emitted(EmittedCommand),
    /// Show an image or a pool to the host as a block device.
    #[command(subcommand)]
    Ublk(UblkCommand),
}

impl Cli {
    /// Parses a command line whose first word is the program's name.
    ///
    /// # Errors
    /// What clap refuses, and the text of `--help`.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(as_device(words))
    }
}

/// Adds the command that is in the name of the program.
fn as_device(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.into_iter().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name());
    if name.is_some_and(|name| name == DEVICE_PROGRAM) {
        words.insert(1, "device".into());
    }
    words
}

/// What to do, free of the command line's form.
#[derive(Debug)]
pub enum Config {
    /// Work on pools.
    Pool(PoolConfig),
    /// Print the back-end's capabilities.
    Capabilities,
    /// Serve one VM.
    Device(DeviceConfig),
    /// Start a cluster.
    Up(UpConfig),
    /// Look at the host.
    Doctor(DoctorConfig),
    /// End a cluster.
    Down(DownConfig),
    /// Look at clusters.
    Ps(PsConfig),
    /// Run a command in a VM.
    Exec(ExecConfig),
    /// Attach to a serial console.
    Console(ConsoleConfig),
    /// Show logs.
    Logs(LogsConfig),
    /// Keep logs within their limit.
    KeepLogs(KeepLogsConfig),
    /// Work for what `up --emit` printed.
    Emitted(EmittedConfig),
    /// Work on block devices.
    Ublk(UblkConfig),
}

/// A command line that clap cannot check by itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Nothing to show to a VM.
    #[error("no pool: give --pool PATH, or --pool-fd for one that the parent process opened")]
    NoPool,
    /// Nowhere to listen.
    #[error(
        "no socket: give --socket-path PATH, or --fd for one that the parent process opened, or \
         start it from a systemd socket unit"
    )]
    NoSocket,
    /// No cluster to start.
    #[error(
        "no cluster: give a cluster file, or --vms N with the directories to share (--share DIR)"
    )]
    NoCluster,
    /// One descriptor cannot be both.
    #[error("--pool-fd and --fd both name descriptor {0}")]
    SameFd(RawFd),
    /// Nobody has said what is to become of writes.
    #[error(
        "no place for changes: give --overlay FILE to keep them, --ephemeral to forget them, or \
         --read-only to have none"
    )]
    NoChanges,
    /// A path that cannot be made absolute.
    #[error("cannot tell the directory of {path}: {reason}", path = .0.display(), reason = .1)]
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
            Command::Ps(args) => Self::Ps(args.into()),
            Command::Exec(args) => Self::Exec(args.into()),
            Command::Console(args) => Self::Console(args.into()),
            Command::Logs(args) => Self::Logs(args.into()),
            Command::KeepLogs(args) => Self::KeepLogs(args.into()),
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
