// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::say;
use crate::args::{Described, Emit, UpConfig};
use crate::launch::check;
use crate::launch::cloud_hypervisor::{self, CloudHypervisor};
use crate::launch::cluster_file;
use crate::launch::emit::{self, Form};
use crate::launch::find_in_path;
use crate::launch::host::Host;
use crate::launch::plan::Plan;
use crate::launch::spec::Spec;

pub(super) fn run(config: UpConfig) -> Result<ExitCode> {
    let spec = spec(&config)?;
    let host = Host::look(config.qemu.as_deref(), config.image.as_deref())?;
    let plan = Plan::new(&spec, &host)?;
    check::before_start(&plan)?;
    if !config.dry_run {
        bail!("starting clusters is not in this build; use --dry-run");
    }
    match config.emit {
        None => say(&plan)?,
        Some(form) => emit(&plan, form, config.output.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the plan down for another program.
fn emit(plan: &Plan, form: Emit, output: Option<&Path>) -> Result<()> {
    let found = match form {
        Emit::CloudHypervisor => find_in_path(cloud_hypervisor::PROGRAM),
        _ => None,
    };
    let found = found.map(|program| CloudHypervisor::of(&program)).transpose()?;
    let files = emit::emit(
        plan,
        match form {
            Emit::Qemu => Form::Qemu,
            Emit::CloudHypervisor => Form::CloudHypervisor(found.as_ref()),
            Emit::Libvirt => Form::Libvirt,
            Emit::Systemd => Form::Systemd,
        },
    )?;
    for file in files {
        match output {
            None => say(&file)?,
            Some(dir) => {
                let path = dir.join(&file.name);
                File::create_new(&path)
                    .and_then(|mut made| made.write_all(file.text.as_bytes()))
                    .with_context(|| format!("cannot write {}", path.display()))?;
                say(path.display())?;
            }
        }
    }
    Ok(())
}

/// The cluster that the command line describes.
fn spec(config: &UpConfig) -> Result<Spec> {
    let mut spec = match &config.cluster {
        Described::File(path) => cluster_file::read(path)?,
        Described::Here { vms, shares, pool, size } => {
            let mut spec = Spec::of_shares("default", *vms, shares.clone());
            spec.pool.path.clone_from(pool);
            spec.pool.size = *size;
            spec
        }
    };
    if let Some(name) = &config.name {
        spec.name.clone_from(name);
    }
    Ok(spec)
}
