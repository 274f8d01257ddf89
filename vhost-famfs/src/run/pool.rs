// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `pool`.

use anyhow::Result;

use super::bar::Bar;
use super::report::{json, json_list};
use super::{notice, say};
use vhost_famfs::args::PoolConfig;
use vhost_famfs::pool::{self, PoolReport};

pub(super) fn run(config: PoolConfig) -> Result<()> {
    match config {
        PoolConfig::Create { options, json } => {
            let bar = Bar::new("allocating memory");
            let report = pool::create(&options, &mut |done, total| bar.show(done, total))?;
            bar.clear();
            print(&report, json)
        }
        PoolConfig::List { directories, json } => {
            let reports = pool::list(&directories)?;
            if json { json_list("pools", &reports) } else { say(pool::table(&reports)) }
        }
        PoolConfig::Inspect { path, owners, json } => {
            pool::check_owners(&path, owners)?;
            print(&pool::inspect(&path)?, json)
        }
        PoolConfig::Grow { options, json } => {
            let bar = Bar::new("reserving storage");
            let tell = |text: &str| notice(text);
            let report = pool::grow(&options, &mut |done, total| bar.show(done, total), tell)?;
            bar.clear();
            print(&report, json)
        }
        PoolConfig::Resize { options, json } => {
            let bar = Bar::new("allocating memory");
            let report = pool::resize(&options, &mut |done, total| bar.show(done, total))?;
            bar.clear();
            print(&report, json)
        }
        PoolConfig::Remove { path, force, owners } => {
            pool::remove(&path, force, owners)?;
            say(format_args!("{}: removed", path.display()))
        }
    }
}

fn print(report: &PoolReport, as_json: bool) -> Result<()> {
    if as_json { json(report) } else { say(report) }
}
