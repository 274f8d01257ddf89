// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cluster that a command line describes.

use std::path::absolute;

use anyhow::{Context, Result};

use vhost_famfs::args::{Described, UpConfig};
use vhost_famfs::cluster::cluster_file::{self, ClusterFile};
use vhost_famfs::cluster::spec::{Spec, Subject};

/// The cluster that the command line describes, and its cluster file, if any.
pub(super) fn spec(config: &UpConfig) -> Result<(Spec, Option<ClusterFile>)> {
    let (mut spec, file) = match &config.cluster {
        Described::File(path) => {
            let file = cluster_file::read_scaled(path, &config.scales)?;
            (file.spec.clone(), Some(file))
        }
        Described::Here { vms, shares, pool, size } => {
            let mut spec = Spec::of_shares("default", *vms, shares.clone());
            spec.pool.path.clone_from(pool);
            spec.pool.size = *size;
            (spec, None)
        }
    };
    if config.unconfined {
        spec.vms.iter_mut().for_each(|vm| vm.confine = false);
    }
    spec.vms.iter_mut().for_each(|vm| vm.noexec |= config.noexec);
    if let Some(name) = &config.name {
        spec.name.clone_from(name);
    }
    if config.master.is_some() {
        spec.master.clone_from(&config.master);
    }
    spec.pool.foreign |= config.foreign_pool;
    // Other commands, and emitted scripts, may run in other directories.
    let images = spec
        .vms
        .iter_mut()
        .flat_map(|vm| [&mut vm.image, &mut vm.kernel, &mut vm.initrd, &mut vm.firmware]);
    for path in images.chain([&mut spec.pool.path]).flatten() {
        *path = absolute(&*path)
            .with_context(|| format!("cannot make {} an absolute path", path.display()))?;
    }
    for import in &mut spec.imports {
        import.skip_unsupported |= config.skip_unsupported;
    }
    Ok((spec, file))
}

/// An error about a part of the cluster file, with its position there.
pub(super) fn located<E: std::error::Error + Send + Sync + 'static>(
    file: Option<&ClusterFile>,
    subject: Option<Subject>,
    error: E,
) -> anyhow::Error {
    let located = file.zip(subject).and_then(|(file, subject)| file.locate(&subject, &error));
    located.map_or_else(|| error.into(), Into::into)
}
