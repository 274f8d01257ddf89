// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `pool`.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::say;
use crate::args::PoolConfig;
use crate::pool::{self, Report};

pub(super) fn run(config: PoolConfig) -> Result<()> {
    match config {
        PoolConfig::Create { options, json } => {
            let bar = Bar::default();
            let report = pool::create(&options, &mut |done, total| bar.show(done, total))?;
            bar.0.finish_and_clear();
            print(&report, json)
        }
        PoolConfig::List { directories, json } => {
            let reports = pool::list(&directories)?;
            if json { say(serde_json::to_string(&reports)?) } else { say(pool::table(&reports)) }
        }
        PoolConfig::Inspect { path, json } => print(&pool::inspect(&path)?, json),
        PoolConfig::Resize { options, json } => {
            let bar = Bar::default();
            let report = pool::resize(&options, &mut |done, total| bar.show(done, total))?;
            bar.0.finish_and_clear();
            print(&report, json)
        }
        PoolConfig::Remove { path, force } => {
            pool::remove(&path, force)?;
            say(format_args!("{}: removed", path.display()))
        }
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json { say(serde_json::to_string(report)?) } else { say(report) }
}

/// A progress bar that appears when the work takes long enough to be noticed, on a terminal only.
struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        let bar = ProgressBar::no_length();
        let template = "taking memory {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Bar {
    fn show(&self, done: u64, total: u64) {
        const NOTICED: Duration = Duration::from_millis(300);
        self.0.set_length(total);
        self.0.update(|state| state.set_pos(done));
        if self.0.elapsed() > NOTICED {
            self.0.tick();
        }
    }
}
