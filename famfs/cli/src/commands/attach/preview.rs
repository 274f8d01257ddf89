// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs attach --dry-run`: looks once at what would be loaded, bound and mounted, and changes
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use famfs::guest::search::missing_modules;
use famfs::guest::{self, Finding, GuestError};
use famfs::system::mounts;
use famfs::text::error_report::one_line;
use famfs_cli::args::Attach;
use serde::Serialize;

use crate::output::{FAILED, OK, Outcome, notice, print_json, say};

#[derive(Serialize)]
struct AttachPreviewReport {
    version: u32,
    dry_run: bool,
    mount_point: PathBuf,
    /// Modules that are not loaded; some may be built in.
    modules: Vec<&'static str>,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    device: PathBuf,
    action: Action,
    /// Why nothing would be done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What would be done with a device.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// It is mounted; its log would be played.
    Logplay,
    /// It holds a famfs, and would be mounted.
    Mount,
    /// It would be bound to fsdev_dax, and only then examined.
    Bind,
    /// Its driver would probe it again, which makes a dax device of it.
    Probe,
    /// Nothing.
    None,
}

pub fn run(args: &Attach) -> Outcome {
    let mount_point =
        fs::canonicalize(&args.mount_point).unwrap_or_else(|_| args.mount_point.clone());
    let report = match mounts::on(&mount_point)? {
        Some(mount) => AttachPreviewReport {
            version: 1,
            dry_run: true,
            mount_point,
            modules: Vec::new(),
            devices: vec![Device { device: mount.source, action: Action::Logplay, reason: None }],
        },
        None => AttachPreviewReport {
            version: 1,
            dry_run: true,
            mount_point,
            modules: missing_modules(),
            devices: look(args.device.as_deref()),
        },
    };
    print_report(args, &report)?;
    let with = |action| report.devices.iter().filter(move |device| device.action == action).count();
    if with(Action::Mount) > 1 {
        notice!("several devices hold a famfs; choose with --device");
        return Ok(FAILED);
    }
    // A device may still come from a module.
    if with(Action::None) == report.devices.len() && report.modules.is_empty() {
        notice!("no device holds a famfs");
        return Ok(FAILED);
    }
    Ok(OK)
}

/// Looks at every device, or at the named one.
fn look(named: Option<&Path>) -> Vec<Device> {
    let dax = guest::dax_devices().into_iter().map(|name| (name, true));
    let pmem = guest::pmem_devices().into_iter().map(|name| (name, false));
    let mut devices = Vec::new();
    for (name, is_dax) in dax.chain(pmem) {
        let device = Path::new("/dev").join(&name);
        if named.is_some_and(|named| named != device) {
            continue;
        }
        let action =
            if is_dax { action_on_dax(&name, named.is_some()) } else { action_on_pmem(&name) };
        let (action, reason) = match action {
            Ok(Ok(action)) => (action, None),
            Ok(Err(reason)) => (Action::None, Some(reason)),
            Err(err) => (Action::None, Some(one_line(&err))),
        };
        devices.push(Device { device, action, reason });
    }
    devices
}

/// What would be done with a device, or why nothing would be done.
type Decision = Result<Result<Action, String>, GuestError>;

fn action_on_dax(name: &str, asked: bool) -> Decision {
    if guest::needs_fsdev(name, asked)? {
        return Ok(Ok(Action::Bind));
    }
    Ok(decide(guest::look_at_dax(name)))
}

fn action_on_pmem(name: &str) -> Decision {
    if guest::needs_probe(name)? {
        return Ok(Ok(Action::Probe));
    }
    Ok(decide(guest::look_at_pmem(name)?))
}

fn decide(finding: Finding) -> Result<Action, String> {
    match finding {
        Finding::Famfs(_) => Ok(Action::Mount),
        Finding::Not(reason) | Finding::NotYet(reason) => Err(reason),
    }
}

fn print_report(args: &Attach, report: &AttachPreviewReport) -> Result<()> {
    if args.json {
        return print_json(report);
    }
    if !report.modules.is_empty() {
        say!("would load {}", report.modules.join(", "))?;
    }
    let mount_point = report.mount_point.display();
    for Device { device, action, reason } in &report.devices {
        let name = device.display();
        match action {
            Action::Logplay => say!("{name} is on {mount_point}; would play its log")?,
            Action::Mount => say!("would mount {name} on {mount_point}")?,
            Action::Bind => say!("would bind {name} to fsdev_dax, then see what it holds")?,
            Action::Probe => say!("would have {name} probed again, to get a dax device")?,
            Action::None => say!("{name}: {}", reason.as_deref().unwrap_or("nothing to do"))?,
        }
    }
    Ok(())
}
