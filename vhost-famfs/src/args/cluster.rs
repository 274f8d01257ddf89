// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `down`, `ps`, `exec`, `console`, `logs`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use famfs::text::number::number;

use super::complete::{clusters, vms};
use super::since::since;
use super::up::{MAX_SECONDS, name};
use crate::cluster::logs::{Kind, View};

/// Stop a cluster and remove what was made for it.
///
/// Shuts down the guests in order and kills those that do not respond in time. No process, socket
/// or file of the cluster remains, except its logs, which `logs` shows until the next `up` of the
/// same name. A pool that was passed to `up` by path is kept.
#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// The cluster [default: the only one]
    #[arg(value_name = "CLUSTER", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Keep the pool that was made for the cluster. The next `up` with the same name uses it again.
    #[arg(long)]
    keep_pool: bool,
    /// Also stop a cluster whose state is damaged: kill its processes and remove its directory. Its
    /// pool is kept.
    #[arg(long)]
    force: bool,
    /// Seconds that guests have to shut down.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Show running VMs, the memory they use, and how far they follow the pool.
///
/// The figures come from the host kernel: RAM that the guests have touched, how much of the pool
/// they map and have touched, and the page size. The pool is in memory once, no matter how many VMs
/// map it.
///
/// If the pool has a file system, it also shows who may write it, and of each VM its role, how many
/// entries of the log its mount shows, and how many it is behind.
///
/// Exit code 3 if a VM or back-end of a cluster has ended, a VM is not healthy, a start was
/// interrupted, or a cluster is damaged.
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// The cluster [default: all]
    #[arg(value_name = "CLUSTER", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Print the clusters as JSON.
    #[arg(long)]
    json: bool,
}

/// Run a command in a VM
///
/// The command uses this terminal's standard input, output and error, of any length. When `exec`
/// ends, for example at Ctrl-C, the command is killed. Each VM runs up to eight commands and copies
/// at a time. No network is needed.
///
/// With --tty, the command has a terminal of its own in the guest, of the size of this one, for a
/// shell or an editor. All keys go to it, also Ctrl-C and Ctrl-Z.
///
/// The exit code is that of the command; 127 if the program does not exist, 126 if it cannot be
/// executed, or not as that user or in that directory, 125 if `exec` itself fails, 128 + N if
/// signal N ended the command.
///
/// Examples:
///
///   vhost-famfs exec vm1 -- ls -l /mnt/famfs
///
///   vhost-famfs exec -it vm1 -- bash
///
///   vhost-famfs exec --user nobody --workdir /mnt/famfs vm1 -- ls -l
///
///   vhost-famfs exec --cluster lab vm2 -- sh -c 'cat > /tmp/x' < x
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ExecArgs {
    /// The VM.
    #[arg(value_name = "VM", value_parser = name, add = vms())]
    vm: String,
    /// The program (searched for in the guest's PATH) and its arguments.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Set an environment variable for the command: NAME=VALUE (repeatable).
    #[arg(short, long, value_name = "VARIABLE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Run the command in this directory of the guest.
    #[arg(short, long, value_name = "DIR", value_parser = directory)]
    workdir: Option<String>,
    /// Run the command as this user: NAME or UID, and optionally :GROUP or :GID. Names are those of
    /// the guest. Without a group, it has the user's own and supplementary groups; a UID that the
    /// guest does not know has group 0.
    #[arg(short, long, value_name = "USER", value_parser = user)]
    user: Option<String>,
    /// Give the command a terminal; standard input must be one.
    #[arg(short, long, conflicts_with = "no_stdin")]
    tty: bool,
    /// Pass standard input to the command. This is the default; see --no-stdin.
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Give the command no standard input, for example to run in the background.
    #[arg(short, long)]
    no_stdin: bool,
    /// Seconds to wait for another command to end if eight are running, and for the guest to accept
    /// this one.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
}

/// Attach this terminal to the serial console of a VM.
///
/// The guest's output reaches the terminal unchanged, including control sequences.
///
/// Shows the end of the console's log first. Ctrl-] leaves; all other keys, including Ctrl-C, go to
/// the guest. There is a root shell on the console if the cluster file sets `shell = true`; leaving
/// that shell powers off the VM.
#[derive(Debug, Args)]
pub(super) struct ConsoleArgs {
    /// The VM.
    #[arg(value_name = "VM", value_parser = name, add = vms())]
    vm: String,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
}

