// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `down`.

use anyhow::Result;

use super::report::json;
use super::say;
use famfs::text::units::count;
use vhost_famfs::args::DownConfig;
use vhost_famfs::cluster::directory::clear;
use vhost_famfs::cluster::down::{DownReport, Options, down};
use vhost_famfs::cluster::find;
use vhost_famfs::cluster::host::runtime_dir;

pub(super) fn run(config: DownConfig) -> Result<()> {
    let base = runtime_dir()?;
    let directory = find(&base, config.cluster.as_deref()).inspect_err(|_| clear(&base))?;
    let options =
        Options { limit: config.timeout, keep_pool: config.keep_pool, force: config.force };
    let report = down(&directory, options)?;
    if config.json { json(&report) } else { say(text(&report)) }
}

fn text(report: &DownReport) -> String {
    let mut lines: Vec<String> =
        report.vms.iter().map(|vm| format!("{}: {}", vm.name, vm.end.name())).collect();
    if report.strays > 0 {
        let strays = count(report.strays, "other process", "other processes");
        lines.push(format!("{strays} of the cluster: killed"));
    }
    match &report.pool {
        Some(pool) if report.pool_removed => lines.push(format!("pool {pool}: removed")),
        Some(pool) => lines.push(format!("pool {pool}: kept")),
        None => {}
    }
    if report.logs.is_some() {
        let name = &report.cluster;
        let how = format!("vhost-famfs logs --cluster {name}");
        lines.push(format!("logs: kept until the next `up` of {name}; see `{how}`"));
    }
    lines.push(format!("cluster {}: stopped", report.cluster));
    lines.join("\n")
}
