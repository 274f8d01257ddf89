// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `stop`.

use anyhow::Result;

use super::report::json;
use super::say;
use vhost_famfs::args::StopConfig;
use vhost_famfs::cluster::directory::Directory;
use vhost_famfs::cluster::find;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::ps;
use vhost_famfs::cluster::stop::{StopReport, stop};

pub(super) fn run(config: &StopConfig) -> Result<()> {
    let directory = find(&runtime_dir()?, config.cluster.as_deref())?;
    let report = stop(&directory, &config.vms, config.timeout)?;
    if config.json {
        return json(&report);
    }
    say(text(&report, master_among(&directory, &config.vms)))
}

/// The master of the pool's file system, if it is one of these VMs.
fn master_among(directory: &Directory, vms: &[String]) -> Option<String> {
    let master = ps::look(directory).ok()?.famfs?.master_vm?;
    vms.contains(&master).then_some(master)
}

fn text(report: &StopReport, master: Option<String>) -> String {
    let lines = report.vms.iter().map(|vm| format!("{}: {}", vm.name, vm.end.name()));
    let mut lines: Vec<String> = lines.collect();
    if let Some(master) = master {
        lines.push(format!(
            "{master} is the master: until it runs again, only the host (`famfs --pool`) can add or \
             remove files, or a VM with access rw after `famfs takeover --yes` in it"
        ));
    }
    let names: Vec<_> = report.vms.iter().map(|vm| vm.name.as_str()).collect();
    let names = names.join(" ");
    lines.push(format!("next: vhost-famfs start --cluster {} {names}", report.cluster));
    lines.join("\n")
}
