// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `logs`.

use std::io;

use anyhow::{Context, Result};

use super::notice;
use vhost_famfs::args::LogsConfig;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::logs::Logs;
use vhost_famfs::cluster::{find, state_of, vm_of, why_not_running};

pub(super) fn run(config: LogsConfig) -> Result<()> {
    let directory = find(&runtime_dir()?, config.cluster.as_deref())?;
    let state = state_of(&directory)?;
    if let Some(vm) = &config.vm {
        let vm = vm_of(&state, vm)?;
        if let Some(how) = why_not_running(&state, &directory, vm) {
            notice(format_args!("VM {} is not running: {how}", vm.name));
        }
    }
    let mut logs = Logs::new(&directory, &state, config.vm.as_deref(), config.kind);
    // Control characters have been removed from each line.
    let mut stdout = io::stdout();
    let printed = match config.follow {
        true => logs.follow(&mut stdout),
        false => logs.print(&mut stdout).and_then(|()| logs.finish(&mut stdout)),
    };
    match printed {
        // A reader that closed the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot show the logs"),
    }
}
