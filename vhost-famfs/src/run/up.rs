// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use famfs::archive::import::reasons;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::change::{self, ChangeReport};
use super::described::{located, spec};
use super::emit::emit;
use super::launching::{INTERRUPTED, before_vms};
use super::report::{fail, json};
use super::say;
use famfs::text::units::{About, count};
use vhost_famfs::args::UpConfig;
use vhost_famfs::cluster::change::running;
use vhost_famfs::cluster::host::Host;
use vhost_famfs::cluster::plan::ClusterPlan;
use vhost_famfs::cluster::preflight;
use vhost_famfs::cluster::spec::Access;
use vhost_famfs::cluster::up::{Event, Start, UpError, UpReport};
use vhost_famfs::vm::QemuVersion;

pub(super) fn run(config: UpConfig) -> Result<ExitCode> {
    let (spec, file) = spec(&config)?;
    let host = Host::look(config.qemu.as_deref(), config.image.as_deref())?;
    let file = file.as_ref();
    if config.emit.is_none()
        && let Some(state) = running(&host.runtime, &spec.name)?
    {
        return change::run(&config, &spec, &host, state, file);
    }
    let plan =
        ClusterPlan::new(&spec, &host).map_err(|error| located(file, error.subject(), error))?;
    if config.verbose && !config.dry_run {
        name_left_out(&plan);
    }
    if !config.dry_run || config.emit.is_some() {
        plan.pool.refuse_left_out().map_err(|error| located(file, error.subject(), error))?;
    }
    if config.emit.is_none() {
        preflight::ports(&plan.vms, &[]).map_err(|error| located(file, error.subject(), error))?;
    }
    let headroom = preflight::before_start(&plan, config.overcommit, 0)
        .map_err(|error| located(file, error.subject(), error))?;
    if config.dry_run {
        match config.emit {
            None if config.json => {
                plan.pool
                    .refuse_left_out()
                    .map_err(|error| located(file, error.subject(), error))?;
                json(&ChangeReport::of_new(&plan))?;
            }
            None => {
                say(format!("{plan}\n\nmemory:       {headroom}"))?;
                // The plan is printed; that the start would be refused is still an error.
                plan.pool
                    .refuse_left_out()
                    .map_err(|error| located(file, error.subject(), error))?;
            }
            Some(form) => emit(&plan, form, config.output.as_deref())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    before_vms()?;
    match start(&plan, config.timeout) {
        Ok(report) if config.json => json(&report)?,
        Ok(report) => {
            if config.verbose {
                name_dropped(&report);
            }
            say(format!("{}{}", table(&report), old_qemu(&plan, &host)))?;
        }
        Err(error) => {
            if let Some(UpError::Interrupted) = error.downcast_ref() {
                return Ok(fail(&error, INTERRUPTED, config.json));
            }
            return Err(error);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists everything in the imports that famfs cannot store.
fn name_left_out(plan: &ClusterPlan) {
    for (import, items) in plan.pool.imports() {
        for item in items {
            // If nobody reads the list, the start goes on.
            let _ = writeln!(io::stderr(), "{}: not copied: {item}", import.from.display());
        }
    }
}

/// Lists every file with attributes that famfs does not store.
fn name_dropped(report: &UpReport) {
    for (name, lost) in &report.imported.lost.items {
        let _ = writeln!(io::stderr(), "not kept of {name}: {}", lost.name());
    }
}

fn start(plan: &ClusterPlan, timeout: Duration) -> Result<UpReport> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    let start = Start::new(plan)?;
    let progress = Progress::new(plan.vms.len());
    let (start, handle) = (&start, signals.handle());
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                // At the second signal, the rest is left to `down`.
                if asked {
                    std::process::exit(128 + signal);
                }
                asked = true;
                start.interrupt();
            }
        });
        let result = start.run(timeout, &|event| progress.show(&event));
        progress.0.finish_and_clear();
        handle.close();
        Ok(result?)
    })
}

