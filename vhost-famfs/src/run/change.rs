// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up` of a cluster that runs.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use super::described::located;
use super::launching::before_vms;
use super::report::json;
use super::start::start_vms;
use super::{notice, say};
use vhost_famfs::args::UpConfig;
use vhost_famfs::cluster::apply::Applied;
use vhost_famfs::cluster::change::{Action, Change, Named, VmChange};
use vhost_famfs::cluster::cluster_file::ClusterFile;
use vhost_famfs::cluster::directory::Directory;
use vhost_famfs::cluster::host::Host;
use vhost_famfs::cluster::plan::ClusterPlan;
use vhost_famfs::cluster::preflight;
use vhost_famfs::cluster::spec::Spec;
use vhost_famfs::cluster::start::StartVm;
use vhost_famfs::cluster::state::State;

/// What is done with the VMs of a cluster.
#[derive(Serialize)]
pub(super) struct ChangeReport {
    cluster: String,
    pool: String,
    /// Whether nothing was done.
    dry_run: bool,
    vms: Vec<ChangedVm>,
    /// What was not imported.
    not_imported: Vec<String>,
}

#[derive(Serialize)]
struct ChangedVm {
    #[serde(flatten)]
    change: VmChange,
    mounted: Option<bool>,
    boot_seconds: Option<f64>,
}

impl ChangeReport {
    /// What a start would do.
    pub(super) fn of_new(plan: &ClusterPlan) -> Self {
        let vms = plan.vms.iter().map(|vm| ChangedVm::new(VmChange::new(vm), &[])).collect();
        let (cluster, pool) = (plan.name.clone(), plan.pool.path.display().to_string());
        Self { cluster, pool, dry_run: true, vms, not_imported: Vec::new() }
    }

    fn new(change: &Change, dry_run: bool, started: &[StartVm]) -> Self {
        let vms = change.vms.iter().map(|vm| ChangedVm::new(vm.clone(), started)).collect();
        let pool = change.plan.pool.path.display().to_string();
        let new = change.new_imports.iter().map(|path| path.display().to_string());
        let (cluster, not_imported) = (change.plan.name.clone(), new.collect());
        Self { cluster, pool, dry_run, vms, not_imported }
    }
}

impl ChangedVm {
    fn new(change: VmChange, started: &[StartVm]) -> Self {
        let vm = started.iter().find(|vm| vm.name == change.name);
        let (mounted, boot_seconds) = (vm.map(|vm| vm.mounted), vm.map(|vm| vm.boot_seconds));
        Self { change, mounted, boot_seconds }
    }
}

pub(super) fn run(
    config: &UpConfig,
    spec: &Spec,
    host: &Host,
    state: State,
    file: Option<&ClusterFile>,
) -> Result<ExitCode> {
    let named = Named { qemu: config.qemu.is_some(), image: config.image.is_some() };
    let change = Change::new(spec, host, state, named)
        .map_err(|error| located(file, error.subject(), error))?;
    if spec.file.is_none() && config.name.is_none() {
        refuse_to_stop(&change)?;
    }
    let starting = change.starting();
    preflight::ports(&starting.vms, &change.released_ports())
        .map_err(|error| located(file, error.subject(), error))?;
    let headroom = match starting.vms.is_empty() {
        true => None,
        false => Some(
            preflight::before_start(&starting, config.overcommit, change.returned())
                .map_err(|error| located(file, error.subject(), error))?,
        ),
    };
    for import in &change.new_imports {
        notice(format_args!(
            "{}: not imported, because the cluster runs; copy it with famfs --pool {}",
            import.display(),
            change.plan.pool.path.display()
        ));
    }
    if config.dry_run || change.is_empty() {
        if config.json {
            json(&ChangeReport::new(&change, config.dry_run, &[]))?;
            return Ok(ExitCode::SUCCESS);
        }
        let memory = headroom.map(|headroom| format!("\n\nmemory:       {headroom}"));
        let text = match change.is_empty() {
            true => nothing_to_do(&change),
            false => table(&change) + &memory.unwrap_or_default(),
        };
        say(text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((vm, on)) = change.too_early() {
        bail!(
            "VM {vm} depends on {}, which is not up: {}; repeat this when it is",
            on.name,
            on.why.join(", ")
        );
    }
    before_vms()?;
    let directory = Directory::new(&host.runtime, &change.plan.name);
    let applied = Applied::new(&directory, &change)?;
    applied.stop(config.stop_timeout)?;
    let names = change.names(&[Action::Start, Action::Restart]);
    let started = match start_vms(&directory, &names, config.timeout, config.json)? {
        Ok(started) => started,
        Err(code) => return Ok(code),
    };
    drop(applied);
    let report = ChangeReport::new(&change, false, &started);
    match config.json {
        true => json(&report)?,
        false => say(done(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a file and a name, nothing tells this cluster from another one that somebody wants to
/// start.
fn refuse_to_stop(change: &Change) -> Result<()> {
    let (name, stopped) = (&change.plan.name, change.names(&[Action::Stop]));
    ensure!(
        stopped.is_empty(),
        "cluster {name} is running, and has VMs that are not asked for: {}; to stop them, repeat \
         this with --name {name}; to start another cluster, use another --name",
        stopped.join(", ")
    );
    Ok(())
}

/// What is said if there is nothing to do.
fn nothing_to_do(change: &Change) -> String {
    let vms: Vec<_> = change.coming_up().collect();
    let name = &change.plan.name;
    if vms.is_empty() {
        return format!("cluster {name} runs as asked; nothing to do");
    }
    let line = |vm: &&VmChange| format!("{} is not up: {}\n", vm.name, vm.why.join(", "));
    let lines: String = vms.iter().map(line).collect();
    format!("{lines}cluster {name} has what is asked for; nothing else to do")
}

/// What would be done.
fn table(change: &Change) -> String {
    let pool = change.plan.pool.path.display();
    let name = &change.plan.name;
    let mut text = format!("cluster:      {name}, which runs\npool:         {pool}, as it is\n");
    text += &format!("\n{:<16} {:<8} BECAUSE", "VM", "ACTION");
    for VmChange { name, action, why, .. } in &change.vms {
        let line = format!("{name:<16} {:<8} {}", action.name(), why.join(", "));
        text = text + "\n" + line.trim_end();
    }
    text
}

/// What was done.
fn done(report: &ChangeReport) -> String {
    let line = |vm: &ChangedVm| {
        let VmChange { name, action, why, .. } = &vm.change;
        let why = why.join(", ");
        let up = match (vm.mounted, vm.boot_seconds) {
            (Some(true), Some(seconds)) => format!(", pool mounted after {seconds:.1} s"),
            (_, Some(seconds)) => format!(", up after {seconds:.1} s"),
            _ => String::new(),
        };
        Some(match action {
            Action::Keep => return None,
            Action::Start => format!("{name}: started ({why}){up}\n"),
            Action::Restart => format!("{name}: restarted ({why}){up}\n"),
            Action::Stop => format!("{name}: stopped and removed ({why})\n"),
        })
    };
    let lines: String = report.vms.iter().filter_map(line).collect();
    format!("{lines}cluster {} runs as asked", report.cluster)
}
