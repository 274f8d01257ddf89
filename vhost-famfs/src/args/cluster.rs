// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `down`, `ps`, `exec`, `console`, `logs`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use famfs::text::number::number;

use super::complete::{clusters, vms};
use super::up::{MAX_SECONDS, name};
use crate::cluster::logs::Kind;

/// End a cluster: VMs, back-ends, and what was made for it.
///
/// Shuts the guests down in order, and ends those that do not follow. No process, socket or file of
/// the cluster is left. A pool that was given to `up` by path stays.
#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// The cluster [default: the only one]
    #[arg(value_name = "CLUSTER", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Leave the pool that was made for the cluster; the next `up` of its name uses it again.
    #[arg(long)]
    keep_pool: bool,
    /// Also end a cluster whose state is damaged: kill its processes and remove its directory. Its
    /// pool stays.
    #[arg(long)]
    force: bool,
    /// Seconds that guests may take to shut down.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Show what runs, and what it costs in memory.
///
/// The figures are the host kernel's: RAM that guests have touched, what they map of the pool and
/// have touched of it, and the size of the pages. The pool is in memory once, however many VMs map
/// it.
///
/// Exit code 3 if a VM or a back-end of a cluster has ended, or a start was cut short.
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// The cluster [default: all]
    #[arg(value_name = "CLUSTER", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Print JSON: an object for each cluster.
    #[arg(long)]
    json: bool,
}

/// Run a command in a VM
///
/// Standard input (at most 8 MiB), output and error are those of the command. It is killed when
/// `exec` ends, for example by Ctrl-C. Each VM runs one command at a time. No network is needed.
///
/// The exit code is that of the command; 127 if there is no such program, 126 if it cannot be
/// executed, 125 if `exec` itself fails, 128 + N if signal N ended the command.
///
/// Examples:
///
///   vhost-famfs exec vm1 -- ls -l /mnt/famfs
///
///   vhost-famfs exec --cluster lab vm2 -- sh -c 'cat > /tmp/x' < x
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ExecArgs {
    /// The VM.
    #[arg(value_name = "VM", value_parser = name, add = vms())]
    vm: String,
    /// The program, found in the guest's PATH, and its arguments.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Set a variable in its environment: NAME=VALUE (repeatable).
    #[arg(long, value_name = "VARIABLE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Give it no standard input, as for a command in the background.
    #[arg(short, long)]
    no_stdin: bool,
    /// Seconds to wait until the guest takes the command.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
}

/// Attach this terminal to the serial console of a VM.
///
/// What the guest writes reaches the terminal as it is, control sequences too.
///
/// Shows the end of what was written so far. Ctrl-] leaves; all other keys, also Ctrl-C, are the
/// guest's. There is a root shell on it if the cluster file says so (shell = true); leaving that
/// shell powers the VM off.
#[derive(Debug, Args)]
pub(super) struct ConsoleArgs {
    /// The VM.
    #[arg(value_name = "VM", value_parser = name, add = vms())]
    vm: String,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
}

/// Show what VMs wrote to their consoles, and what QEMU and back-ends said.
///
/// On a terminal control characters are escaped; a pipe or a file gets what was written.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The VM [default: all]
    #[arg(value_name = "VM", value_parser = name, add = vms())]
    vm: Option<String>,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Show only this log.
    #[arg(long, value_enum, value_name = "LOG")]
    of: Option<KindArg>,
    /// Keep printing what is added, until the cluster is gone.
    #[arg(short, long)]
    follow: bool,
}

/// A log of a VM.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    /// The guest's serial console.
    Console,
    /// QEMU's messages.
    Qemu,
    /// The back-end's messages.
    Backend,
}

/// Which cluster to end, and how.
#[derive(Debug)]
pub struct DownConfig {
    /// The cluster, if it is named.
    pub cluster: Option<String>,
    /// Leave the pool.
    pub keep_pool: bool,
    /// Also one whose state cannot be read.
    pub force: bool,
    /// Time for guests to shut down.
    pub timeout: Duration,
    /// Print JSON.
    pub json: bool,
}

/// Which clusters to show.
#[derive(Debug)]
pub struct PsConfig {
    /// The cluster, if it is named.
    pub cluster: Option<String>,
    /// Print JSON.
    pub json: bool,
}

/// What to run where.
#[derive(Debug)]
pub struct ExecConfig {
    /// The cluster, if it is named.
    pub cluster: Option<String>,
    /// The VM.
    pub vm: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// Time for the guest to take the command.
    pub timeout: Duration,
}

/// Which console to attach to.
#[derive(Debug)]
pub struct ConsoleConfig {
    /// The cluster, if it is named.
    pub cluster: Option<String>,
    /// The VM.
    pub vm: String,
}

/// Which logs to show.
#[derive(Debug)]
pub struct LogsConfig {
    /// The cluster, if it is named.
    pub cluster: Option<String>,
    /// The VM; all if there is none.
    pub vm: Option<String>,
    /// The log; all if there is none.
    pub kind: Option<Kind>,
    /// Go on.
    pub follow: bool,
}

/// Reads `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl From<DownArgs> for DownConfig {
    fn from(args: DownArgs) -> Self {
        let DownArgs { cluster, keep_pool, force, timeout, json } = args;
        Self { cluster, keep_pool, force, timeout: Duration::from_secs(timeout), json }
    }
}

impl From<PsArgs> for PsConfig {
    fn from(PsArgs { cluster, json }: PsArgs) -> Self {
        Self { cluster, json }
    }
}

impl From<ExecArgs> for ExecConfig {
    fn from(args: ExecArgs) -> Self {
        let ExecArgs { vm, command, cluster, env, no_stdin, timeout } = args;
        Self { cluster, vm, command, env, stdin: !no_stdin, timeout: Duration::from_secs(timeout) }
    }
}

impl From<ConsoleArgs> for ConsoleConfig {
    fn from(ConsoleArgs { vm, cluster }: ConsoleArgs) -> Self {
        Self { cluster, vm }
    }
}

impl From<LogsArgs> for LogsConfig {
    fn from(LogsArgs { vm, cluster, of, follow }: LogsArgs) -> Self {
        let kind = of.map(|of| match of {
            KindArg::Console => Kind::Console,
            KindArg::Qemu => Kind::Qemu,
            KindArg::Backend => Kind::Backend,
        });
        Self { cluster, vm, kind, follow }
    }
}
