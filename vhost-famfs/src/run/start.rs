// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `start` and `restart`.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::launching::{INTERRUPTED, before_vms};
use super::report::{fail, json};
use super::{notice, say};
use vhost_famfs::args::StartConfig;
use vhost_famfs::cluster::directory::Directory;
use vhost_famfs::cluster::find;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::life::LifeError;
use vhost_famfs::cluster::start::{Start, StartVm, check};
use vhost_famfs::cluster::stop::stop;

/// The VMs that were started.
#[derive(Serialize)]
struct StartReport {
    cluster: String,
    vms: Vec<StartVm>,
}

pub(super) fn run(config: &StartConfig) -> Result<ExitCode> {
    let directory = find(&runtime_dir()?, config.cluster.as_deref())?;
    before_vms()?;
    if let Some(limit) = config.stop {
        check(&directory, &config.vms)?;
        stop(&directory, &config.vms, limit)?;
    }
    let started = match start_vms(&directory, &config.vms, config.timeout, config.json)? {
        Ok(started) => started,
        Err(code) => return Ok(code),
    };
    if config.json {
        let cluster = directory.name().to_owned();
        json(&StartReport { cluster, vms: started })?;
    } else {
        let lines = started.iter().map(|vm| {
            let what = if vm.mounted { "pool mounted" } else { "up" };
            format!("{}: {what} after {:.1} s", vm.name, vm.boot_seconds)
        });
        say(lines.collect::<Vec<_>>().join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts VMs. If some do not come up, tells about all of them; after an interruption, returns the
/// program's exit code.
pub(super) fn start_vms(
    directory: &Directory,
    names: &[String],
    timeout: Duration,
    json: bool,
) -> Result<Result<Vec<StartVm>, ExitCode>> {
    let (mut started, mut failures) = (Vec::new(), Vec::new());
    for result in start_all(directory, names, timeout)? {
        match result {
            Ok(vm) => started.push(vm),
            Err(error) => failures.push(error),
        }
    }
    let Some(last) = failures.pop() else { return Ok(Ok(started)) };
    for failure in failures {
        notice(format_args!("{:#}", anyhow::Error::from(failure)));
    }
    for vm in &started {
        notice(format_args!("{} was started", vm.name));
    }
    match last {
        LifeError::Interrupted(_) => Ok(Err(fail(&last.into(), INTERRUPTED, json))),
        last => Err(last.into()),
    }
}

/// Starts all VMs at the same time. Nothing is started if one of them cannot be reserved.
fn start_all(
    directory: &Directory,
    names: &[String],
    timeout: Duration,
) -> Result<Vec<Result<StartVm, LifeError>>> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    let handle = signals.handle();
    let mut starts: Vec<Start<'_>> = Vec::new();
    for name in names {
        match Start::new(directory, name) {
            Ok(start) => starts.push(start),
            Err(error) => {
                starts.iter().for_each(Start::undo);
                return Err(error.into());
            }
        }
    }
    let starts = &starts;
    Ok(thread::scope(|scope| {
        scope.spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                // At the second signal, the rest is left to the next command.
                if asked {
                    std::process::exit(128 + signal);
                }
                asked = true;
                starts.iter().for_each(Start::interrupt);
            }
        });
        let run = |start| scope.spawn(move || Start::run(start, timeout));
        let threads: Vec<_> = starts.iter().map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let results = threads.into_iter().map(join).collect();
        handle.close();
        results
    }))
}
