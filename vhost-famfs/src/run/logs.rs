// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `logs`.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::notice;
use vhost_famfs::args::LogsConfig;
use vhost_famfs::cluster::directory::Directory;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::logs::Logs;
use vhost_famfs::cluster::{FindError, find, kept_logs, state_of, vm_of, why_not_running};

pub(super) fn run(config: LogsConfig) -> Result<()> {
    let base = runtime_dir()?;
    let (mut logs, follow) = match find(&base, config.cluster.as_deref()) {
        Ok(directory) => (of_cluster(&directory, &config)?, config.follow),
        // Nothing comes to logs that were kept.
        Err(error @ (FindError::None | FindError::NoCluster { .. })) => {
            (kept(&base, &config)?.ok_or(error)?, false)
        }
        Err(error) => return Err(error.into()),
    };
    // Control characters have been removed from each line.
    let mut stdout = io::stdout();
    let printed = match follow {
        true => logs.follow(&mut stdout),
        false => logs.print(&mut stdout).and_then(|()| logs.finish(&mut stdout)),
    };
    match printed {
        // A reader that closed the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot show the logs"),
    }
}

fn of_cluster(directory: &Directory, config: &LogsConfig) -> Result<Logs> {
    let state = state_of(directory)?;
    if let Some(vm) = &config.vm {
        let vm = vm_of(&state, vm)?;
        if let Some(how) = why_not_running(&state, directory, vm) {
            notice(format_args!("VM {} is not running: {how}", vm.name));
        }
    }
    Ok(Logs::new(directory, &state, config.vm.as_deref(), config.kind, config.view))
}

/// The logs of a cluster that has ended; `None` if none were kept.
fn kept(base: &Path, config: &LogsConfig) -> Result<Option<Logs>> {
    let mut names = kept_logs::names(base).context("cannot look for logs that were kept")?;
    if let Some(cluster) = &config.cluster {
        names.retain(|name| name == cluster);
    }
    let name = match names.as_slice() {
        [] => return Ok(None),
        [name] => name,
        several => {
            let several = several.join(", ");
            bail!("no cluster is running; there are logs of {several}: name one with --cluster");
        }
    };
    let place = kept_logs::place(base, name);
    let logs = Logs::kept(&place, config.vm.as_deref(), config.kind, config.view)
        .with_context(|| format!("cannot read {}", place.display()))?;
    let Some(logs) = logs else {
        bail!("there are no logs of this VM in {}", place.display());
    };
    notice(format_args!("cluster {name} is not running; its last logs, from {}", place.display()));
    Ok(Some(logs))
}
