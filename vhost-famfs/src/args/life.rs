// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `stop`, `start`, `restart`.

use std::time::Duration;

use clap::Args;
use famfs::text::number::number;

use super::complete::{clusters, vms};
use super::up::{MAX_SECONDS, name};

#[derive(Debug, Args)]
struct Which {
    /// The VMs.
    #[arg(value_name = "VM", required = true, value_parser = name, add = vms())]
    vms: Vec<String>,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
}

/// Stop VMs of a running cluster; the others keep running
///
/// Shuts down the guests in order and ends those that do not respond in time, with their back-ends.
/// The cluster, its pool and the VM's logs remain; what the guest wrote outside the pool is lost.
/// `start` starts the VM again, `ps` shows it as stopped. `down` stops the whole cluster and
/// removes it.
///
/// If the master is stopped, no other VM can add or remove files in the pool meanwhile, but the
/// host can, with `famfs --pool`. In a VM with access rw, `famfs takeover --yes` makes that VM the
/// master.
///
/// Examples:
///
///   vhost-famfs stop vm2
///
///   vhost-famfs stop --cluster lab vm2 vm3 --timeout 60
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StopArgs {
    #[command(flatten)]
    which: Which,
    /// Seconds that guests have to shut down.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Start VMs again that were stopped or have ended
///
/// Starts each VM with the settings of `up`, on the same pool, and waits until it has mounted the
/// pool. It is the same machine for famfs: if it was the master, it is the master again. If it does
/// not come up, or at Ctrl-C, it is as it was before.
///
/// Examples:
///
///   vhost-famfs start vm2
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StartArgs {
    #[command(flatten)]
    which: Which,
    /// Seconds that a VM has to mount the pool.
    #[arg(long, value_name = "SECONDS", default_value_t = 240,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Stop VMs and start them again
///
/// The same as `stop` and then `start`: for a guest that hangs, or a VM whose back-end has ended. A
/// VM that does not run is started.
///
/// Examples:
///
///   vhost-famfs restart vm2
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RestartArgs {
    #[command(flatten)]
    start: StartArgs,
    /// Seconds that guests have to shut down.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    stop_timeout: u64,
}

/// Start a VM again when it fails
///
/// `up` and `start` start one for each VM with `restart = "on-failure"`.
#[derive(Debug, Args)]
pub(super) struct KeepRunningArgs {
    /// The VM.
    #[arg(value_name = "VM", value_parser = name)]
    vm: String,
    /// The cluster
    #[arg(long, value_name = "NAME", value_parser = name)]
    cluster: String,
    /// Seconds that each start may take, as for `start`.
    #[arg(long, value_name = "SECONDS", default_value_t = 240,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
}

/// Which VM to keep running.
#[derive(Debug)]
pub struct KeepRunningConfig {
    /// The cluster.
    pub cluster: String,
    /// The VM.
    pub vm: String,
    /// Time for each start.
    pub timeout: Duration,
}

/// Which VMs to stop, and how.
#[derive(Debug)]
pub struct StopConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// The VMs.
    pub vms: Vec<String>,
    /// Time for guests to shut down.
    pub timeout: Duration,
    /// Print JSON.
    pub json: bool,
}

/// Which VMs to start, and how.
#[derive(Debug)]
pub struct StartConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// The VMs, each once.
    pub vms: Vec<String>,
    /// If they are to be stopped before: the time for guests to shut down.
    pub stop: Option<Duration>,
    /// Time for a VM to mount the pool.
    pub timeout: Duration,
    /// Print JSON.
    pub json: bool,
}

impl From<StopArgs> for StopConfig {
    fn from(args: StopArgs) -> Self {
        let StopArgs { which: Which { vms, cluster }, timeout, json } = args;
        Self { cluster, vms: each_once(vms), timeout: Duration::from_secs(timeout), json }
    }
}

impl From<StartArgs> for StartConfig {
    fn from(args: StartArgs) -> Self {
        let StartArgs { which: Which { vms, cluster }, timeout, json } = args;
        let (vms, timeout) = (each_once(vms), Duration::from_secs(timeout));
        Self { cluster, vms, stop: None, timeout, json }
    }
}

impl From<RestartArgs> for StartConfig {
    fn from(RestartArgs { start, stop_timeout }: RestartArgs) -> Self {
        Self { stop: Some(Duration::from_secs(stop_timeout)), ..start.into() }
    }
}

impl From<KeepRunningArgs> for KeepRunningConfig {
    fn from(KeepRunningArgs { vm, cluster, timeout }: KeepRunningArgs) -> Self {
        Self { cluster, vm, timeout: Duration::from_secs(timeout) }
    }
}

fn each_once(names: Vec<String>) -> Vec<String> {
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}