/// Show the output of VMs' consoles, of QEMU and of back-ends
///
/// Each line has its VM and log in front. Control characters are left out. After `down` or a failed
/// `up`, the logs can be shown until the next `up` of the same name.
///
/// Examples:
///
///   vhost-famfs logs vm1 --tail 50 --follow
///
///   vhost-famfs logs --since 10m --timestamps --of console
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
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
    /// Keep printing new output until the cluster is gone.
    #[arg(short, long)]
    follow: bool,
    /// Show only lines that came at this time or later: how long ago, as in 90s, 10m, 1h30m or 2d,
    /// a time as in 2026-11-28T12:00 (local) or 2026-11-28T12:00:00Z, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Show only the last N lines of each log.
    #[arg(short = 'n', long, value_name = "N", value_parser = number::<u64>(0..=u64::MAX))]
    tail: Option<u64>,
    /// Show when each line came, in UTC.
    #[arg(short, long)]
    timestamps: bool,
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
    /// The messages of the process that serves a root device (root = "ublk").
    Ublk,
}

/// Which cluster to stop, and how.
#[derive(Debug)]
pub struct DownConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// Keep the pool.
    pub keep_pool: bool,
    /// Also a cluster whose state cannot be read.
    pub force: bool,
    /// Time for guests to shut down.
    pub timeout: Duration,
    /// Print JSON.
    pub json: bool,
}

/// Which clusters to show.
#[derive(Debug)]
pub struct PsConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// Print JSON.
    pub json: bool,
}

/// What to run, and where.
#[derive(Debug)]
pub struct ExecConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// The VM.
    pub vm: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The directory to run it in, if not the guest's default.
    pub workdir: Option<String>,
    /// Whom to run it as, if not as root.
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// Time for the guest to accept the command.
    pub timeout: Duration,
}

/// Which console to attach to.
#[derive(Debug)]
pub struct ConsoleConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// The VM.
    pub vm: String,
}

/// Which logs to show.
#[derive(Debug)]
pub struct LogsConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// The VM; all if there is none.
    pub vm: Option<String>,
    /// The log; all if there is none.
    pub kind: Option<Kind>,
    /// Keep printing new output.
    pub follow: bool,
    /// Which lines, and how.
    pub view: View,
}

/// Reads an absolute path in the guest.
fn directory(text: &str) -> Result<String, String> {
    let is_whole = text.starts_with('/');
    is_whole
        .then(|| text.to_owned())
        .ok_or_else(|| "expected a path from the root: /...".to_owned())
}

/// Reads `NAME|UID[:GROUP|GID]`; the guest knows the names.
fn user(text: &str) -> Result<String, String> {
    let mut parts = text.split(':');
    let is_whole = parts.clone().count() <= 2 && parts.all(|part| !part.is_empty());
    is_whole.then(|| text.to_owned()).ok_or_else(|| "expected NAME|UID[:GROUP|GID]".to_owned())
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
        let ExecArgs { vm, command, cluster, env, workdir, user, tty, .. } = args;
        let stdin = args.interactive || !args.no_stdin;
        let timeout = Duration::from_secs(args.timeout);
        Self { cluster, vm, command, env, workdir, user, tty, stdin, timeout }
    }
}

impl From<ConsoleArgs> for ConsoleConfig {
    fn from(ConsoleArgs { vm, cluster }: ConsoleArgs) -> Self {
        Self { cluster, vm }
    }
}

impl From<LogsArgs> for LogsConfig {
    fn from(LogsArgs { vm, cluster, of, follow, since, tail, timestamps }: LogsArgs) -> Self {
        let kind = of.map(|of| match of {
            KindArg::Console => Kind::Console,
            KindArg::Qemu => Kind::Qemu,
            KindArg::Backend => Kind::Backend,
            KindArg::Ublk => Kind::Ublk,
        });
        let view = View { since, tail, timestamps };
        Self { cluster, vm, kind, follow, view }
    }
}
