// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up`.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::say;
use crate::args::{Described, UpConfig};
use crate::launch::cluster_file;
use crate::launch::host::Host;
use crate::launch::plan::Plan;
use crate::launch::spec::Spec;

pub(super) fn run(config: UpConfig) -> Result<ExitCode> {
    let spec = spec(&config)?;
    let host = Host::look(config.qemu.as_deref(), config.image.as_deref())?;
    let plan = Plan::new(&spec, &host)?;
    if !config.dry_run {
        bail!("starting clusters is not in this build; use --dry-run");
    }
    match config.emit {
        None => say(&plan)?,
        Some(form) => bail!("--emit {form:?} is not in this build"),
    }
    Ok(ExitCode::SUCCESS)
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
