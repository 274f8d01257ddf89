// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line, and its translation into what the rest of the program takes.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use famfs::args::parse_size;
use famfs::view::View;
use uuid::Uuid;

use crate::pool::CreateOptions;

/// Gives virtual machines a shared memory pool.
///
/// A pool is a file in memory (tmpfs, memfd) or on storage that several VMs map at the same
/// time. `pool create` makes one; `device` shows it to one VM as a virtio-pmem device.
///
/// Exit codes: 0 done (for `device`: the VM went away, or SIGTERM), 1 failed (the message on
/// standard error says what and what to do), 2 wrong command line.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make or look at a pool.
    #[command(subcommand)]
    Pool(PoolCommand),
    Device(DeviceArgs),
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    Create(CreateArgs),
    Inspect(InspectArgs),
}

/// Make a new pool; never replaces a file.
///
/// Example: vhost-famfs pool create /dev/shm/pool --size 8G
#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the new file. /dev/shm is memory; a file on a disk survives a reboot of the host.
    path: PathBuf,
    /// Size: a multiple of 2M, at least 16M. K, M, G and T are powers of 1024.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// What guests see.
    #[arg(long, value_enum, default_value_t = ViewArg::Devdax)]
    view: ViewArg,
    /// Identity of the devdax info block [default: random]
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ViewArg {
    /// /dev/dax0.0: the first 2 MiB hold an info block, files can be mapped by 2 MiB pages.
    Devdax,
    /// /dev/pmem0: the guest's device is the whole pool.
    Raw,
}

/// Print what a pool is: kind, size, memory or storage in use, view.
#[derive(Debug, Args)]
struct InspectArgs {
    /// The pool.
    path: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Show a pool to one VM: a vhost-user back-end for virtio-pmem (device id 27).
///
/// Serves one connection and exits when the VM goes. One process per VM; any number of
/// processes can serve the same pool. It must live as long as its VM.
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
struct DeviceArgs {
    /// The pool, by name.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["pool_fd", "print_capabilities"])]
    pool: Option<PathBuf>,
    /// The pool, as an open descriptor that the parent process passes (a memfd, for example).
    #[arg(long, value_name = "FDNUM")]
    pool_fd: Option<RawFd>,
    /// Listen here for the VMM. A socket left over from an earlier run is replaced.
    #[arg(
        short, long, value_name = "PATH",
        required_unless_present_any = ["fd", "print_capabilities"]
    )]
    socket_path: Option<PathBuf>,
    /// Listen on this inherited socket.
    #[arg(long, value_name = "FDNUM")]
    fd: Option<RawFd>,
    /// First byte of the pool that the VM sees; a multiple of 2M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "0")]
    offset: u64,
    /// Number of bytes that the VM sees; a multiple of 2M [default: to the end of the pool]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    length: Option<u64>,
    /// Refused on this transport; the message names the one that can.
    #[arg(long)]
    readonly: bool,
    /// Print the capabilities of this back-end as JSON and exit.
    #[arg(long)]
    print_capabilities: bool,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Log every memory table and every batch of requests.
    #[arg(short, long)]
    verbose: bool,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// What to do, free of the command line's form.
#[derive(Debug)]
pub enum Config {
    /// Make a pool.
    Create {
        /// What to make.
        options: CreateOptions,
        /// Print JSON.
        json: bool,
    },
    /// Look at a pool.
    Inspect {
        /// The pool.
        path: PathBuf,
        /// Print JSON.
        json: bool,
    },
    /// Print the back-end's capabilities.
    Capabilities,
    /// Serve one VM.
    Device(DeviceConfig),
}

/// Something by name, or an inherited descriptor's number.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// By name.
    Path(PathBuf),
    /// By number.
    Fd(RawFd),
}

/// How to serve one VM.
#[derive(Debug)]
pub struct DeviceConfig {
    /// The pool.
    pub pool: Source,
    /// The socket.
    pub socket: Source,
    /// Offset in bytes of the window in the pool.
    pub offset: u64,
    /// Length in bytes of the window; to the end of the pool if not given.
    pub length: Option<u64>,
    /// The user asks for a read-only window.
    pub readonly: bool,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Log more.
    pub verbose: bool,
}

/// A command line that clap cannot check by itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Neither name nor descriptor.
    #[error("no {0} given")]
    Missing(&'static str),
    /// One descriptor cannot be both.
    #[error("--pool-fd and --fd both name descriptor {0}")]
    SameFd(RawFd),
}

fn source(
    path: Option<PathBuf>,
    fd: Option<RawFd>,
    what: &'static str,
) -> Result<Source, ArgsError> {
    path.map(Source::Path).or(fd.map(Source::Fd)).ok_or(ArgsError::Missing(what))
}

impl TryFrom<Cli> for Config {
    type Error = ArgsError;

    fn try_from(cli: Cli) -> Result<Self, ArgsError> {
        Ok(match cli.command {
            Command::Pool(PoolCommand::Create(args)) => Self::Create {
                options: CreateOptions {
                    path: args.path,
                    size: args.size,
                    view: match args.view {
                        ViewArg::Devdax => View::Devdax,
                        ViewArg::Raw => View::Raw,
                    },
                    uuid: args.uuid,
                },
                json: args.json,
            },
            Command::Pool(PoolCommand::Inspect(args)) => {
                Self::Inspect { path: args.path, json: args.json }
            }
            Command::Device(args) if args.print_capabilities => Self::Capabilities,
            Command::Device(DeviceArgs { pool_fd: Some(one), fd: Some(other), .. })
                if one == other =>
            {
                return Err(ArgsError::SameFd(one));
            }
            Command::Device(args) => Self::Device(DeviceConfig {
                pool: source(args.pool, args.pool_fd, "pool")?,
                socket: source(args.socket_path, args.fd, "socket")?,
                offset: args.offset,
                length: args.length,
                readonly: args.readonly,
                log_format: args.log_format,
                verbose: args.verbose,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Config, clap::Error> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        Ok(Config::try_from(cli).unwrap())
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
        assert!(matches!(
            parse("vhost-famfs device --print-capabilities"),
            Ok(Config::Capabilities)
        ));
    }
}