/// Shows progress: on a terminal a line that changes, elsewhere lines.
struct Progress(ProgressBar, usize);

impl Progress {
    fn new(vms: usize) -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self(ProgressBar::with_draw_target(None, target), vms)
    }

    fn show(&self, event: &Event<'_>) {
        match event {
            Event::Taking(done, all) => self.bytes("allocating memory", *done, *all),
            Event::Copied(step, all) => {
                let done = self.0.position() + step;
                self.bytes("copying", done, *all);
            }
            Event::Starting => {
                self.style("starting VMs {bar:30} {pos}/{len} up, {elapsed}");
                // At once, or the bytes that were copied would be shown as VMs for a moment.
                self.0.update(|state| {
                    state.set_pos(0);
                    state.set_len(self.1 as u64);
                });
                self.0.enable_steady_tick(Duration::from_millis(250));
            }
            Event::Up(vm) => {
                self.0.inc(1);
                let what = if vm.mounted { "pool mounted" } else { "up" };
                let line = format!("{}: {what} after {:.1} s", vm.name, vm.boot_seconds);
                // Print through the bar, or the bar would overwrite the line.
                match self.0.is_hidden() {
                    true => eprintln!("{line}"),
                    false => self.0.println(line),
                }
            }
        }
    }

    fn bytes(&self, what: &str, done: u64, all: u64) {
        self.style(&format!("{what} {{bar:30}} {{binary_bytes}}/{{binary_total_bytes}} {{eta}}"));
        self.0.set_length(all);
        self.0.set_position(done);
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
    }
}

/// Which transport the VMs have, if that is because of the QEMU.
fn old_qemu(plan: &ClusterPlan, host: &Host) -> String {
    let needed = QemuVersion::SHARED_MEMORY;
    if host.qemu_version >= needed || plan.vms.iter().all(|vm| vm.access == Access::ReadOnly) {
        return String::new();
    }
    format!(
        "\ntransport pmem, because this is QEMU {}: VMs map the whole pool without a back-end; \
         slices and back-ends need {needed}",
        host.qemu_version
    )
}

fn table(report: &UpReport) -> String {
    let mut text =
        format!("{:<16} {:<6} {:<9} {:<14} {:>8}", "VM", "ACCESS", "TRANSPORT", "MOUNT", "BOOT");
    for vm in &report.vms {
        let mount = match (vm.mounted, vm.master) {
            (true, true) => "yes (master)",
            (true, false) => "yes",
            (false, _) => "no",
        };
        let boot = format!("{:.1} s", vm.boot_seconds);
        let line =
            format!("{:<16} {:<6} {:<9} {mount:<14} {boot:>8}", vm.name, vm.access, vm.transport);
        let _ = write!(text, "\n{line}");
    }
    let imported = &report.imported;
    let _ = write!(text, "\n\ncluster {} is up; pool {}", report.cluster, report.pool);
    if imported.files > 0 {
        let files = count(imported.files, "file", "files");
        let _ = write!(text, ", {files}, {}", About(imported.bytes));
    }
    if imported.left_out > 0 {
        let counts = reasons(&imported.skipped);
        let _ = write!(text, "\n{} not copied: {counts} (-v lists them)", imported.left_out);
    }
    if let Some(lost) = imported.lost.summary() {
        let _ = write!(text, "\nnot kept: {lost} (-v names the files)");
    }
    if report.vms.iter().all(|vm| !vm.master) && report.vms.iter().any(|vm| vm.mounted) {
        let pool = &report.pool;
        let _ = write!(text, "\nno VM is the master: change files with famfs --pool {pool}");
    }
    let first = report.vms.first().map_or("vm1", |vm| vm.name.as_str());
    let name = &report.cluster;
    let _ = write!(
        text,
        "\nnext: vhost-famfs exec --cluster {name} {first} -- ls /mnt/famfs; ps {name}; down {name}"
    );
    text
}
