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
use vhost_famfs::cluster::order::{in_turns, waves};
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
    // What comes of an interruption is not to be told as the reason.
    failures.sort_by_key(|failure| matches!(failure, LifeError::Interrupted(_)));
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

/// Starts all VMs: those that depend on others when these are up, all others at the same time.
/// Nothing is started if one of them cannot be reserved.
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
    let order: Vec<_> = starts.iter().map(|start| (start.name(), start.depends_on())).collect();
    // A circle has no order.
    let waves = waves(&order).unwrap_or_else(|_| vec![(0..starts.len()).collect()]);
    let waves = match starts.first() {
        Some(start) => in_turns(waves, start.accelerator()),
        None => waves,
    };
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
        let (mut results, mut missing) = (Vec::new(), Vec::new());
        for wave in waves {
            let run = |index: usize| {
                let start = &starts[index];
                let on = start.depends_on().iter().find(|name| missing.contains(*name)).cloned();
                scope.spawn(move || match on {
                    None => start.run(timeout),
                    Some(on) => {
                        start.undo();
                        Err(LifeError::Dependency { vm: start.name().to_owned(), on })
                    }
                })
            };
            let threads: Vec<_> = wave.iter().copied().map(run).collect();
            for (index, thread) in wave.into_iter().zip(threads) {
                let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                if result.is_err() {
                    missing.push(starts[index].name().to_owned());
                }
                results.push(result);
            }
        }
        handle.close();
        results
    }))
}
