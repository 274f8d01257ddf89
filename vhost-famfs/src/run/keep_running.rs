// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `keep-running`.

use std::env;

use anyhow::{Context, Result};

use vhost_famfs::args::KeepRunningConfig;
use vhost_famfs::cluster::directory::Directory;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::keep_running::keep_running;

pub(super) fn run(config: &KeepRunningConfig) -> Result<()> {
    let directory = Directory::new(&runtime_dir()?, &config.cluster);
    let program = env::current_exe().context("cannot find this program")?;
    Ok(keep_running(&directory, &config.vm, &program, config.timeout)?)
}
