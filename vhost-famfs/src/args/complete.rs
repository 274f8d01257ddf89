// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shell completion of the names of existing clusters and VMs.

use std::collections::BTreeMap;

use clap_complete::{ArgValueCandidates, CompletionCandidate};

use crate::cluster::directory::{self, Directory};
use crate::cluster::host::runtime_dir;
use crate::cluster::spec::check_name;

/// The environment variable through which a shell asks this program for completions. It also prints
/// the script for a shell: `VHOST_FAMFS_COMPLETE=bash vhost-famfs`.
pub const VARIABLE: &str = "VHOST_FAMFS_COMPLETE";

/// The names of all clusters.
pub(super) fn clusters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = directories().into_iter().map(|directory| directory.name().to_owned());
        names.map(CompletionCandidate::new).collect()
    })
}

/// The names of the VMs of all clusters: the rest of the command line is not known here.
pub(super) fn vms() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut clusters_of = BTreeMap::<String, Vec<String>>::new();
        for directory in directories() {
            // A directory that cannot be read offers no names.
            let Ok(Some(state)) = directory.read() else { continue };
            for vm in state.vms.into_iter().filter(|vm| check_name(&vm.name).is_ok()) {
                clusters_of.entry(vm.name).or_default().push(directory.name().to_owned());
            }
        }
        let offered = clusters_of.into_iter().map(|(vm, clusters)| {
            let help = format!("VM of cluster {}", clusters.join(", "));
            CompletionCandidate::new(vm).help(Some(help.into()))
        });
        offered.collect()
    })
}

fn directories() -> Vec<Directory> {
    let Ok(base) = runtime_dir() else { return Vec::new() };
    let names = directory::names(&base).unwrap_or_default();
    let names = names.into_iter().filter(|name| check_name(name).is_ok());
    names.map(|name| Directory::new(&base, &name)).collect()
}
